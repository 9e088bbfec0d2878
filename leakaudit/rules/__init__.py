"""The rules: what makes a layer or a model worth a finding. One TOML file each, no code."""

from leakaudit.rules.engine import LayerFacts, Match, ModelFacts, apply, evaluate_layer
from leakaudit.rules.expression import Expression, ExpressionError
from leakaudit.rules.registry import BUILTIN_IDS, load_rules
from leakaudit.rules.rule import Downgrade, Rule

__all__ = [
    "BUILTIN_IDS",
    "Downgrade",
    "Expression",
    "ExpressionError",
    "LayerFacts",
    "Match",
    "ModelFacts",
    "Rule",
    "apply",
    "evaluate_layer",
    "load_rules",
]
