"""At least one case for every operator of the graph."""

from __future__ import annotations

from cases_of_values import (
    activation_cases,
    arithmetic_cases,
    elementwise_cases,
    layer_cases,
)
from cases_of_windows import normalisation_cases, pooling_cases, shape_cases

CASES = [
    *activation_cases(),
    *elementwise_cases(),
    *layer_cases(),
    *arithmetic_cases(),
    *shape_cases(),
    *pooling_cases(),
    *normalisation_cases(),
]
