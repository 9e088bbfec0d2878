"""The choice of a solver: a pure function of sizes, at its boundaries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leakaudit.counting.geometry import Axis, ConvolutionGeometry
from leakaudit.solvers.band import BorderedBand
from leakaudit.solvers.dense_factor import DenseFactor
from leakaudit.solvers.gradient_only import GradientOnly
from leakaudit.solvers.interface import DEFAULT_MEMORY
from leakaudit.solvers.matrix_free import MatrixFree
from leakaudit.solvers.phase_blocks import BorderedPhases
from leakaudit.solvers.select import choose, choose_dense, choose_for_both
from leakaudit.solvers.stacked import Stacked

pytest.importorskip("torch")  # the package of the solvers needs it

# 9 filters of 3 x 3 over 4 x 4 pixels: 81 gradient constraints for 16 unknowns.
SUFFICIENT = ConvolutionGeometry(
    1, 9, (Axis(1), Axis(4, 3, 1, 1, 1), Axis(4, 3, 1, 1, 1)), outputs_known=True
)
# 1 filter of 3 x 3: 9 gradient constraints for 16 unknowns.
INSUFFICIENT = replace(SUFFICIENT, filters=1)
PHASE_BYTES = 8 * 3 * 16 * (81 + 16)
NORMAL_BYTES = 8 * 3 * 16**2
FACTOR_BYTES = 8 * 16**2


def test_gradient_constraints_that_suffice_are_solved_alone() -> None:
    choice = choose(SUFFICIENT)
    assert choice.solver is GradientOnly
    assert "81 gradient constraints suffice" in choice.reason
    assert "81 x 16" in choice.reason


def test_the_phase_matrix_must_fit_in_memory() -> None:
    assert choose(SUFFICIENT, PHASE_BYTES).solver is GradientOnly
    assert choose(SUFFICIENT, PHASE_BYTES - 1).solver is Stacked
    alone = replace(SUFFICIENT, outputs_known=False)
    assert choose(alone, PHASE_BYTES - 1).solver is MatrixFree


def test_a_phase_of_more_than_4096_columns_is_not_factored() -> None:
    def line(size: int) -> ConvolutionGeometry:
        return ConvolutionGeometry(1, size, (Axis(1), Axis(size)), outputs_known=False)

    assert choose(line(4096), 1 << 60).solver is GradientOnly
    choice = choose(line(4097), 1 << 60)
    assert choice.solver is MatrixFree
    assert "4097 columns" in choice.reason


def test_strides_split_the_columns_among_the_phases() -> None:
    wide = ConvolutionGeometry(3, 4096, (Axis(1), Axis(256, 4, 4), Axis(256, 4, 4)))
    choice = choose(wide, 1 << 40)
    assert choice.solver is GradientOnly
    assert "4096 x 4096" in choice.reason  # 64 x 64 positions, 4096 filters, one tap per phase


def test_constraints_that_do_not_suffice_alone_are_stacked() -> None:
    choice = choose(INSUFFICIENT)
    assert choice.solver is Stacked
    assert "16 unknowns" in choice.reason


def test_the_dense_matrix_must_fit_in_memory() -> None:
    assert choose(INSUFFICIENT, NORMAL_BYTES).solver is Stacked
    assert choose_dense(INSUFFICIENT, NORMAL_BYTES) is not None
    assert choose_dense(INSUFFICIENT, NORMAL_BYTES - 1) is None
    # A factor in float32 takes a third of what the eigenvalues take.
    assert choose(INSUFFICIENT, FACTOR_BYTES).solver is DenseFactor
    choice = choose(INSUFFICIENT, FACTOR_BYTES - 1)
    assert choice.solver is MatrixFree
    assert "16 unknowns" in choice.reason
    assert "no factor fits into 0 MiB" in choice.reason


def test_many_unknowns_with_few_outputs_get_a_band_with_a_border() -> None:
    # lenet_main's first layer: 3072 unknowns, 900 gradient and 3072 weight constraints.
    axis = Axis(32, 5, 2, 2, 2)
    layer = ConvolutionGeometry(3, 12, (Axis(1), axis, axis))
    products, size = BorderedBand.cost(layer)
    assert choose(layer).solver is BorderedBand
    assert choose(layer, size).solver is BorderedBand
    # The band takes less memory and fewer products than the dense matrix.
    assert choose(layer, 8 * 3072**2).solver is BorderedBand
    assert choose(layer, size - 1).solver is MatrixFree
    assert products < 3072**3 // 6


def test_few_outputs_are_the_border_of_the_phases() -> None:
    # lenet_dlg's second layer: 3072 unknowns, 3600 gradient and 768 weight constraints.
    axis = Axis(16, 5, 2, 2, 2)
    layer = ConvolutionGeometry(12, 12, (Axis(1), axis, axis))
    products, size = BorderedPhases.cost(layer)
    assert products < min(BorderedBand.cost(layer)[0], 3072**3 // 6)
    assert choose(layer).solver is BorderedPhases
    assert choose(layer, size).solver is BorderedPhases
    assert choose(layer, size - 1).solver is not BorderedPhases
    # Without gradient constraints there is nothing to be the base.
    unobserved = replace(layer, observed=False)
    assert choose_for_both(unobserved).solver is not BorderedPhases


def test_more_gradient_constraints_than_unknowns_make_no_border() -> None:
    # The second layer of R-GAP's CNN6: 3888 gradient constraints for 3468 unknowns.
    axis = Axis(17, 3, 2, 1, 1)
    layer = ConvolutionGeometry(12, 36, (Axis(1), axis, axis))
    assert BorderedBand.cost(layer)[0] > 3468**3 // 6
    assert choose(layer).solver is DenseFactor


def test_few_unknowns_get_the_dense_matrix_that_always_tells_the_rank() -> None:
    def square(side: int) -> ConvolutionGeometry:
        axis = Axis(side, 3, 1, 1, 1)
        return ConvolutionGeometry(2, 3, (Axis(1), axis, axis))

    assert choose(square(20)).solver is Stacked  # 800 unknowns
    assert choose(square(21)).solver is DenseFactor


def test_underdetermined_layers_get_the_dense_matrix() -> None:
    axis = Axis(32, 3, 2, 1, 1)
    assert choose(ConvolutionGeometry(3, 8, (Axis(1), axis, axis))).solver is Stacked


def test_many_outputs_need_no_factor() -> None:
    def first(filters: int) -> ConvolutionGeometry:
        axis = Axis(32, 3, 1, 1, 1)
        return ConvolutionGeometry(3, filters, (Axis(1), axis, axis), gradient_rank=1)

    assert choose(first(12)).solver is MatrixFree
    assert choose(first(11)).solver is BorderedBand


def test_without_known_outputs_only_the_gradient_constraints_are_left() -> None:
    assert choose(replace(INSUFFICIENT, outputs_known=False)).solver is GradientOnly


def test_frozen_weights_leave_the_weight_constraints() -> None:
    assert choose(replace(SUFFICIENT, observed=False)).solver is Stacked


def test_the_memory_limit_stands_in_the_reason() -> None:
    large = ConvolutionGeometry(64, 1, (Axis(1), Axis(64, 3, 1, 1, 1), Axis(64, 3, 1, 1, 1)))
    choice = choose(large)
    assert choice.solver is MatrixFree
    assert f"{DEFAULT_MEMORY >> 20} MiB" in choice.reason
    assert choose(large) == choice
