"""The list of solvers against the files on disk, and the contract that all of them keep."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest
from places import PACKAGE

pytest.importorskip("torch")

from dense_reference import layer
from solver_problems import problem

from leakaudit.solvers.interface import Solver
from leakaudit.solvers.registry import SOLVERS
from leakaudit.solvers.solve import solve_layer

every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.__name__)


def test_the_list_names_every_solver_on_disk_once() -> None:
    found = []
    for path in (PACKAGE / "solvers").glob("*.py"):
        module = importlib.import_module(f"leakaudit.solvers.{path.stem}")
        own = [kind for _, kind in inspect.getmembers(module, inspect.isclass)]
        own = [kind for kind in own if kind.__module__ == module.__name__]
        solvers = [k for k in own if issubclass(k, Solver) and not inspect.isabstract(k)]
        assert len(solvers) <= 1, path.name
        found += solvers
    assert len(SOLVERS) == len(set(SOLVERS))
    assert set(SOLVERS) == set(found)
    assert len({solver.NAME for solver in SOLVERS}) == len(SOLVERS)


@every_solver
def test_costs_follow_from_sizes_and_grow_with_them(solver: Any) -> None:
    small, large = (
        solver.cost(layer((size, size), 3, padding=1, group_filters=9).geometry)
        for size in (10, 20)
    )
    assert 0 < small.products < large.products
    assert 0 < small.memory < large.memory


@every_solver
def test_a_solution_names_its_solver_and_meets_the_truth(solver: Any) -> None:
    found = problem(layer((6, 6), 3, padding=1, group_filters=9), 0)
    solution = solver().solve(found.system)
    assert solution.solver.startswith(solver.NAME)
    assert (solution.x - found.x).abs().max() < 1e-8
    assert solution.rank == solution.unknowns == 36


def test_the_reason_of_the_choice_stands_before_what_the_solver_says() -> None:
    found = problem(layer((5, 5), 3, group_channels=3, group_filters=1), 0)
    solution = solve_layer(found.system, memory=1)
    why, said = solution.reason.split("MiB; ")
    assert why.endswith("no factor fits into 0 ")
    assert said.startswith("only ")
