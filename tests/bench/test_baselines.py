"""DLG and R-GAP behave on small networks as their papers say, and refuse what they do not cover."""

from __future__ import annotations

import inspect

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from hand_built import client_gradients, graph_of, network, probe, weights_of
from torch import nn

from leakaudit.bench.baselines.dense_rows import convolution_input, convolution_rows
from leakaudit.bench.baselines.dlg import Dlg
from leakaudit.bench.baselines.interface import Attack, AttackResult
from leakaudit.bench.baselines.rconv import RConv
from leakaudit.bench.baselines.rgap import Rgap
from leakaudit.operators import Conv

IMAGE = (1, 1, 8, 8)


def sigmoid_network() -> nn.Sequential:
    return network(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.Sigmoid(),
        nn.Conv2d(6, 6, 3, stride=2, padding=1),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def leaky_network(filters: int = 6, slope: float = 0.2, seed: int = 0) -> nn.Sequential:
    return network(
        nn.Conv2d(1, filters, 3, stride=1, padding=1, bias=False),
        nn.LeakyReLU(slope),
        nn.Conv2d(filters, 6, 3, stride=1, padding=1, bias=False),
        nn.LeakyReLU(slope),
        nn.Flatten(),
        nn.Linear(384, 1, bias=False),
        seed=seed,
    )


def run(attack: Attack, model: nn.Sequential, loss: str) -> tuple[AttackResult, torch.Tensor]:
    """The attack on a private picture, and that picture."""
    x = probe(IMAGE)
    graph, weights = graph_of(model, IMAGE), weights_of(model)
    return attack.attack(graph, weights, client_gradients(model, x, loss), loss), x


def error(result: AttackResult, x: torch.Tensor) -> float:
    assert result.failure is None
    assert result.x is not None
    return float((result.x - x).square().mean())


@pytest.mark.parametrize("method", [RConv, Dlg, Rgap])
def test_attackers_see_no_more_than_a_server_does(method: type[Attack]) -> None:
    parameters = list(inspect.signature(method.attack).parameters)
    assert parameters == ["self", "graph", "weights", "gradients", "loss"]


class TestDlg:
    def test_recovers_a_small_picture_by_matching_gradients(self) -> None:
        result, x = run(Dlg(iterations=10, starts=1), sigmoid_network(), "cross-entropy")
        assert error(result, x) < 1e-3
        assert 1 <= result.iterations <= 10

    def test_float64_does_too(self) -> None:
        attack = Dlg(iterations=10, starts=1, dtype=torch.float64)
        result, x = run(attack, sigmoid_network(), "cross-entropy")
        assert error(result, x) < 1e-3

    def test_the_same_seed_gives_the_same_picture(self) -> None:
        first, _ = run(Dlg(iterations=1, starts=1, seed=3), sigmoid_network(), "cross-entropy")
        again, _ = run(Dlg(iterations=1, starts=1, seed=3), sigmoid_network(), "cross-entropy")
        other, _ = run(Dlg(iterations=1, starts=1, seed=4), sigmoid_network(), "cross-entropy")
        assert first.x is not None
        assert torch.equal(first.x, again.x)
        assert not torch.equal(first.x, other.x)

    def test_every_start_is_reported(self) -> None:
        """With no inner progress to speak of, no start matches: all are made, and none hidden."""
        attack = Dlg(iterations=1, starts=3, seed=20)
        result, _ = run(attack, leaky_network(), "bce")
        made = len(result.notes)
        assert 1 <= made <= 3
        assert [note.split(":")[0] for note in result.notes] == [
            f"start {i + 1} (seed {20 + i})" for i in range(made)
        ]
        assert result.iterations == made


class TestRgap:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("padding", [True, False])
    def test_recovers_through_a_bias_free_leaky_network(
        self, dtype: torch.dtype, padding: bool
    ) -> None:
        result, x = run(Rgap(dtype, padding), leaky_network(), "bce")
        assert error(result, x) < (1e-8 if dtype is torch.float32 else 1e-20)

    @pytest.mark.parametrize("seed", range(4))
    def test_with_either_label_and_any_sign_of_the_logit(self, seed: int) -> None:
        result, x = run(Rgap(torch.float64), leaky_network(seed=seed), "bce")
        assert error(result, x) < 1e-12

    def test_dense_layers(self) -> None:
        model = network(
            nn.Flatten(),
            nn.Linear(64, 20, bias=False),
            nn.LeakyReLU(0.2),
            nn.Linear(20, 8, bias=False),
            nn.LeakyReLU(0.2),
            nn.Linear(8, 1, bias=False),
        )
        result, x = run(Rgap(torch.float64), model, "bce")
        assert error(result, x) < 1e-20

    def test_fails_where_a_layer_is_underdetermined(self) -> None:
        """One filter with stride 2: 16 outputs and 9 weights for 64 pixels."""
        model = network(
            nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(96, 1, bias=False),
        )
        result, x = run(Rgap(torch.float64, padding_constraints=False), model, "bce")
        assert error(result, x) > 1e-3
        (first,) = [note for note in result.notes if note.startswith("0:")]
        rank = int(first.rpartition("rank ")[2])
        assert rank <= 16 + 9

    @pytest.mark.parametrize(
        ("model", "loss", "reason"),
        [
            (sigmoid_network, "cross-entropy", "logistic loss"),
            (sigmoid_network, "bce", "without bias"),
            (
                lambda: network(
                    nn.Conv2d(1, 2, 3, bias=False),
                    nn.ReLU(),
                    nn.Flatten(),
                    nn.Linear(72, 1, bias=False),
                ),
                "bce",
                "no Relu",
            ),
            (
                lambda: network(
                    nn.Conv2d(1, 2, 3, bias=False),
                    nn.LeakyReLU(0.2),
                    nn.Conv2d(2, 2, 3, groups=2, bias=False),
                    nn.LeakyReLU(0.2),
                    nn.Flatten(),
                    nn.Linear(32, 1, bias=False),
                ),
                "bce",
                "no groups",
            ),
            (
                lambda: network(
                    nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(72, 1, bias=False)
                ),
                "bce",
                "LeakyReLU behind every layer",
            ),
            (
                lambda: network(nn.Flatten(), nn.Linear(64, 3, bias=False)),
                "bce",
                "needs one output",
            ),
        ],
        ids=["loss", "bias", "relu", "groups", "no activation", "outputs"],
    )
    def test_refuses_by_name(self, model: object, loss: str, reason: str) -> None:
        assert callable(model)
        result, _ = run(Rgap(), model(), loss)
        assert result.x is None
        assert result.failure is not None
        assert reason in result.failure


class TestDenseRows:
    """Against torch's own convolution and autograd."""

    OP = Conv((3, 2), (2, 1), (1, 0), (2, 1), (1, 2), 1)
    SHAPE = (1, 2, 6, 5)

    def equations(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        x, w = normal(*self.SHAPE), normal(3, 2, 3, 2).requires_grad_(True)
        padded = F.pad(x, (0, 1, 1, 2))
        o = F.conv2d(padded, w, stride=(2, 1), dilation=(1, 2))
        G = normal(*o.shape)
        (dw,) = torch.autograd.grad(o, w, G)
        rows = torch.cat([o.detach().reshape(-1), dw.reshape(-1)])
        return x, w.detach(), G, rows

    @pytest.mark.parametrize("padding", [True, False])
    def test_they_hold_for_the_true_input(self, padding: bool) -> None:
        x, w, G, expected = self.equations()
        S = convolution_rows(self.OP, self.SHAPE, w, G, padding_constraints=padding)
        unknowns = F.pad(x, (0, 1, 1, 2)).reshape(-1) if padding else x.reshape(-1)
        got = S @ unknowns
        torch.testing.assert_close(got[: len(expected)], expected)
        assert len(got) - len(expected) == (len(unknowns) - x.numel())
        assert bool((got[len(expected) :] == 0).all())
        back = convolution_input(self.OP, self.SHAPE, unknowns, padding_constraints=padding)
        assert torch.equal(back, x)


def test_rconv_and_rgap_recover_the_same_picture() -> None:
    ours, x = run(RConv(), leaky_network(), "bce")
    theirs, _ = run(Rgap(torch.float64), leaky_network(), "bce")
    assert error(ours, x) < 1e-20
    assert ours.x is not None
    torch.testing.assert_close(ours.x, theirs.x)


def test_rconv_names_what_stops_it() -> None:
    model = network(nn.Conv2d(1, 1, 3), nn.GELU(), nn.Flatten(), nn.Linear(36, 5))
    result, _ = run(RConv(), model, "cross-entropy")
    assert result.x is None
    assert result.failure == "no leak path reaches the input"
