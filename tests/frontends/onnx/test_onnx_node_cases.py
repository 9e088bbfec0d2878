"""Every backend test case of onnx: right numbers, or a named reason why there are none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import onnx
import pytest
from made_once import made_once
from onnx import version_converter
from onnx_cases import Case, Outcome, cases, outcome

from leakaudit import operators as ops
from leakaudit.frontends.onnx.operators.registry import FAMILIES, OPERATORS

PARTS = 8

# How many cases of one node run: what is covered cannot shrink unnoticed.
COVERED = {
    "Abs": 1,
    "Acos": 2,
    "Acosh": 2,
    "Add": 4,
    "Asin": 2,
    "Asinh": 2,
    "Atan": 2,
    "Atanh": 2,
    "Attention": 84,
    "AveragePool": 20,
    "BatchNormalization": 4,
    "Cast": 16,
    "CastLike": 8,
    "Ceil": 2,
    "Celu": 3,
    "Clip": 9,
    "Concat": 24,
    "Conv": 6,
    "ConvTranspose": 10,
    "Cos": 2,
    "Cosh": 2,
    "DepthToSpace": 2,
    "Div": 6,
    "Dropout": 7,
    "Einsum": 12,
    "Elu": 3,
    "Erf": 1,
    "Exp": 2,
    "Expand": 2,
    "Flatten": 9,
    "Floor": 2,
    "Gather": 4,
    "Gelu": 4,
    "Gemm": 22,
    "GlobalAveragePool": 2,
    "GlobalMaxPool": 2,
    "GroupNormalization": 2,
    "HardSigmoid": 3,
    "HardSwish": 1,
    "Identity": 3,
    "InstanceNormalization": 2,
    "LRN": 2,
    "LayerNormalization": 19,
    "LeakyRelu": 3,
    "Log": 2,
    "LogSoftmax": 7,
    "LpNormalization": 6,
    "LpPool": 8,
    "MatMul": 14,
    "Max": 1,
    "MaxPool": 18,
    "Mean": 5,
    "MeanVarianceNormalization": 1,
    "Min": 1,
    "Mish": 1,
    "Mul": 6,
    "Neg": 2,
    "Pad": 6,
    "Pow": 12,
    "RMSNormalization": 38,
    "Reciprocal": 2,
    "ReduceL1": 8,
    "ReduceL2": 8,
    "ReduceLogSum": 4,
    "ReduceLogSumExp": 8,
    "ReduceMax": 8,
    "ReduceMean": 8,
    "ReduceMin": 8,
    "ReduceProd": 8,
    "ReduceSum": 10,
    "ReduceSumSquare": 8,
    "Relu": 1,
    "Reshape": 9,
    "Resize": 19,
    "Round": 1,
    "Selu": 3,
    "Sigmoid": 2,
    "Sign": 1,
    "Sin": 2,
    "Sinh": 2,
    "Slice": 8,
    "Softmax": 7,
    "Softplus": 2,
    "Softsign": 2,
    "SpaceToDepth": 4,
    "Split": 28,
    "Sqrt": 2,
    "Squeeze": 2,
    "Sub": 6,
    "Sum": 5,
    "SwiGLU": 6,
    "Swish": 1,
    "Tan": 2,
    "Tanh": 2,
    "Tile": 2,
    "Transpose": 7,
    "Unsqueeze": 7,
    "Upsample": 1,
    "Where": 1,
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What the tests below ask of an outcome: plain values, which processes can share."""

    name: str
    status: str
    text: str
    only_node: str | None  # the kind of the node, where the model has one
    made: tuple[tuple[str, str], ...]  # the nodes that came out: kind in the file, our operator


def seen(case: Case, found: Outcome) -> Seen:
    nodes = case.model.graph.node
    made = (
        [(node.origin, type(node.op).__name__) for node in found.graph.nodes] if found.graph else []
    )
    only_node = nodes[0].op_type if len(nodes) == 1 else None
    return Seen(found.name, found.status, found.text, only_node, tuple(made))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[Seen]]:
    """The outcomes of a part of the cases, which are run once, whoever asks."""

    def run(part: int, folder: Path) -> None:
        found = [asdict(seen(case, outcome(case, folder))) for case in cases("node", part, PARTS)]
        (folder / "outcomes.json").write_text(json.dumps(found), encoding="utf-8")

    @cache
    def of_part(part: int) -> list[Seen]:
        folder = made_once(tmp_path_factory, f"node-cases-{part}", partial(run, part))
        found = json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))
        return [Seen(**entry) for entry in found]

    return of_part


