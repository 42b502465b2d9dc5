"""FedAvg against exact oracles: two quadratic clients f_i(x) = a_i / 2 (x - b_i)^2, in float64."""

import pytest
import torch

from trainer.algorithms.base import Round
from trainer.algorithms.fedavg import FedAvg
from trainer.config.learning import FedAvg as Settings

CLIENTS = ((1.0, 0.0), (3.0, 1.0))  # (a, b)


def rounds(count: int, steps: int, weight_decay: float = 0.0, **server: float) -> list[float]:
    """x after each round, all clients taking part, exact gradients, lr 0.1."""
    anchor = torch.zeros(1, dtype=torch.float64)
    params = torch.nn.Parameter(anchor.clone())
    params.grad = torch.zeros_like(anchor)
    optimizer = torch.optim.SGD([params], lr=0.1, weight_decay=weight_decay)
    algorithm = FedAvg(Settings(**server), anchor)
    values = []
    for number in range(1, count + 1):
        round = Round(number, anchor, params.data, params.grad, anchor.clone(), optimizer)
        mean = torch.zeros_like(anchor)
        for a, b in CLIENTS:
            params.data.copy_(anchor)
            algorithm.begin(round)
            for _ in range(steps):
                params.grad.copy_(a * (params.data - b))
                algorithm.step(round)
            mean += algorithm.update(round)["delta"] / len(CLIENTS)
        algorithm.apply(round, {"delta": mean})
        values.append(anchor.item())
    return values


@pytest.mark.parametrize(
    "options,expected",
    [
        ({"steps": 1}, (0.15, 0.27, 0.366)),
        ({"steps": 5}, (0.415965000, 0.573732205, 0.633570151)),
        ({"steps": 5, "weight_decay": 0.01}, (0.415179605, 0.571720939, 0.630744043)),
        (
            {"steps": 5, "server_lr": 0.5, "server_momentum": 0.9},
            (0.207982500, 0.538599801, 0.876978038),
        ),
    ],
    ids=["one-step", "five-steps", "weight-decay", "server-momentum"],
)
def test_quadratic_oracle(options, expected):
    assert rounds(3, **options) == pytest.approx(expected, abs=1e-9)


def test_fixed_point():
    assert rounds(400, steps=5)[-1] == pytest.approx(0.670133071, abs=1e-9)


@pytest.mark.parametrize("weighting,expected", [("samples", 7.0), ("uniform", 1.0)])
def test_weighting(weighting, expected):
    algorithm = FedAvg(Settings(weighting=weighting), torch.zeros(1))
    assert algorithm.weight(7) == expected
