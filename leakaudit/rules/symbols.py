"""The symbols that rules may use, with their meaning for whoever writes a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial


class Level(StrEnum):
    """What a rule looks at."""

    LAYER = "layer"
    MODEL = "model"


class Kind(StrEnum):
    """What a symbol stands for. Texts occur in messages only."""

    NUMBER = "number"
    FLAG = "flag"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Symbol:
    kind: Kind
    meaning: str


_number = partial(Symbol, Kind.NUMBER)
_flag = partial(Symbol, Kind.FLAG)
_text = partial(Symbol, Kind.TEXT)

OPERATORS = ("conv", "linear")

LAYER_SYMBOLS: Mapping[str, Symbol] = {
    "X": _number("unknowns: the numbers in the layer's input"),
    "unread": _number("unknowns that no output depends on"),
    "A": _number("gradient constraints: one equation per weight gradient"),
    "B": _number("weight constraints: one equation per known pre-activation output"),
    "redundant": _number("equations of A + B that cannot add to the rank"),
    "bound": _number("upper bound on the rank of both sets of equations"),
    "gradient_bound": _number("the same for the gradient constraints alone"),
    "rho": _number("determined fraction, bound / X"),
    "margin": _number("equations beyond the unknowns, A + B - X; negative where they run short"),
    "missing": _number("unknowns read but not determined, X - unread - bound, at least 0"),
    "N": _number("input channels; of a dense layer the input features"),
    "F": _number("filters; of a dense layer the output features"),
    "K": _number("taps of the kernel, over all spatial axes; 1 for a dense layer"),
    "L": _number("output positions, over all spatial axes"),
    "g": _number("groups"),
    "batch": _number("examples per shared gradient"),
    "positions": _number("rows the weight gradient sums over: batch times tokens or pixels"),
    "is_linear": _flag("the layer is dense, not a convolution"),
    "has_bias": _flag("the layer has a bias"),
    "trainable": _flag("the weight sends its gradient"),
    "bias_trainable": _flag("the bias sends its gradient"),
    "weight_shared": _flag("other layers use the same weight, so its gradient is a sum"),
    "bias_shared": _flag("other layers use the same bias, so its gradient is a sum"),
    "path_reaches": _flag("the leak path reaches this layer's input, if only up to a factor"),
    "input_exact": _flag("the leak path gives all of this layer's input, exactly"),
    "reads_input": _flag("the layer reads an input of the model itself, moved at most"),
    "layer": _text("the layer's name"),
}

MODEL_SYMBOLS: Mapping[str, Symbol] = {
    "reaches_input": _flag("the leak path reaches the model's input"),
    "complete": _flag("every operator on the way was understood"),
    "reached": _number("tensors whose value follows from the gradients"),
    "furthest_size": _number("numbers in the furthest tensor reached, 0 where there is none"),
    "input_size": _number("numbers in the model's input"),
    "layers": _number("layers with weights"),
    "unsupported": _number("operators not understood"),
    "position_embedding": _flag("the path starts at a parameter added to its own shape"),
    "branch_sums": _number("sums of branches that the path passes"),
    "stops": _number("places where the path stops"),
    "unfollowed": _number("of these, those for which no derivation is known: nothing proven"),
    "added_at": _text("where that parameter is added"),
    "branches": _text("the sums of branches that the path passes, listed"),
    "stopped_by": _text("where the path stops, with the operators"),
    "input": _text("the name of the model's input"),
    "furthest": _text("the tensor nearest to the input whose value follows"),
    "furthest_known": _text("how well it follows: exactly, up to one unknown factor, in part"),
    "unsupported_names": _text("the operators not understood, listed"),
}


def symbols_of(level: Level) -> Mapping[str, Symbol]:
    """Return the symbols that a rule of this level may use."""
    return LAYER_SYMBOLS if level is Level.LAYER else MODEL_SYMBOLS
