"""Which function replays a derivation: the explicit list, and the default that raises."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import singledispatch
from typing import Any

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
from leakaudit.operators import (
    activation as activations,
    arithmetic as arithmetics,
    convolution as convolutions,
    dense as denses,
    moved as moves,
    normalisation as normalisations,
)


@singledispatch
def replay(step: Derivation, state: State) -> Known:
    """Compute what a derivation concludes from what is known.

    Raises:
        PathBroken: Its claim does not hold for these numbers.
        NotImplementedError: The type of derivation has no replay.
    """
    raise NotImplementedError(type(step).__name__)


REPLAYS: dict[type[Derivation], Callable[[Any, State], Known]] = {
    activations.ActivationGradient: activation.output_gradient,
    activations.ActivationInverse: activation.pre_activation,
    activations.PositiveInverse: activation.positive_pre_activation,
    arithmetics.AddedParameterGradient: arithmetic.added_parameter_gradient,
    arithmetics.BranchValue: arithmetic.branch_value,
    arithmetics.OperandGradient: arithmetic.operand_gradient,
    arithmetics.ProductGradient: general.pull_back,
    convolutions.BiasGradient: general.bias_gradient,
    convolutions.ConvolutionInputGradient: convolution.input_gradient,
    convolutions.ConvolutionValue: convolution.layer_value,
    denses.GradientFromBias: dense.gradient_from_bias,
    denses.GradientFromLoss: dense.gradient_from_loss,
    denses.InputGradient: dense.input_gradient,
    denses.ValueFromBias: dense.value_from_bias,
    denses.ValueFromGradient: dense.value_from_gradient,
    denses.ValueFromLoss: dense.value_from_loss,
    denses.ValueFromOutput: dense.value_from_output,
    denses.ValueUpToScale: dense.value_up_to_scale,
    generals.AffineGradient: general.pull_back,
    generals.Backward: general.pull_back,
    generals.Forward: general.forward,
    generals.SelectedParameterGradient: general.selected_parameter_gradient,
    generals.UnusedGradient: general.unused_gradient,
    moves.MovedGradient: general.pull_back,
    moves.MovedValue: moved.moved_value,
    normalisations.AffineValue: normalisation.affine_value,
    normalisations.BatchNormInverse: normalisation.batch_norm_inverse,
    normalisations.BiasGradient: general.bias_gradient,
    normalisations.NormalisedConvolutionValue: normalisation.convolution_value,
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
