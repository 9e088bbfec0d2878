"""The counts of a layer as sympy expressions in its design parameters.

The expressions come out of the same functions that count in integers (`formulas`), applied to
symbols, so that the explanation and the number cannot differ. Importing this module imports sympy.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import sympy

from leakaudit.counting import formulas
from leakaudit.counting.geometry import ConvolutionGeometry, output_size

_AXIS_NAMES = {1: ("W",), 2: ("H", "W"), 3: ("D", "H", "W")}


@dataclass(frozen=True, slots=True)
class SymbolicLayer:
    """Formulas of one layer and the numbers that its symbols stand for.

    Attributes:
        values: Symbol to this layer's number, in order of appearance.
        unknowns, gradient_constraints, weight_constraints: |X|, |A|, |B|.
        margin: |A| + |B| - |X|; the source's condition calls the layer safe where it is negative.
        short_bound: The bound without padding and stride effects, all groups together.
    """

    values: dict[sympy.Symbol, int]
    unknowns: sympy.Expr
    gradient_constraints: sympy.Expr
    weight_constraints: sympy.Expr
    margin: sympy.Expr
    short_bound: sympy.Expr


def symbolic_layer(layer: ConvolutionGeometry) -> SymbolicLayer:
    """Derive the formulas of a layer.

    Square kernels, strides and paddings get one symbol (K, S, P), others one per axis. The batch
    appears as `B` only where it is larger than 1, groups as `g` and dilation as `d` likewise. Dense
    layers have no spatial axes of their own.
    """
    values: dict[sympy.Symbol, int] = {}

    def symbol(name: str, value: int) -> sympy.Symbol:
        made = _symbol(name)
        values[made] = value
        return made

    def per_axis(name: str, numbers: list[int], suffixes: tuple[str, ...]) -> list[sympy.Expr]:
        if len(set(numbers)) == 1:
            return [symbol(name, numbers[0])] * len(numbers)
        return [
            symbol(f"{name}_{suffix.lower()}", value)
            for suffix, value in zip(suffixes, numbers, strict=True)
        ]

    N, F = symbol("N", layer.channels), symbol("F", layer.filters)
    g = symbol("g", layer.groups) if layer.groups > 1 else sympy.Integer(1)
    batch, *spatial = layer.axes
    B = symbol("B", batch.size) if batch.size > 1 else sympy.Integer(1)
    names = _AXIS_NAMES.get(len(spatial), tuple(f"H_{i + 1}" for i in range(len(spatial))))
    sizes = [symbol(name, axis.size) for name, axis in zip(names, spatial, strict=True)]
    K = per_axis("K", [axis.kernel for axis in spatial], names)
    trivial = all(axis.kernel == axis.stride == 1 for axis in spatial)
    padding = [axis.padding_begin + axis.padding_end for axis in spatial]
    if trivial and not any(padding):
        K = [sympy.Integer(1)] * len(spatial)
        values = {s: v for s, v in values.items() if not s.name.startswith("K")}
        positions = list(sizes)
    else:
        S = per_axis("S", [axis.stride for axis in spatial], names)
        even = all(axis.padding_begin == axis.padding_end for axis in spatial)
        P = (
            [2 * p for p in per_axis("P", [axis.padding_begin for axis in spatial], names)]
            if even
            else per_axis("P_sum", padding, names)
        )
        dilated = any(axis.dilation > 1 for axis in spatial)
        D = (
            per_axis("d", [axis.dilation for axis in spatial], names)
            if dilated
            else [sympy.Integer(1)] * len(spatial)
        )
        positions = [output_size(*sizes_) for sizes_ in zip(sizes, K, S, P, D, strict=True)]

    n, k, L = N / g, prod(K), B * prod(positions)
    X = formulas.unknowns(N, [B, *sizes])
    A = formulas.gradient_constraints(F, n, k) if layer.observed else sympy.Integer(0)
    weight = formulas.weight_constraints(F, L) if layer.outputs_known else sympy.Integer(0)
    f = F / g
    r_G = sympy.Min(f, L) if layer.observed else sympy.Integer(0)
    r_w = sympy.Min(f, n * k) if layer.outputs_known else sympy.Integer(0)
    short = g * formulas.short_rank_bound(n, k, L, r_G, r_w)
    return SymbolicLayer(values, X, A, weight, A + weight - X, short)


@dataclass(frozen=True, slots=True)
class SlidesCounts:
    """What the R-CONV slides print for |A| and |B| of a convolution. Both are wrong.

    Attributes:
        values: Symbol to this layer's number; the slides know one size, that of the first axis.
        gradient_constraints, weight_constraints: |A|, |B|.
    """

    values: dict[sympy.Symbol, int]
    gradient_constraints: sympy.Expr
    weight_constraints: sympy.Expr

    @property
    def numbers(self) -> tuple[int, int]:
        """|A| and |B| with the layer's numbers."""
        return (
            int(self.gradient_constraints.subs(self.values)),
            int(self.weight_constraints.subs(self.values)),
        )


def slides_counts(layer: ConvolutionGeometry) -> SlidesCounts:
    """The slides' formulas for a convolution, which the explanation sets against the right ones.

    Raises:
        ValueError: The layer has no spatial axis. The slides give no formula for dense layers.
    """
    if len(layer.axes) < 2:
        raise ValueError("the slides give no formula for a dense layer")
    axis = layer.axes[1]
    numbers = (axis.size, axis.kernel, axis.stride, axis.padding_begin, layer.filters)
    H, K, S, P, F = symbols = [_symbol(name) for name in "HKSPF"]
    return SlidesCounts(
        values=dict(zip(symbols, numbers, strict=True)),
        gradient_constraints=((H + 2 * P - K) // S + 1) * F,  # but outputs are 2-d
        weight_constraints=K**2 * F,  # but filters have N channels
    )


def _symbol(name: str) -> sympy.Symbol:
    sign = {"nonnegative": True} if name.startswith("P") else {"positive": True}
    return sympy.Symbol(name, integer=True, **sign)
