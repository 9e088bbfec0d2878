"""One frozen dataclass per operator of the model graph.

An operator holds hyperparameters only; tensors and parameters are named by the `Node` that applies
it. Sizes are per spatial axis, in the order of the tensor's axes. Whatever a frontend does not
know becomes `Unsupported`: it stops every leak path and makes the audit incomplete.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operator:
    """Base of all operators."""


@dataclass(frozen=True, slots=True)
class Unsupported(Operator):
    """An operator that is not understood.

    Attributes:
        kind: The operator as the file names it, e.g. `com.microsoft::FusedMatMul`.
        reason: Why it is not understood.
    """

    kind: str
    reason: str


# --- layers with weights ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conv(Operator):
    """Cross-correlation over 1 to 3 spatial axes, input (B, N, H_1..H_d), output (B, F, O_1..O_d).

    Node parameters: `weight` (F, N/groups, K_1..K_d) and optionally `bias` (F,).
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding_begin: tuple[int, ...]
    padding_end: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True, slots=True)
class Linear(Operator):
    """Dense layer y = alpha · x Wᵀ + beta · b on the last axis; leading axes: batch and tokens.

    Node parameters: `weight`, stored (out, in), or (in, out) where `transposed` is set, and
    optionally `bias` (out,).
    """

    in_features: int
    out_features: int
    transposed: bool = False
    alpha: float = 1.0
    beta: float = 1.0


# --- activations --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Activation(Operator):
    """Base of the elementwise activation functions."""


@dataclass(frozen=True, slots=True)
class Relu(Activation):
    pass


@dataclass(frozen=True, slots=True)
class LeakyRelu(Activation):
    slope: float = 0.01


@dataclass(frozen=True, slots=True)
class PRelu(Activation):
    """Node parameter: `slope`, one value or one per channel (axis 1)."""


@dataclass(frozen=True, slots=True)
class Elu(Activation):
    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class Sigmoid(Activation):
    pass


@dataclass(frozen=True, slots=True)
class Tanh(Activation):
    pass


@dataclass(frozen=True, slots=True)
class ArcTan(Activation):
    pass


@dataclass(frozen=True, slots=True)
class Softplus(Activation):
    pass


@dataclass(frozen=True, slots=True)
class Identity(Activation):
    """Also Dropout in evaluation mode."""


# --- rearrangements: every element of the input is one element of the output --------------------


@dataclass(frozen=True, slots=True)
class Reshape(Operator):
    """Same elements in row-major order under a new shape: Flatten, Reshape, Squeeze, Unsqueeze."""


@dataclass(frozen=True, slots=True)
class Transpose(Operator):
    """Output axis i is input axis `permutation[i]`."""

    permutation: tuple[int, ...]
