"""Where the numbers of one layer come from: its formulas, and the same with the numbers put in."""

from __future__ import annotations

from dataclasses import replace

import sympy

from leakaudit.counting.bound import layer_bound
from leakaudit.counting.count import READS_STORED, count, verdict
from leakaudit.counting.generic_rank import generic_rank
from leakaudit.counting.geometry import Axis, ConvolutionGeometry, geometry_of
from leakaudit.counting.symbolic import slides_counts, symbolic_layer
from leakaudit.errors import UsageError
from leakaudit.findings import Verdict
from leakaudit.frontends import registry
from leakaudit.frontends.interface import LoadOptions
from leakaudit.report.escape import plain

SCAN = 256  # values of a design parameter that the safe range is looked for in


def explain_layer(target: str, layer: str, options: LoadOptions) -> str:
    """The counts of one layer: formulas, substitution, margin, bound, and safe ranges.

    The slides' count of a convolution stands beside the right one, to show what it misses.

    Raises:
        AuditError: The model cannot be read.
        UsageError: It has no such layer.
    """
    graph = registry.load(target, options)
    names = [node.name for node in graph.nodes if node.op.is_layer]
    if layer not in names:
        raise UsageError(
            f"--layer {layer}: {target} has no such layer with weights; it has {', '.join(names)}"
        )
    node = graph.node(layer)
    if node.inputs[0] not in graph.depend_on_inputs:
        return f"{plain(target)}, layer {plain(layer)}: {READS_STORED}"
    geometry = geometry_of(graph, node)
    derived = symbolic_layer(geometry)
    counts = count(graph, node)
    bound = layer_bound(geometry)
    what = type(node.op).__name__.lower()
    shapes = (graph.tensors[node.inputs[0]].shape, graph.tensors[node.outputs[0]].shape)
    lines = [
        f"{plain(target)}, layer {plain(layer)}: {what}, {'x'.join(map(str, shapes[0]))} -> "
        f"{'x'.join(map(str, shapes[1]))}",
        "with " + ", ".join(f"{symbol} = {value}" for symbol, value in derived.values.items()),
        "",
    ]
    for name, formula, result in (
        ("|X|, unknowns", derived.unknowns, counts.unknowns),
        ("|A|, gradient constraints", derived.gradient_constraints, counts.gradient_constraints),
        ("|B|, weight constraints", derived.weight_constraints, counts.weight_constraints),
        (
            "margin = |A| + |B| - |X|",
            derived.margin,
            counts.gradient_constraints + counts.weight_constraints - counts.unknowns,
        ),
    ):
        lines += _equation(name, formula, derived.values, result)
    n, f = geometry.channels // geometry.groups, geometry.filters // geometry.groups
    r_G = min(f, bound.positions) if geometry.observed else 0
    lines += [
        "",
        "rank bound without padding and stride effects: g·(n·k·r_G + L·r_w - r_G·r_w)",
        f"    with g = {geometry.groups}, n = N/g = {n}, k = {bound.taps} taps, "
        f"L = {bound.positions} positions, r_G = min(F/g, L) = {r_G}, "
        f"r_w = min(F/g, n·k) = {min(f, n * bound.taps) if geometry.outputs_known else 0}",
        f"    = {derived.short_bound.subs(derived.values)}, at most |X|",
        f"rank bound = {counts.rank_bound} of {counts.unknowns} unknowns "
        f"(gradient constraints alone {counts.gradient_rank_bound}; {bound.unread} unread; "
        f"{counts.redundant} of the equations are redundant)",
        _generic(generic_rank(geometry)),
    ]
    lines += ["", _conclusion(verdict(counts), counts.determined_fraction)]
    if node.op.is_convolution:
        lines += [
            "",
            *_slides(geometry, counts.unknowns),
            "",
            "Changing one design parameter, the others kept, the layer is",
            *_ranges(geometry),
        ]
    return "\n".join(lines)


