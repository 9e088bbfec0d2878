"""Which function replays a derivation: the explicit list, and the default that raises."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import singledispatch
from typing import Any

from leakaudit import operators as ops
from leakaudit.attack.replay import (
    activation,
    arithmetic,
    convolution,
    dense,
    general,
    moved,
    normalisation,
)
from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.known import Known
from leakaudit.facts import general as generals
from leakaudit.facts.fact import Derivation, Quality
from leakaudit.leakpath import path
from leakaudit.operators.moved import MovedGradient, MovedValue


@singledispatch
def replay(step: Derivation, state: State) -> Known:
    """Compute what a derivation concludes from what is known.

    Raises:
        PathBroken: Its claim does not hold for these numbers.
        NotImplementedError: The type of derivation has no replay.
    """
    raise NotImplementedError(type(step).__name__)


REPLAYS: dict[type[Derivation], Callable[[Any, State], Known]] = {
    ops.activation.ActivationGradient: activation.output_gradient,
    ops.activation.ActivationInverse: activation.pre_activation,
    ops.activation.PositiveInverse: activation.positive_pre_activation,
    ops.arithmetic.AddedParameterGradient: arithmetic.added_parameter_gradient,
    ops.arithmetic.BranchValue: arithmetic.branch_value,
    ops.arithmetic.OperandGradient: arithmetic.operand_gradient,
    ops.arithmetic.ProductGradient: general.pull_back,
    ops.convolution.BiasGradient: general.bias_gradient,
    ops.convolution.ConvolutionInputGradient: convolution.input_gradient,
    ops.convolution.ConvolutionValue: convolution.layer_value,
    ops.dense.GradientFromBias: dense.gradient_from_bias,
    ops.dense.GradientFromLoss: dense.gradient_from_loss,
    ops.dense.InputGradient: dense.input_gradient,
    ops.dense.ValueFromBias: dense.value_from_bias,
    ops.dense.ValueFromGradient: dense.value_from_gradient,
    ops.dense.ValueFromLoss: dense.value_from_loss,
    ops.dense.ValueFromOutput: dense.value_from_output,
    ops.dense.ValueUpToScale: dense.value_up_to_scale,
    generals.AffineGradient: general.pull_back,
    generals.Backward: general.pull_back,
    generals.Forward: general.forward,
    generals.SelectedParameterGradient: general.selected_parameter_gradient,
    generals.UnusedGradient: general.unused_gradient,
    MovedGradient: general.pull_back,
    MovedValue: moved.moved_value,
    ops.normalisation.AffineValue: normalisation.affine_value,
    ops.normalisation.BatchNormInverse: normalisation.batch_norm_inverse,
    ops.normalisation.BiasGradient: general.bias_gradient,
    ops.normalisation.NormalisedConvolutionValue: normalisation.convolution_value,
    path.SumOverUses: general.sum_over_uses,
}
for derivation, function in REPLAYS.items():
    replay.register(derivation, function)


def walk(steps: Iterable[Derivation], state: State) -> PathBroken | None:
    """Replay steps, premises before conclusions, into the state; returns where they broke off."""
    for step in steps:
        if step.conclusion in state.known and step.quality is Quality.EXACT:
            continue
        try:
            state.known[step.conclusion] = replay(step, state)
        except PathBroken as broken:
            return broken
    return None
