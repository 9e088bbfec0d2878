"""How far rounding may have moved numbers that are exact in theory."""

from __future__ import annotations

from torch import Tensor

from leakaudit.attack.state import State

# Every step before rounded a little: an estimate from above, in units of the gradients' precision.
_STEPS = 100


def rounding(state: State, x: Tensor) -> float:
    """The largest absolute error to expect in `x`, and in differences that start from it.

    A product with 0 is 0 exactly, but a difference of two recovered numbers is not: where an output
    of ReLU is computed so, what is off comes back as this much.
    """
    return _STEPS * state.precision * float(x.abs().max()) if x.numel() else 0.0
