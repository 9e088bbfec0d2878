"""Advice for the sample models."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner, Result
from places import SAMPLES
from samples import networks

from leakaudit.advice import Advice, Candidate, LayerAdvice, advise
from leakaudit.cli.main import main
from leakaudit.frontends import registry
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph
from leakaudit.pipeline.audit import choose_loss

FLAGGED = [network.__name__ for network in networks.NETWORKS]
CHAINS = ["lenet_main", "cnn6", "lenet_allrelu", "lenet_unread", "tabular_mlp"]


def load(name: str, **options: Any) -> Graph:
    return registry.load(str(SAMPLES / f"{name}.onnx"), LoadOptions(**options))


_cache: dict[str, Advice] = {}


def advice_for(name: str) -> Advice:
    if name not in _cache:
        graph = load(name)
        _cache[name] = advise(graph, choose_loss(graph, "auto"))
    return _cache[name]


def layer_advice(name: str, layer: str) -> LayerAdvice:
    (found,) = [entry for entry in advice_for(name).layers if entry.layer == layer]
    return found


def change_of(name: str, layer: str, parameter: str) -> Candidate:
    (found,) = [c for c in layer_advice(name, layer).candidates if c.change.parameter == parameter]
    return found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["advise", *arguments])
