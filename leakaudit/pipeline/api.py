"""The audit from Python: what `import leakaudit` offers, the command line's functions by keyword.

Settings have the names and the meaning of the options of `leakaudit check`, and so have the texts
of errors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leakaudit.advice.search import Advice, advise as search
from leakaudit.errors import UsageError
from leakaudit.frontends import registry
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph
from leakaudit.leakpath.path import LeakPath, find_leak_path as follow
from leakaudit.operators import Unsupported
from leakaudit.pipeline.audit import (
    audit_all,
    audit_graph,
    choose_loss,
    report_of,
    require_confirmation,
    without_layers,
)
from leakaudit.pipeline.choices import LOSSES, require_choice
from leakaudit.pipeline.options import audit_options
from leakaudit.pipeline.report import Report
from leakaudit.rules.registry import load_rules
from leakaudit.sandbox.limits import parse_limits

Shape = tuple[int, ...]


def audit(
    model: object,
    *,
    inputs: object = None,
    input_shape: Shape | Mapping[str, Shape] | None = None,
    batch_size: int | None = None,
    frozen: Sequence[str] = (),
    limits: Mapping[str, int | str] | None = None,
    confirm: bool = True,
    device: str = "auto",
    gradient_dtype: str = "float32",
    loss: str = "auto",
    probe: str | os.PathLike[str] | None = None,
    seed: int = 0,
    time_budget: float | None = 120,
    save_images: str | os.PathLike[str] | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    rules: Sequence[str | os.PathLike[str]] = (),
) -> Report:
    """Audit a model: count, follow the leak path, apply the rules, and confirm by reconstruction.

    Args:
        model: A live `torch.nn.Module`, an `onnx.ModelProto`, or what the command line takes: the
            path of a `.onnx` or `.pt2` file or of a folder of them, `"package.module:callable"` or
            `"path/file.py:callable"` (which runs that code). A module is audited in evaluation
            mode and left as it was; a `ModelProto` is not compared with onnxruntime.
        inputs: Of a live module, example inputs: a tensor, a tuple of tensors in the order of
            `forward`, or a mapping from its keywords, such as `pixel_values`, to tensors. The
            batch comes first; only shapes and dtypes matter.
        input_shape: Sizes of the only input, batch first, or sizes by the input's name.
        batch_size: Examples per shared gradient. None: what the model fixes, or 1.
        frozen: Name patterns of parameters that are not trained and send no gradient.
        limits: What a model file may cost, such as `{"memory_bytes": "16GiB"}`.
        confirm: Prove findings by running R-CONV. Needs torch and onnxruntime.
        device: `auto`, `cpu` or `cuda`: where R-CONV runs.
        gradient_dtype: What the client sends: `float64`, `float32`, `bfloat16` or `float16`.
        loss: `cross-entropy`, `bce`, `mse`; `auto`: bce for one output, else cross-entropy.
        probe: A picture to reconstruct instead of a synthetic one.
        seed: Of the synthetic probe and of whatever else is drawn.
        time_budget: Seconds per model for the confirmation, None for no end.
        save_images: Folder that receives original, reconstruction and difference as PNG.
        select: Ids or slugs of the only rules to apply.
        ignore: Ids or slugs of rules not to apply.
        rules: Folders with further rules (`*.toml`).

    Returns:
        The report. In a folder, a model that cannot be audited says so in its `error`, and the
        exit code is 3.

    Raises:
        AuditError: The model cannot be audited.
        UsageError: A setting is not allowed, does not fit the model, or confirmation cannot run.

    Example:
        >>> import leakaudit
        >>> report = leakaudit.audit("sample_models/lenet_main.onnx", confirm=False)
        >>> report.exit_code()
        1
        >>> report.findings[-1].title
        "The model's input can be computed from the shared gradient"
    """
    settings = {
        "select": select,
        "ignore": ignore,
        "loss": loss,
        "confirm": confirm,
        "device": device,
        "gradient_dtype": gradient_dtype,
        "seed": seed,
        "probe": None if probe is None else Path(probe),
        "time_budget": time_budget,
        "save_images": None if save_images is None else Path(save_images),
    }
    load = _load_options(input_shape, batch_size, frozen, limits)
    options = audit_options(settings, load_rules([Path(folder) for folder in rules]), load)
    if inputs is None and isinstance(model, str | os.PathLike) and Path(model).is_dir():
        return Report(audit_all(registry.expand(os.fspath(model)), options))
    graph = _read(model, inputs, options.load)
    target, sha256 = _named(model, graph)
    return Report(report_of([audit_graph(target, graph, options, sha256=sha256)], options.rules))


def load(
    model: object,
    *,
    inputs: object = None,
    input_shape: Shape | Mapping[str, Shape] | None = None,
    batch_size: int | None = None,
    frozen: Sequence[str] = (),
    limits: Mapping[str, int | str] | None = None,
) -> Graph:
    """Read a model, without its numbers: these are loaded when something asks for them.

    Args:
        model: As for `audit`, but no folder.
        inputs, input_shape, batch_size, frozen, limits: As for `audit`.

    Raises:
        AuditError: It cannot be read.
        UsageError: A setting is not allowed or does not fit the model.

    Example:
        >>> import leakaudit
        >>> graph = leakaudit.load("sample_models/lenet_main.onnx", batch_size=2)
        >>> [graph.tensors[name].shape for name in graph.inputs]
        [(2, 3, 32, 32)]
    """
    return _read(model, inputs, _load_options(input_shape, batch_size, frozen, limits))


def find_leak_path(graph: Graph, loss: str = "auto") -> LeakPath:
    """Find the way by which the input, or features near it, follow from the shared gradient.

    Args:
        graph: A network that `load` gave.
        loss: `cross-entropy`, `bce`, `mse`; `auto`: bce for one output, else cross-entropy.

    Raises:
        UsageError: There is no such loss.

    Example:
        >>> import leakaudit
        >>> path = leakaudit.find_leak_path(leakaudit.load("sample_models/lenet_main.onnx"))
        >>> path.report.reaches_input, path.report.steps[-1].fact
        (True, 'value(input)')
    """
    require_choice("--loss", loss, LOSSES)
    return follow(graph, choose_loss(graph, loss))


def advise(
    model: object,
    *,
    layer: str | None = None,
    max_rho: float = 1.0,
    inputs: object = None,
    input_shape: Shape | Mapping[str, Shape] | None = None,
    batch_size: int | None = None,
    frozen: Sequence[str] = (),
    limits: Mapping[str, int | str] | None = None,
    confirm: bool = True,
    loss: str = "auto",
    seed: int = 0,
    time_budget: float | None = 120,
) -> Advice:
    """Find the smallest changes of a design that remove its findings, layer by layer.

    Args:
        model: As for `audit`, but no folder.
        layer: Advise on this layer only.
        max_rho: Share of a layer's input, above 0 and up to 1, that may stay determined.
        inputs, input_shape, batch_size, frozen, limits, loss: As for `audit`.
        confirm: Attack the best change of each layer. Needs torch and onnxruntime.
        seed: Of weights of new shapes, and of the probe.
        time_budget: Seconds for the attack on each change, None for no end.

    Raises:
        AuditError: The model cannot be read, or has no layer with weights.
        UsageError: A setting is not allowed, or there is no such layer.

    Example:
        >>> import leakaudit
        >>> advice = leakaudit.advise("sample_models/cnn6.onnx", layer="conv2", confirm=False)
        >>> advice.layers[0].candidates[0].still_flagged
        False
    """
    require_choice("--loss", loss, LOSSES)
    if not 0 < max_rho <= 1:
        raise UsageError(f"--max-rho {max_rho}: a share above 0 and up to 1")
    if confirm:
        require_confirmation()
    graph = _read(model, inputs, _load_options(input_shape, batch_size, frozen, limits))
    settings = {
        "layer": layer,
        "max_rho": max_rho,
        "confirm": confirm,
        "loss": loss,
        "seed": seed,
        "time_budget": time_budget,
    }
    return advise_on(graph, _named(model, graph)[0], settings)


def advise_on(graph: Graph, target: str, settings: Mapping[str, Any]) -> Advice:
    """Advise on a network that has been read, with settings by the keywords of `advise`.

    Raises:
        AuditError: It has no layer with weights, or these cannot be read.
        UsageError: There is no such layer.
    """
    if not any(node.op.is_layer or isinstance(node.op, Unsupported) for node in graph.nodes):
        raise without_layers(target)
    loss = choose_loss(graph, settings["loss"])
    advice = search(graph, loss, settings["layer"], settings["max_rho"])
    if not settings["confirm"]:
        return advice
    from leakaudit.advice.confirm import confirm_best
    from leakaudit.confirm.confirm import ConfirmOptions

    seed, time_budget = settings["seed"], settings["time_budget"]
    return confirm_best(advice, ConfirmOptions(loss=loss, seed=seed, time_budget=time_budget))


def _load_options(
    input_shape: Shape | Mapping[str, Shape] | None,
    batch_size: int | None,
    frozen: Sequence[str],
    limits: Mapping[str, int | str] | None,
) -> LoadOptions:
    if isinstance(frozen, str):
        raise UsageError(f"frozen is a sequence of patterns: write [{frozen!r}]")
    if input_shape is None:
        shapes: Mapping[str, Shape] = {}
    elif isinstance(input_shape, Mapping):
        shapes = {name: tuple(shape) for name, shape in input_shape.items()}
    else:
        shapes = {"": tuple(input_shape)}
    for name, shape in shapes.items():
        if not shape or min(shape) < 1:
            raise UsageError(f"--input-shape {name} {shape}: every size is at least 1")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size {batch_size}: it is at least 1")
    return LoadOptions(
        input_shapes=shapes,
        batch_size=batch_size,
        frozen=tuple(frozen),
        limits=parse_limits(f"{name}={value}" for name, value in (limits or {}).items()),
    )


def _read(model: object, inputs: object, options: LoadOptions) -> Graph:
    if not isinstance(model, str | os.PathLike):
        return registry.load_object(model, inputs, options)
    if inputs is not None:
        raise UsageError("inputs are for live modules: a file says itself what it takes")
    return registry.load(os.fspath(model), options)


def _named(model: object, graph: Graph) -> tuple[str, str | None]:
    """What a report calls a model, and the digest of its file."""
    if isinstance(model, str | os.PathLike):
        return os.fspath(model), registry.sha256(os.fspath(model))
    return graph.name, None
