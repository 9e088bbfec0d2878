"""The ONNX operators that leakaudit understands: the table of them, one file per family.

A builder takes the context and a node of the file and makes nodes of our graph through the
context. Where the node is more than it understands it raises `NotUnderstoodError`: what it made is
taken back, and the node becomes `Unsupported`. To add an operator, write a builder and a line in
the table of its family.
"""

from __future__ import annotations

from collections.abc import Mapping

from leakaudit.frontends.onnx.context import Builder
from leakaudit.frontends.onnx.operators import (
    activation,
    arithmetic,
    attention,
    convolution,
    dense,
    embedding,
    normalisation,
    pooling,
    reduction,
    resize,
    selection,
    shape,
)

_FILES = (
    *(activation, arithmetic, attention, convolution, dense, embedding),
    *(normalisation, pooling, reduction, resize, selection, shape),
)
FAMILIES: Mapping[str, Mapping[str, Builder]] = {
    file.__name__.rpartition(".")[2]: file.BUILDERS for file in _FILES
}
OPERATORS: Mapping[str, Builder] = {
    name: build for family in FAMILIES.values() for name, build in family.items()
}

_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
_RECURRENT = ("GRU", "LSTM", "RNN")
_QUANTISED = (
    *("ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"),
    *("QLinearConv", "QLinearMatMul", "QuantizeLinear"),
)

# Operators that are refused for a reason worth more than "not known".
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(_CONTROL_FLOW, "control flow is not followed"),
    **dict.fromkeys(_RECURRENT, "recurrent layers are not followed"),
    **dict.fromkeys(_QUANTISED, "quantised arithmetic has no gradient"),
}
