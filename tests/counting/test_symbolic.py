"""The formulas shown to a reader give the numbers that are counted."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import sympy
from brute_force import DenseConvolution
from hypothesis import assume, given, settings, strategies as st
from layers import convolution, convolutions, geometry
from places import SAMPLES

from leakaudit.counting import formulas
from leakaudit.counting.bound import layer_bound
from leakaudit.counting.geometry import Axis, ConvolutionGeometry
from leakaudit.counting.symbolic import SymbolicLayer, slides_counts, symbolic_layer

property_test = settings(max_examples=40, deadline=None, derandomize=True)


def number(formula: sympy.Expr, derived: SymbolicLayer) -> int:
    """The formula with the layer's numbers put in; every symbol must have one."""
    result = formula.subs(derived.values)
    assert result.is_Integer, f"{formula} with {derived.values} is {result}"
    return int(result)


@property_test
@given(convolutions(), st.booleans())
def test_formulas_with_numbers_are_the_counts(layer: DenseConvolution, observed: bool) -> None:
    counted = geometry(layer, observed=observed)
    derived, bound = symbolic_layer(counted), layer_bound(counted)
    assert number(derived.unknowns, derived) == bound.unknowns
    assert number(derived.gradient_constraints, derived) == bound.gradient_constraints
    assert number(derived.weight_constraints, derived) == bound.weight_constraints
    equations = bound.gradient_constraints + bound.weight_constraints
    assert number(derived.margin, derived) == equations - bound.unknowns


@property_test
@given(convolutions(), st.booleans())
def test_short_bound_is_never_below_the_bound(layer: DenseConvolution, observed: bool) -> None:
    counted = geometry(layer, observed=observed)
    derived = symbolic_layer(counted)
    assert number(derived.short_bound, derived) >= layer_bound(counted).rank


@property_test
@given(convolutions())
def test_short_bound_is_the_bound_without_padding_and_stride(layer: DenseConvolution) -> None:
    """Up to the cap: no equations determine more than what is read (wide dilation leaves gaps)."""
    plain = convolution(
        layer.channels,
        layer.sizes,
        layer.filters,
        layer.kernel,
        dilation=layer.dilation,
        groups=layer.groups,
        batch=layer.batch,
    )
    counted = geometry(plain)
    assume(min(axis.positions for axis in counted.axes) > 0)
    derived, bound = symbolic_layer(counted), layer_bound(counted)
    assert min(number(derived.short_bound, derived), bound.read) == bound.rank


@pytest.mark.parametrize("tokens", [(), (5,), (4, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("batch", [1, 3])
def test_dense_layer(tokens: tuple[int, ...], batch: int) -> None:
    counted = ConvolutionGeometry(7, 4, (Axis(batch), *map(Axis, tokens)))
    derived, bound = symbolic_layer(counted), layer_bound(counted)
    assert number(derived.unknowns, derived) == bound.unknowns
    assert number(derived.gradient_constraints, derived) == bound.gradient_constraints == 28
    assert number(derived.weight_constraints, derived) == bound.weight_constraints
    assert "K" not in str(derived.short_bound)


def test_formulas_read_as_in_the_literature() -> None:
    layer = geometry(convolution(12, (8, 8), 3, (5, 5), padding=(2, 2)))
    derived = symbolic_layer(layer)
    N, F, H, W, K, S, P = derived.values
    assert [str(s) for s in derived.values] == ["N", "F", "H", "W", "K", "S", "P"]
    assert sympy.expand(derived.unknowns - N * H * W) == 0
    assert sympy.expand(derived.gradient_constraints - F * N * K**2) == 0
    rows, columns = (sympy.floor((size + 2 * P - K) / S) + 1 for size in (H, W))
    assert sympy.expand(derived.weight_constraints - F * rows * columns) == 0


def test_padding_may_be_zero_and_may_be_wide() -> None:
    """A symbol that excludes either would let sympy simplify a formula wrongly."""
    for padding in ((2, 2), (0, 2), [(0, 1), (0, 1)]):
        derived = symbolic_layer(geometry(convolution(2, (6, 7), 3, (5, 5), padding=padding)))
        symbols = [symbol for symbol in derived.values if symbol.name.startswith("P")]
        assert symbols
        assert all(s.is_nonnegative and s.is_positive is None for s in symbols)


# --- the formula of the slides -------------------------------------------------------------------


def test_slides_call_the_last_convolution_of_lenet_main_safe() -> None:
    """24 + 75 equations for 768 unknowns; counted rightly there are 900 + 192."""
    layer = geometry(convolution(12, (8, 8), 3, (5, 5), padding=(2, 2)))
    slides, exact = slides_counts(layer), symbolic_layer(layer)
    assert slides.numbers == (24, 75)
    assert sum(slides.numbers) < number(exact.unknowns, exact) == 768
    assert number(exact.gradient_constraints, exact) == 900
    assert number(exact.weight_constraints, exact) == 192


@property_test
@given(convolutions())
def test_slides_formulas_with_numbers(layer: DenseConvolution) -> None:
    """Also for layers that the slides do not foresee, whose first axis is then taken."""
    a, b = slides_counts(geometry(layer)).numbers
    size, kernel, stride = layer.sizes[0], layer.kernel[0], layer.stride[0]
    padding = layer.padding[0][0]
    assume(kernel <= size + 2 * padding)
    assert a == layer.filters * ((size + 2 * padding - kernel) // stride + 1)
    assert b == kernel**2 * layer.filters


def test_one_derivation_serves_numbers_and_symbols() -> None:
    numbers: dict[str, Any] = {
        "read": 90,
        "gradient_rank": 40,
        "weight_equations": 30,
        "positions": 16,
        "rank_of_gradient": 3,
        "rank_of_weight": 3,
        "columns": 12,
    }
    symbols = {name: sympy.Symbol(name, integer=True, positive=True) for name in numbers}
    formula = formulas.group_rank_bound(sympy.Min, **symbols)
    substituted = formula.subs({symbols[name]: value for name, value in numbers.items()})
    assert substituted == formulas.group_rank_bound(min, **numbers) == 57


def test_formulas_are_derived_when_asked_for_and_travel_between_processes() -> None:
    """Most reports show numbers only, and sympy takes longer to import than they to count."""
    program = """
import pickle, sys
from leakaudit.counting.count import count
from leakaudit.frontends.registry import load
from leakaudit.frontends.interface import LoadOptions
graph = load(sys.argv[1], LoadOptions())
counts = count(graph, graph.node("conv1"))
again = pickle.loads(pickle.dumps(counts))
assert again == counts
print("sympy" in sys.modules, again.symbolic.unknowns, "sympy" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(SAMPLES / "lenet_main.onnx")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "H*N*W", "True"]
