"""Which function replays a derivation: the explicit list, and the default that raises."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import singledispatch
from typing import Any

from leakaudit.attack.replay import (
    activation,
    arithmetic,
    choice,
    convolution,
    general,
    linear,
    rearrange,
)
from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.known import Known
from leakaudit.leakpath import path
from leakaudit.leakpath.derivations import (
    activation as activations,
    arithmetic as arithmetics,
    choice as choices,
    convolution as convolutions,
    general as generals,
    linear as linears,
    normalisation as normalisations,
    rearrange as rearrangements,
    selection as selections,
)
from leakaudit.leakpath.facts import Derivation, Quality


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
    arithmetics.BranchValue: arithmetic.branch_value,
    arithmetics.ProductGradient: general.pull_back,
    choices.KeptValue: choice.kept_value,
    convolutions.BiasGradient: convolution.bias_gradient,
    convolutions.ConvolutionInputGradient: convolution.input_gradient,
    convolutions.ConvolutionValue: convolution.layer_value,
    generals.AddedParameterGradient: general.added_parameter_gradient,
    generals.AffineGradient: general.pull_back,
    generals.Backward: general.pull_back,
    generals.Forward: general.forward,
    generals.OperandGradient: general.operand_gradient,
    generals.SelectedParameterGradient: general.selected_parameter_gradient,
    generals.UnusedGradient: general.unused_gradient,
    linears.GradientFromBias: linear.gradient_from_bias,
    linears.GradientFromLoss: linear.gradient_from_loss,
    linears.InputGradient: linear.input_gradient,
    linears.ValueFromBias: linear.value_from_bias,
    linears.ValueFromGradient: linear.value_from_gradient,
    linears.ValueFromOutput: linear.value_from_output,
    linears.ValueFromLoss: linear.value_from_loss,
    linears.ValueUpToScale: linear.value_up_to_scale,
    normalisations.BatchNormInverse: arithmetic.batch_norm_inverse,
    normalisations.BiasGradient: arithmetic.normalisation_bias_gradient,
    path.SumOverUses: general.sum_over_uses,
    rearrangements.RearrangeGradient: rearrange.moved_gradient,
    rearrangements.RearrangeValue: rearrange.moved_value,
    selections.PartValue: general.part_value,
    selections.WholeValue: general.whole_value,
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
