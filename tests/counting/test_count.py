"""From a node of a graph to the counts that are reported."""

from __future__ import annotations

from typing import Any

import pytest

from leakaudit.counting.count import bound_of, count, verdict
from leakaudit.counting.geometry import Axis, ConvolutionGeometry, geometry_of
from leakaudit.counting.symbolic import slides_counts
from leakaudit.findings import Verdict
from leakaudit.graph import Graph, Node, Parameter, Tensor
from leakaudit.operators import Conv, Linear, Operator, Relu

SQUARE = {"kernel": (5, 5), "padding_begin": (2, 2), "padding_end": (2, 2)}
UNIT = {"stride": (1, 1), "dilation": (1, 1)}
LAST_OF_LENET_MAIN = Conv(**SQUARE, **UNIT)  # type: ignore[arg-type]


class NoWeights:
    """Counting reads no weights."""

    def load(self, name: str) -> Any:
        raise AssertionError(f"counting asked for the numbers of {name}")


def one_layer(
    op: Operator,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    out: tuple[int, ...],
    trainable: bool = True,
) -> tuple[Graph, Node]:
    node = Node("layer", op, ("x",), ("y",), (("weight", "w"),))
    graph = Graph(
        "built",
        "test",
        ("x",),
        ("y",),
        {"x": Tensor("x", shape, "float32"), "y": Tensor("y", out, "float32")},
        {
            "w": Parameter("w", weight, "float32", trainable),
            # A layer further up: where nothing at all is trained, there are no equations.
            "head": Parameter("head", (1,), "float32", True),
        },
        (node,),
        NoWeights(),
    )
    return graph, node


def lenet_main_last(batch: int = 1, trainable: bool = True) -> tuple[Graph, Node]:
    shapes = ((batch, 12, 8, 8), (3, 12, 5, 5), (batch, 3, 8, 8))
    return one_layer(LAST_OF_LENET_MAIN, *shapes, trainable)


def cnn6_d_second() -> tuple[Graph, Node]:
    op = Conv((3, 3), (2, 2), (1, 1), (1, 1), (1, 1))
    return one_layer(op, (1, 12, 17, 17), (20, 12, 3, 3), (1, 20, 9, 9))


def test_every_hyperparameter_reaches_its_axis() -> None:
    op = Conv((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12), (13, 14, 15), groups=2)
    layer = one_layer(op, (3, 4, 20, 21, 22), (6, 2, 1, 2, 3), (3, 6, 10, 6, 3))
    assert geometry_of(*layer) == ConvolutionGeometry(
        channels=4,
        filters=6,
        axes=(
            Axis(3),
            Axis(20, 1, 4, 7, 10, 13),
            Axis(21, 2, 5, 8, 11, 14),
            Axis(22, 3, 6, 9, 12, 15),
        ),
        groups=2,
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_dense_layer_counts_its_tokens(transposed: bool) -> None:
    stored = (12, 4) if transposed else (4, 12)
    layer = one_layer(Linear(12, 4, transposed), (2, 5, 12), stored, (2, 5, 4))
    counts = count(*layer)
    assert counts.unknowns == 120
    assert counts.gradient_constraints == 48
    assert counts.weight_constraints == 40
    # Generic ranks: 4 of 10 rows by the gradients, 4 more numbers of each other row.
    assert counts.rank_bound == 48 + (10 - 4) * 4


def test_dense_layer_without_leading_axes() -> None:
    assert count(*one_layer(Linear(12, 4), (12,), (4, 12), (4,))).unknowns == 12


def test_an_operator_without_weights_is_not_counted() -> None:
    with pytest.raises(TypeError, match="layer has no weights"):
        count(*one_layer(Relu(), (1, 4), (4,), (1, 4)))


def test_counts_of_the_last_convolution_of_lenet_main() -> None:
    counts = count(*lenet_main_last())
    assert (counts.unknowns, counts.unread) == (768, 0)
    assert (counts.gradient_constraints, counts.weight_constraints) == (900, 192)
    assert counts.rank_bound == counts.gradient_rank_bound == 768
    assert counts.redundant == 900 + 192 - 768
    assert counts.determined_fraction == 1
    assert verdict(counts) is Verdict.FLAGGED


def test_slides_formula_is_wrong_about_it() -> None:
    slides = slides_counts(geometry_of(*lenet_main_last())).numbers
    assert slides == (24, 75)
    assert sum(slides) < count(*lenet_main_last()).unknowns  # "safe", by the slides
    assert verdict(count(*lenet_main_last())) is Verdict.FLAGGED


def test_slides_have_no_formula_for_dense_layers() -> None:
    layer = geometry_of(*one_layer(Linear(12, 4), (12,), (4, 12), (4,)))
    with pytest.raises(ValueError, match="no formula for a dense layer"):
        slides_counts(layer)


def test_verdict_goes_by_the_rank_not_by_the_sum() -> None:
    counts = count(*cnn6_d_second())
    assert counts.gradient_constraints + counts.weight_constraints > counts.unknowns
    assert counts.rank_bound == 3188
    assert counts.redundant == 592
    assert counts.determined_fraction == pytest.approx(3188 / 3468)
    assert verdict(counts) is Verdict.UNDERDETERMINED


def test_a_frozen_weight_sends_no_gradient_constraints() -> None:
    counts = count(*lenet_main_last(trainable=False))
    assert counts.gradient_constraints == counts.gradient_rank_bound == 0
    assert counts.rank_bound == counts.weight_constraints == 192
    assert verdict(counts) is Verdict.UNDERDETERMINED


def test_a_batch_multiplies_the_unknowns_only() -> None:
    one, four = count(*lenet_main_last()), count(*lenet_main_last(batch=4))
    assert four.unknowns == 4 * one.unknowns
    assert four.weight_constraints == 4 * one.weight_constraints
    assert four.gradient_constraints == one.gradient_constraints
    assert verdict(four) is Verdict.UNDERDETERMINED


def test_reported_counts_are_the_bound() -> None:
    for layer in (lenet_main_last(), lenet_main_last(2), cnn6_d_second()):
        counts, bound = count(*layer), bound_of(*layer)
        assert (counts.rank_bound, counts.gradient_rank_bound) == (bound.rank, bound.gradient_rank)
        assert (counts.unknowns, counts.unread) == (bound.unknowns, bound.unread)
