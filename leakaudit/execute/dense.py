"""Products of matrices: dense layers, and products of activations with each other."""

from __future__ import annotations

import torch

from leakaudit.execute.interface import Call, Executors, Outputs
from leakaudit.operators import Einsum, Linear, MatMul


def linear(op: Linear, call: Call) -> Outputs:
    """y = alpha · x Wᵀ + beta · b on the last axis."""
    w, bias = call.parameters["weight"], call.parameters.get("bias")
    z = op.alpha * (call.x[0] @ (w if op.transposed else w.T))
    return (z if bias is None else z + op.beta * bias,)


def matmul(op: MatMul, call: Call) -> Outputs:
    """numpy.matmul."""
    return (torch.matmul(call.x[0], call.x[1]),)


def einsum(op: Einsum, call: Call) -> Outputs:
    """numpy.einsum."""
    return (torch.einsum(op.equation, *call.x),)


EXECUTORS: Executors = {Linear: linear, MatMul: matmul, Einsum: einsum}
