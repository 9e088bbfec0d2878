"""The generic rank modulo a prime against the numerical rank of the dense matrix."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from brute_force import DenseConvolution, numerical_rank
from hypothesis import HealthCheck, given, settings, strategies as st
from layers import REFERENCE, convolution, convolutions, from_reference, geometry, random_layer

from leakaudit.counting.bound import layer_bound
from leakaudit.counting.generic_rank import generic_rank
from leakaudit.counting.geometry import Axis, ConvolutionGeometry
from leakaudit.counting.modular import (
    PRIMES,
    left_null_space,
    product,
    random_residues,
    rank_mod_p,
)

property_test = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small are slower with several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- arithmetic modulo a prime -------------------------------------------------------------------


def integer_rank(rows: list[list[Fraction]]) -> int:
    """By elimination in exact fractions."""
    rows, rank = [list(row) for row in rows], 0
    for column in range(len(rows[0])):
        pivot = next((i for i in range(rank, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for i in range(rank + 1, len(rows)):
            factor = rows[i][column] / rows[rank][column]
            rows[i] = [a - factor * b for a, b in zip(rows[i], rows[rank], strict=True)]
        rank += 1
    return rank


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (30, 50, 20), (50, 30, 30), (40, 40, 17)])
def test_rank_of_small_integers_is_that_over_the_rationals(shape: tuple[int, int, int]) -> None:
    m, n, r = shape
    generator = np.random.default_rng(r)
    matrix = generator.integers(-2, 3, (m, r)) @ generator.integers(-2, 3, (r, n))
    expected = integer_rank([[Fraction(int(value)) for value in row] for row in matrix])
    for prime in PRIMES:
        assert rank_mod_p(matrix.astype(np.float64), prime) == expected


def test_rank_modulo_a_small_prime_is_lower_where_the_determinant_is_a_multiple() -> None:
    matrix = np.array([[1.0, 2.0], [3.0, 13.0]])  # determinant 7
    assert (rank_mod_p(matrix), rank_mod_p(matrix, 7)) == (2, 1)


@pytest.mark.parametrize("prime", [2, 101, *PRIMES])
@pytest.mark.parametrize(("m", "n", "r"), [(300, 200, 150), (200, 300, 150), (90, 700, 90)])
def test_rank_and_null_space_of_a_product(prime: int, m: int, n: int, r: int) -> None:
    generator = np.random.default_rng(prime)
    left, right = random_residues(generator, (m, r), prime), np.zeros((r, n))
    left[:r] = np.tril(left[:r], -1) + np.eye(r)
    right[:, n - r :] = np.triu(random_residues(generator, (r, r), prime), 1) + np.eye(r)
    mixed = product(left[generator.permutation(m)], right[:, generator.permutation(n)], prime)
    assert rank_mod_p(mixed, prime) == rank_mod_p(mixed.T, prime) == r
    basis = left_null_space(mixed, prime)
    assert basis.shape == (m - r, m)
    assert rank_mod_p(basis, prime) == m - r
    assert not product(basis, mixed, prime).any()


def test_products_are_exact_beyond_what_one_sum_holds() -> None:
    """3,000 products of the largest residues, all of one sign, need several reductions."""
    prime = PRIMES[0]
    most = prime // 2
    left = np.full((2, 3000), float(most))
    (value,) = {int(v) % prime for v in product(left, left.T, prime).ravel()}
    assert value == 3000 * most**2 % prime


def test_a_matrix_of_zeros_and_an_empty_one() -> None:
    assert rank_mod_p(np.zeros((5, 40))) == rank_mod_p(np.zeros((0, 3))) == 0
    assert rank_mod_p(np.zeros((3, 0))) == 0
    assert left_null_space(np.zeros((3, 0))).shape == (3, 3)


# --- layers --------------------------------------------------------------------------------------


def test_equals_the_numerical_rank_of_random_layers() -> None:
    draw = random.Random(13)
    for _ in range(300):
        layer = random_layer(draw)
        assert generic_rank(geometry(layer)) == layer.equations().rank, layer


@pytest.mark.parametrize("entry", REFERENCE, ids=range(len(REFERENCE)))
def test_reference_layer(entry: dict[str, Any]) -> None:
    layer = geometry(from_reference(entry))
    assert generic_rank(layer) == entry["rank"]


@property_test
@given(convolutions(), st.integers(0, 2**16), st.booleans(), st.booleans())
def test_any_layer_and_anything_known(
    layer: DenseConvolution, seed: int, observed: bool, outputs_known: bool
) -> None:
    """Three axes, uneven padding, batches; frozen weights, hidden outputs."""
    dense = layer.equations(seed)
    expected = {
        (True, True): lambda: dense.rank,
        (True, False): lambda: dense.gradient_rank,
        (False, True): lambda: dense.weight_rank,
        (False, False): lambda: 0,
    }[observed, outputs_known]()
    counted = geometry(layer, observed=observed, outputs_known=outputs_known)
    rank = generic_rank(counted, seed)
    assert rank == expected
    assert rank <= layer_bound(counted).rank


@property_test
@given(convolutions(), st.integers(1, 4), st.integers(0, 2**16))
def test_a_gradient_of_limited_rank(layer: DenseConvolution, limit: int, seed: int) -> None:
    """G = U·V of every group, against the dense equations for such a gradient."""
    generator = torch.Generator().manual_seed(seed)
    shape = layer.apply(torch.zeros(layer.input_shape), torch.zeros(layer.weight_shape)).shape
    batch, filters, *positions = shape
    f, L = filters // layer.groups, batch * int(np.prod(positions))

    def normal(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    G = torch.cat([normal(f, limit) @ normal(limit, L) for _ in range(layer.groups)])
    gradient = G.reshape(filters, batch, *positions).transpose(0, 1).contiguous()
    dense = layer.equations(seed, gradient)
    counted = geometry(layer, gradient_rank=limit)
    rank = generic_rank(counted)
    assert rank is not None
    assert dense.rank == rank <= layer_bound(counted).rank


def test_an_average_above_the_layer_leaves_less() -> None:
    """One row in G: `gradient_rank` lets it be any row, and the row of ones is special.

    Both taps of this layer read both pixels: under an average both tell their sum.
    """
    layer = convolution(1, (2,), 1, (2,), padding=(1,))
    ones = torch.ones((1, 1, 3), dtype=torch.float64)
    counted = geometry(layer, gradient_rank=1, outputs_known=False)
    assert layer.equations(0, ones).gradient_rank == 1
    assert generic_rank(counted) == 2


@property_test
@given(convolutions(), st.integers(0, 2**16))
def test_outputs_that_nothing_reads(layer: DenseConvolution, seed: int) -> None:
    """There dl/do is 0 and no output is known."""
    draw = random.Random(seed)
    counted = geometry(layer)
    masks = tuple(draw.getrandbits(axis.positions) for axis in counted.axes)
    read = np.ones(())
    for axis, mask in zip(counted.axes, masks, strict=True):
        read = np.multiply.outer(read, [mask >> i & 1 for i in range(axis.positions)])
    on = torch.from_numpy(read)[:, None].expand(-1, layer.filters, *read.shape[1:])
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(on.shape, generator=generator, dtype=torch.float64) * on
    dense = layer.equations(seed, gradient)
    known = dense.weight_constraints[on.flatten() > 0]
    expected = numerical_rank(torch.cat([dense.gradient_constraints, known]))
    assert generic_rank(counted, outputs=masks) == expected


def test_only_every_other_output_is_read() -> None:
    """A convolution of kernel 1 and stride 2 above: 192 of 192 were claimed, 156 it is."""
    layer = geometry(convolution(3, (8, 8), 4, (3, 3), padding=(1, 1)))
    even = 0b01010101
    assert (layer_bound(layer).rank, generic_rank(layer)) == (192, 192)
    assert generic_rank(layer, outputs=(-1, even, even)) == 156
    assert generic_rank(layer, outputs=(-1, 0, 0)) == 0


def test_dense_layers() -> None:
    tokens = (Axis(2), Axis(6))
    for in_features, out_features in ((5, 3), (3, 5), (20, 15)):
        layer = ConvolutionGeometry(in_features, out_features, tokens)
        assert generic_rank(layer) == layer_bound(layer).rank


def _axes(*axes: tuple[int, ...], batch: int = 1) -> tuple[Axis, ...]:
    return (Axis(batch), *(Axis(*axis) for axis in axes))


# Size, kernel, stride, padding before and after, dilation: layers whose bound is above their rank.
LOOSE = {
    "wide dilation": (ConvolutionGeometry(1, 1, _axes((5, 2, 1, 1, 1, 3))), 5, 4),
    "padding at one end": (ConvolutionGeometry(2, 1, _axes((3, 2, 1, 0, 2, 2))), 6, 5),
    "stride below the kernel": (ConvolutionGeometry(1, 1, _axes((6, 4, 3, 3, 1, 1))), 6, 5),
    "frozen": (ConvolutionGeometry(1, 2, _axes((6, 4, 1, 2, 1, 2)), observed=False), 6, 5),
    "two axes": (ConvolutionGeometry(1, 1, _axes((6, 1, 1, 0, 0, 3), (4, 2, 1, 2, 2, 3))), 24, 19),
    "a batch of twelve": (
        ConvolutionGeometry(12, 8, _axes((4, 5, 2, 2, 2), (4, 5, 2, 2, 2), batch=12)),
        2304,
        2240,
    ),
}


@pytest.mark.parametrize(("layer", "bound", "rank"), LOOSE.values(), ids=LOOSE.keys())
def test_where_the_bound_is_loose(layer: ConvolutionGeometry, bound: int, rank: int) -> None:
    assert (layer_bound(layer).rank, generic_rank(layer)) == (bound, rank)


def test_second_convolutions_of_cnn6_and_cnn6_d() -> None:
    """3,468 unknowns, of which the null spaces leave few."""
    for filters, rank in ((36, 3468), (20, 3188)):
        layer = convolution(12, (17, 17), filters, (3, 3), (2, 2), (1, 1))
        assert generic_rank(geometry(layer)) == rank


def test_too_large_layers_are_not_computed() -> None:
    def padded(channels: int, filters: int, size: int) -> ConvolutionGeometry:
        return ConvolutionGeometry(channels, filters, _axes(*[(size, 3, 1, 1, 1)] * 2))

    assert generic_rank(padded(64, 64, 56)) is None  # 200,704 unknowns, most of them open
    assert generic_rank(padded(1, 1, 20_000)) is None  # nothing of that size is ever allocated
    patches = ConvolutionGeometry(1, 1, _axes((200, 100, 100), (200, 100, 100)))
    assert generic_rank(patches) is None  # 10,000 stride phases


def test_a_large_layer_of_small_systems_is_computed() -> None:
    """The patch embedding of a vision transformer: 150,528 unknowns in 256 phases, all alike."""
    layer = ConvolutionGeometry(3, 192, _axes((224, 16, 16), (224, 16, 16)))
    assert generic_rank(layer) == layer_bound(layer).rank == 148_224


def test_an_instance_is_repeated_by_its_seed() -> None:
    layer = LOOSE["two axes"][0]
    assert {generic_rank.__wrapped__(layer, seed) for seed in (0, 0, 1, 2, 3)} == {19}


@pytest.mark.slow
def test_twenty_thousand_layers() -> None:
    draw = random.Random(20_000)
    bound_below = unequal = 0
    for number in range(20_000):
        layer = random_layer(draw)
        counted, rank = geometry(layer), layer.equations(number).rank
        bound_below += layer_bound(counted).rank < rank
        unequal += generic_rank(counted) != rank
    assert bound_below == 0
    assert unequal <= 20  # 99.9 %
