"""Products of matrices: dense layers, and products of activations with each other."""

from __future__ import annotations

import torch

from leakaudit.execute.interface import Call, Executors, Outputs, of_inputs
from leakaudit.operators import Einsum, Linear, MatMul


def linear(op: Linear, call: Call) -> Outputs:
    """y = alpha · x Wᵀ + beta · b on the last axis."""
    w, bias = call.parameters["weight"], call.parameters.get("bias")
    z = op.alpha * (call.x[0] @ (w if op.transposed else w.T))
    return (z if bias is None else z + op.beta * bias,)


EXECUTORS: Executors = {
    Linear: linear,
    MatMul: of_inputs(torch.matmul),
    Einsum: lambda op, call: (torch.einsum(op.equation, *call.x),),
}