def _generic(rank: int | None) -> str:
    """The exact rank for all but special weights and gradients, in a line."""
    if rank is None:
        return "rank (generic): not computed, the layer is too large"
    how = "of a random instance modulo a prime, what all but special weights and gradients have"
    return f"rank (generic) = {rank}, {how}"


def _equation(
    name: str, formula: sympy.Expr, values: dict[sympy.Symbol, int], result: int
) -> list[str]:
    numbers = {symbol: sympy.Symbol(str(value)) for symbol, value in values.items()}
    substituted = formula.subs(numbers, simultaneous=True)
    return [f"{name} = {formula}", f"    = {substituted}", f"    = {result}"]


def _slides(layer: ConvolutionGeometry, unknowns: int) -> list[str]:
    """The count that the R-CONV slides print, and what would follow from it."""
    slides = slides_counts(layer)
    a, b = slides.numbers
    sign, says = ("<", "calls") if a + b < unknowns else (">=", "does not call")
    return [
        "For comparison, the count that the R-CONV slides print. It is wrong: outputs are "
        "two-dimensional, filters have N channels",
        f"    |A| = {slides.gradient_constraints} = {a}",
        f"    |B| = {slides.weight_constraints} = {b}",
        f"    {a} + {b} {sign} {unknowns}, so that it {says} the layer safe",
    ]


def _conclusion(found: Verdict, fraction: float) -> str:
    match found:
        case Verdict.FLAGGED:
            return "flagged: the equations may fix the whole input of this layer"
        case Verdict.UNDERDETERMINED:
            return (
                f"underdetermined: proven, the equations fix at most {fraction:.1%} of the input. "
                "This is not private: with a prior a recognisable input can still come back"
            )
        case Verdict.UNDETERMINED:
            return found.value


def _ranges(layer: ConvolutionGeometry) -> list[str]:
    """For which values of each design parameter the bound stays below the unknowns read."""
    spatial = layer.axes[1:]

    def with_axes(**change: int) -> ConvolutionGeometry:
        return replace(layer, axes=(layer.axes[0], *(replace(a, **change) for a in spatial)))

    smallest = min(axis.size for axis in spatial)
    square = len({(a.kernel, a.stride, a.padding_begin, a.padding_end) for a in spatial}) == 1
    rows: list[str] = []
    filters = {f: replace(layer, filters=f) for f in range(layer.groups, SCAN + 1, layer.groups)}
    rows.append(_range("filters F", filters, layer.filters))
    if square:
        axis: Axis = spatial[0]
        room = smallest + axis.padding_begin + axis.padding_end
        kernels = {
            k: with_axes(kernel=k)
            for k in range(1, min(SCAN, room) + 1)
            if (k - 1) * axis.dilation < room
        }
        rows.append(_range("kernel K", kernels, axis.kernel))
        strides = {s: with_axes(stride=s) for s in range(1, min(SCAN, smallest) + 1)}
        rows.append(_range("stride S", strides, axis.stride))
        paddings = {p: with_axes(padding_begin=p, padding_end=p) for p in range(axis.kernel)}
        valid = {p: g for p, g in paddings.items() if all(a.positions > 0 for a in g.axes)}
        rows.append(_range("padding P", valid, axis.padding_begin))
    groups = {
        g: replace(layer, groups=g)
        for g in range(1, min(layer.channels, layer.filters) + 1)
        if layer.channels % g == layer.filters % g == 0
    }
    rows.append(_range("groups g", groups, layer.groups))
    return rows


def _range(name: str, candidates: dict[int, ConvolutionGeometry], now: int) -> str:
    below = [number for number, layer in candidates.items() if not layer_bound(layer).flagged]
    if not below:
        where = "no value"
    elif len(below) == len(candidates):
        where = f"every value tried (up to {max(candidates)})"
    else:
        where = _runs(below, list(candidates))
    return f"  {name} (now {now}): underdetermined for {where}"


def _runs(chosen: list[int], candidates: list[int]) -> str:
    """Consecutive candidates as ranges: "1 to 7, 9"."""
    runs: list[list[int]] = []
    for number in chosen:
        if runs and candidates.index(number) == candidates.index(runs[-1][-1]) + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)