@pytest.mark.parametrize("part", range(PARTS))
def test_node_cases(part: int, outcomes: Callable[[int], list[Seen]]) -> None:
    results = outcomes(part)
    wrong = {found.name: found.text for found in results if found.status == "wrong"}
    assert not wrong, "\n\n".join(f"{name}: {text}" for name, text in wrong.items())
    assert all(found.text for found in results if found.status == "refused")
    assert sum(found.status == "ran" for found in results) > 100


def test_what_is_covered_stays_covered(outcomes: Callable[[int], list[Seen]]) -> None:
    """For each operator the number of cases of that one node that run."""
    ran = Counter(
        found.only_node
        for part in range(PARTS)
        for found in outcomes(part)
        if found.status == "ran" and found.only_node
    )
    assert {op: (ran[op], least) for op, least in COVERED.items() if ran[op] < least} == {}
    # The only ones that no case runs; test_onnx_operators.py and test_onnx_values.py have them.
    assert set(OPERATORS) - set(COVERED) == {"GlobalLpPool", "PRelu"}


def test_every_operator_of_the_graph_comes_from_somewhere(
    outcomes: Callable[[int], list[Seen]],
) -> None:
    made = {
        operator for part in range(PARTS) for seen in outcomes(part) for _, operator in seen.made
    }
    kinds = set(ops.__all__) - {"Operator", "Activation"}
    # No case stores its slopes, a dense layer or a table: test_onnx_operators.py has them.
    assert kinds - made <= {"AdaptiveAveragePool", "PRelu", "Linear", "Embedding", "Unsupported"}
    assert made <= kinds


def test_a_builder_makes_operators_of_its_family(outcomes: Callable[[int], list[Seen]]) -> None:
    """The table in the README lists each ONNX operator under a family: the one that it becomes."""
    family = {
        name: kind.__name__.rpartition(".")[2] for kind in ops.FAMILIES for name in kind.__all__
    }
    elsewhere = set()
    for part in range(PARTS):
        for found in outcomes(part):
            families = {family.get(operator) for _, operator in found.made}
            listed = {kind for kind, names in FAMILIES.items() if found.only_node in names}
            if found.made and listed and not listed & families:
                elsewhere.add(found.only_node)
    # Pooling over a whole image is a reduction, a sum of one is that one, and this normalisation is
    # written out: what a reader of the table looks for is the name's own family.
    assert elsewhere == {
        "GlobalAveragePool",
        "GlobalMaxPool",
        "MeanVarianceNormalization",
        "Sum",
    }


def test_simple_cases(tmp_path: Path) -> None:
    results = [outcome(case, tmp_path) for case in cases("simple")]
    assert [found for found in results if found.status == "wrong"] == []
    assert sum(found.status == "ran" for found in results) >= 6


@pytest.mark.parametrize("opset", [7, 9, 13, 18, 21])
def test_pytorch_cases_under_later_opsets(opset: int, tmp_path: Path) -> None:
    """Single layers with their weights. They are of opset 6, so they are converted first."""
    ran: Counter[str] = Counter()
    for kind in ("pytorch-converted", "pytorch-operator"):
        for case in cases(kind):
            if case.variant != "live":
                continue
            if case.model.opset_import[0].version < 7:
                old = outcome(case, tmp_path)
                assert (old.status, "opset 6" in old.text) == ("refused", True)
            try:
                model = version_converter.convert_version(case.model, opset)
            except RuntimeError:  # the converter's own limit
                continue
            case = Case(case.name, "live", model, case.inputs, case.outputs, case.rtol, case.atol)
            found = outcome(case, tmp_path)
            assert found.status != "wrong", f"{found.name}: {found.text}"
            if found.status == "refused":
                assert found.name.split("/")[0] in REFUSED
            else:
                ran.update({node.op_type for node in model.graph.node})
    assert ran["Conv"] >= 26
    assert ran["MaxPool"] >= 7
    assert {"Gemm", "ConvTranspose", "BatchNormalization", "Softmax", "Pad", "Split"} <= set(ran)


REFUSED = {
    "test_PReLU_1d_multiparam",  # slopes on the channels in opset 6, on the last axis from 7 on
    "test_PReLU_2d_multiparam",
    "test_PReLU_3d_multiparam",
    "test_operator_max",
    "test_operator_min",
    "test_operator_non_float_params",
}


def test_a_wrong_number_would_be_noticed(tmp_path: Path) -> None:
    """The comparison itself: a case whose file computes something else is wrong."""
    case = next(case for case in cases("node") if case.name == "test_relu")
    assert outcome(case, tmp_path).status == "ran"
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.graph.node[0].op_type = "Tanh"
    other = Case(case.name, "live", model, case.inputs, case.outputs, case.rtol, case.atol)
    assert outcome(other, tmp_path).status == "wrong"
