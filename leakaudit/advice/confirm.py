"""Advice put to the test: the reconstruction is run on the changed networks. Needs torch."""

from __future__ import annotations

from dataclasses import replace

from leakaudit.advice.search import Advice, LayerAdvice
from leakaudit.advice.weights import ResampledWeights
from leakaudit.confirm.confirm import ConfirmOptions, confirm, confirm_given_output
from leakaudit.findings import Status


def confirm_best(advice: Advice, options: ConfirmOptions) -> Advice:
    """Attack the best change of every layer, or the best one that can be attacked at all.

    A frozen weight sends no equation, and often no leak path leads to its layer: then the layer is
    attacked given its true output, and the next change is run too.

    Raises:
        UsageError: The options do not fit.
        AuditError: Weights cannot be read.
    """
    return replace(
        advice, layers=tuple(_confirmed(advice, layer, options) for layer in advice.layers)
    )


def _confirmed(advice: Advice, layer: LayerAdvice, options: ConfirmOptions) -> LayerAdvice:
    candidates = list(layer.candidates)
    for number, candidate in enumerate(candidates):
        graph = replace(
            candidate.graph,
            weights=ResampledWeights(
                advice.graph.weights, candidate.graph.parameters, options.seed
            ),
        )
        result = confirm(graph, candidate.path, [layer.layer], options)
        evidence = result.layers[layer.layer]
        unsolved = evidence.status is Status.NOT_RUN
        weight = graph.node(layer.layer).parameter("weight") or ""
        if unsolved and not graph.parameters[weight].trainable:
            evidence = confirm_given_output(graph, layer.layer, options)
        candidates[number] = replace(candidate, confirmation=evidence)
        if not unsolved:
            break
    return replace(layer, candidates=tuple(candidates))
