"""Audits that the reporters are shown: an ordinary one and a hostile one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from report_samples import with_rules

from leakaudit.findings import (
    AuditReport,
    Confirmation,
    Counts,
    Finding,
    ImageReport,
    InputReport,
    LayerReport,
    LeakPathReport,
    ModelReport,
    PathStep,
    PathStop,
    Scope,
    Severity,
    Skipped,
    Status,
    SymbolicCounts,
    Verdict,
)

GOLDEN = Path(__file__).parent / "golden"

# Channels, height of the input; channels, height of the output; stride: lenet_main of the R-CONV
# script, and its (|X|, |A|, |B|).
LENET_MAIN = {
    "conv1": ((3, 32), (12, 16), 2, (3072, 900, 3072)),
    "conv2": ((12, 16), (16, 8), 2, (3072, 4800, 1024)),
    "conv3": ((16, 8), (12, 8), 1, (1024, 4800, 768)),
    "conv4": ((12, 8), (3, 8), 1, (768, 900, 192)),
}


def counts(unknowns: int, gradient: int, weight: int, bound: int | None = None) -> Counts:
    bound = unknowns if bound is None else bound
    return Counts(
        unknowns=unknowns,
        unread=0,
        gradient_constraints=gradient,
        weight_constraints=weight,
        redundant=gradient + weight - bound,
        rank_bound=bound,
        gradient_rank_bound=min(bound, gradient),
        formulas=lambda: SymbolicCounts(
            "H*N*W", "F*K**2*N", "F*floor((H + 2*P - K)/S + 1)**2", "|A| + |B| - |X|"
        ),
    )


def conv(name: str, given: tuple[int, int], result: tuple[int, int], stride: int) -> LayerReport:
    return LayerReport(
        name=name,
        op="conv",
        origin="Conv",
        input_shape=(1, given[0], given[1], given[1]),
        output_shape=(1, result[0], result[1], result[1]),
        parameters={
            "kernel": (5, 5),
            "stride": (stride, stride),
            "padding_begin": (2, 2),
            "padding_end": (2, 2),
            "dilation": (1, 1),
            "groups": 1,
        },
        counts=None,
        verdict=Verdict.FLAGGED,
    )


def with_counts(layer: LayerReport, given: Counts, verdict: Verdict) -> LayerReport:
    return LayerReport(
        layer.name,
        layer.op,
        layer.origin,
        layer.input_shape,
        layer.output_shape,
        layer.parameters,
        given,
        verdict,
        layer.note,
    )


def finding(
    rule: str, layer: str | None, severity: Severity, message: str, **more: object
) -> Finding:
    given: dict[str, object] = {
        "title": "the equations can fix the whole input of a convolution",
        "fingerprint": f"{rule}-{layer}",
        "remedy": (
            "Raise the stride, or lower the number of filters or the kernel size, until "
            "|X| exceeds the rank bound with a margin; `leakaudit advise` lists the smallest "
            "change."
        ),
        "url": "https://leakaudit.example/rules/" + rule,
    }
    return Finding(rule=rule, layer=layer, severity=severity, message=message, **{**given, **more})


def lenet_main() -> ModelReport:
    layers = [
        with_counts(conv(name, given, result, stride), counts(*figures), Verdict.FLAGGED)
        for name, (given, result, stride, figures) in LENET_MAIN.items()
    ]
    layers.append(
        LayerReport(
            name="fc",
            op="linear",
            origin="Gemm",
            input_shape=(1, 192),
            output_shape=(1, 100),
            parameters={"in_features": 192, "out_features": 100},
            counts=counts(192, 19200, 100),
            verdict=Verdict.FLAGGED,
        )
    )
    steps = [
        PathStep(
            "linear-input",
            "x = dW[m] / db[m] for every m with db[m] != 0 (least squares over all m)",
            "flatten",
            "value(flatten)",
            ("gradient(fc.weight)", "gradient(fc.bias)"),
            "fc",
        ),
        PathStep(
            "linear-gradient",
            "dl/dx = Wᵀ · dl/dz",
            "flatten",
            "gradient(flatten)",
            ("gradient(fc.bias)",),
            "fc",
        ),
        PathStep(
            "reshape",
            "a reshape keeps every element",
            "act4",
            "value(act4)",
            ("value(flatten)",),
            "flatten",
        ),
    ]
    for name, (_, _, _, (unknowns, gradient, weight)) in reversed(LENET_MAIN.items()):
        before = "x" if name == "conv1" else f"act{int(name[-1]) - 1}"
        steps.append(
            PathStep(
                "activation",
                "the derivative of the activation follows from its output",
                f"{name}.out",
                f"gradient({name}.out)",
                (f"gradient(act{name[-1]})", f"value(act{name[-1]})"),
                f"act{name[-1]}",
            )
        )
        steps.append(
            PathStep(
                "conv",
                f"{gradient} gradient constraints dl/dw = G·P and {weight} weight constraints "
                f"o - b = P·w are solved for {unknowns} unknowns",
                before,
                f"value({before})",
                (f"gradient({name}.out)", f"value({name}.out)", f"gradient({name}.weight)"),
                name,
                {
                    "unknowns": unknowns,
                    "gradient_constraints": gradient,
                    "weight_constraints": weight,
                    "rank_bound": unknowns,
                    "unread": 0,
                },
            )
        )
    confirmation = Confirmation(
        status=Status.CONFIRMED,
        scope=Scope.END_TO_END,
        reason="gradient constraints alone do not suffice",
        device="cpu",
        gradient_dtype="float32",
        solver="dense least squares",
        rank=3072,
        unknowns=3072,
        condition=1234.5,
        singular_values=(1.75, 1.75 / 1234.5),
        residual=3.1e-16,
        mse=6.2e-27,
        psnr=262.08,
        ssim=1.0,
        seconds=0.4137,
        seed=0,
        probe="cifar10_00_3.png",
        attempts=("LSMR: stopped after 200 iterations, residual 1e-9", "dense least squares"),
    )
    local = Confirmation(
        status=Status.NOT_REPRODUCED,
        scope=Scope.LOCAL,
        reason="rank 1019 of 1024 at the tolerance of float32",
        device="cpu",
        gradient_dtype="float32",
        solver="dense least squares",
        rank=1019,
        unknowns=1024,
        condition=8.8e7,
        singular_values=(2.0, 2.0 / 8.8e7),
        residual=2e-8,
        mse=0.0123,
        psnr=19.1,
        seconds=1.2,
        seed=0,
        probe="cifar10_00_3.png",
    )
    return ModelReport(
        target="models/lenet_main.onnx",
        format="onnx",
        sha256="0f" * 32,
        inputs=(InputReport("x", (1, 3, 32, 32)),),
        complete=True,
        layers=tuple(layers),
        leak_path=LeakPathReport(True, "x", 3072, tuple(steps), ()),
        findings=(
            finding(
                "LA020",
                "conv4",
                Severity.MEDIUM,
                "the gradient constraints alone (900) can fix all 768 unknowns",
                title="gradient constraints alone fix a convolution's input",
                remedy="Use fewer filters:\nat most 2 here.",
            ),
            finding(
                "LA010",
                "conv1",
                Severity.CRITICAL,
                "|X| = 3072 <= |A| + |B| = 3972, rank bound 3072",
                confirmation=confirmation,
            ),
            finding(
                "LA010",
                "conv3",
                Severity.HIGH,
                "|X| = 1024 <= |A| + |B| = 5568, rank bound 1024",
                confirmation=local,
                downgraded_because="the confirmation did not reproduce it",
            ),
        ),
        images=(
            ImageReport(
                "out/lenet_main-original.png",
                "out/lenet_main-reconstruction.png",
                "out/lenet_main-difference.png",
            ),
        ),
        notes=("the loss was taken to be cross-entropy, from the number of outputs",),
    )


def pooled() -> ModelReport:
    """A model that the path does not get through, with an operator that is not understood."""
    first = conv("features.0", (3, 32), (12, 16), 2)
    under = with_counts(first, counts(3072, 900, 1500, 2250), Verdict.UNDERDETERMINED)
    unknown = LayerReport(
        name="attention.in_proj",
        op="unsupported",
        origin="com.microsoft::Attention",
        input_shape=(1, 64, 768),
        output_shape=(1, 64, 768),
        parameters={},
        counts=None,
        verdict=Verdict.UNDETERMINED,
        note="com.microsoft::Attention is not understood",
    )
    step = PathStep(
        "linear-input",
        "x = dW[m] / db[m] for every m with db[m] != 0 (least squares over all m)",
        "pool",
        "value(pool)",
        ("gradient(fc.weight)", "gradient(fc.bias)"),
        "fc",
    )
    return ModelReport(
        target="models/pooled.pt2",
        format="pt2",
        sha256=None,
        inputs=(InputReport("image", (1, 3, 32, 32)), InputReport("mask", (1, 64))),
        complete=False,
        layers=(under, unknown),
        leak_path=LeakPathReport(
            False,
            "pool",
            300,
            (step,),
            (PathStop("pool", "max pooling hides which position held the maximum"),),
        ),
        findings=(
            finding(
                "LA030",
                None,
                Severity.NOTE,
                "an operator is not understood",
                title="audit incomplete",
                remedy="",
                url="",
                confirmation=Confirmation(Status.NOT_RUN, Scope.NONE, "nothing to reconstruct"),
            ),
        ),
        skipped=(Skipped("attention.in_proj", "com.microsoft::Attention is not understood"),),
    )


def broken() -> ModelReport:
    return ModelReport(
        target="models/broken.onnx",
        format="onnx",
        sha256=None,
        error="the file ends in the middle of a tensor; export the model again",
    )


@pytest.fixture
def lenet_report() -> AuditReport:
    return AuditReport("1.2.3", (lenet_main(),))


@pytest.fixture
def mixed_report() -> AuditReport:
    return AuditReport("1.2.3", (lenet_main(), pooled(), broken()))


@pytest.fixture
def ci_report() -> AuditReport:
    """The mixed audit with rules and a finding on the leak path."""
    return with_rules((lenet_main(), pooled(), broken()))


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with a golden file; LEAKAUDIT_UPDATE_GOLDEN=1 writes it instead."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("LEAKAUDIT_UPDATE_GOLDEN") == "1":
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        assert text == path.read_text(encoding="utf-8")

    return compare
