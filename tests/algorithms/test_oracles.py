"""Algorithms against exact oracles: two quadratic clients f_i(x) = a_i / 2 (x - b_i)^2, float64."""

import pytest
import torch

from tests import bounds
from trainer.algorithms.base import Round
from trainer.config.load import load
from trainer.engine.build import ALGORITHMS

CLIENTS = ((1.0, 0.0), (3.0, 1.0))  # (a, b)
PRINTED = 0.5e-9 + bounds.of_sums(100, unit=bounds.FP64)  # of nine digits, and what is computed


def rounds(count: int, steps: int, weight_decay: float = 0.0, **algorithm: object) -> list[float]:
    """x after each round, all clients taking part, exact gradients, lr 0.1."""
    optimizer_settings = {"lr": 0.1, "weight_decay": weight_decay}
    experiment, _ = load({"optimizer": optimizer_settings, "algorithm": algorithm})
    anchor = torch.zeros(1, dtype=torch.float64)
    algorithm = ALGORITHMS[experiment.algorithm.name](
        experiment.algorithm, experiment.optimizer, anchor
    )
    params = torch.nn.Parameter(anchor.clone())
    params.grad = torch.zeros_like(anchor)
    optimizer = torch.optim.SGD([params], lr=0.1, weight_decay=weight_decay)
    memories = [{} for _ in CLIENTS]
    values = []
    for number in range(1, count + 1):
        round = Round(number, anchor, params.data, params.grad, anchor.clone(), optimizer)
        round.lr, round.steps, round.batch = 0.1, steps, 1
        whole = [a * (anchor - b) for a, b in CLIENTS]
        if algorithm.needs == "mean gradient":
            round.mean_gradient = sum(whole) / len(CLIENTS)
        means = {name: torch.zeros_like(anchor) for name in algorithm.vectors}
        for (a, b), round.memory, gradient in zip(CLIENTS, memories, whole, strict=True):
            round.gradient = None if algorithm.needs == "nothing" else gradient
            params.data.copy_(anchor)
            algorithm.begin(round)
            for _ in range(steps):
                params.grad.copy_(a * (params.data - b))
                algorithm.step(round)
            for name, vector in algorithm.update(round).items():
                means[name] += vector / len(CLIENTS)
        algorithm.apply(round, means)
        values.append(anchor.item())
    return values


ORACLES = {
    "mini-batch": ({"name": "fedsgd", "steps": 1}, (0.15, 0.27, 0.366)),
    "fedavg-1": ({"name": "fedavg", "steps": 1}, (0.15, 0.27, 0.366)),
    "fedavg": ({"name": "fedavg", "steps": 5}, (0.415965000, 0.573732205, 0.633570151)),
    "fedavg-wd": (
        {"name": "fedavg", "steps": 5, "weight_decay": 0.01},
        (0.415179605, 0.571720939, 0.630744043),
    ),
    "fedavg-server-momentum": (
        {"name": "fedavg", "steps": 5, "server_lr": 0.5, "server_momentum": 0.9},
        (0.207982500, 0.538599801, 0.876978038),
    ),
    "fedga-1": (
        {"name": "fedga", "steps": 1, "beta": 0.05},
        (0.157500000, 0.282712500, 0.382256437),
    ),
    "fedga": (
        {"name": "fedga", "steps": 5, "beta": 0.05},
        (0.431805750, 0.591020950, 0.649726699),
    ),
    "fedga-wd": (
        {"name": "fedga", "steps": 5, "beta": 0.05, "weight_decay": 0.01},
        (0.430942500, 0.588898551, 0.646795171),
    ),
    "scaffold-fresh": (
        {"name": "scaffold", "steps": 5, "controls": "fresh"},
        (0.515115000, 0.676438716, 0.726962077),
    ),
    "scaffold-option-2": (
        {"name": "scaffold", "steps": 5, "controls": "option-2"},
        (0.415965000, 0.628722778, 0.715024937),
    ),
}
LIMITS = {
    "mini-batch": 0.75,
    "fedavg": 0.670133071,
    "fedga-1": 0.768292683,
    "fedga": 0.684015663,
    "scaffold-fresh": 0.75,
    "scaffold-option-2": 0.75,
}


@pytest.mark.parametrize("case", ORACLES)
def test_three_rounds_to_nine_digits(case):
    options, expected = ORACLES[case]
    assert rounds(3, **options) == pytest.approx(expected, abs=PRINTED)


@pytest.mark.parametrize("case", LIMITS)
def test_where_it_ends(case):
    assert rounds(2000, **ORACLES[case][0])[-1] == pytest.approx(LIMITS[case], abs=PRINTED)


def test_option_1_keeps_the_gradient_of_the_round_before():
    """Round 1 is FedAvg, as both controls are 0; from then on c_i = f_i'(x) of the last round."""
    values = rounds(2, steps=1, name="scaffold", controls="option-1")
    x1 = 0.15  # mini-batch GD
    corrected = sum(x1 - 0.1 * (a * (x1 - b) - a * (0 - b) + (-1.5)) for a, b in CLIENTS) / 2
    assert values == pytest.approx([x1, corrected], abs=bounds.of_sums(10, unit=bounds.FP64))


def test_fedprox_pulls_back_to_the_agreed_model():
    """Without data the pull alone acts: y - x shrinks by (1 - lr mu) at each step."""
    free = rounds(1, steps=2, name="fedprox", prox=0.0)
    held = rounds(1, steps=2, name="fedprox", prox=1.0)
    assert free == rounds(1, steps=2, name="fedavg")
    steps = [0.0, 0.0]
    for i, (a, b) in enumerate(CLIENTS):
        y = 0.0
        for _ in range(2):
            y -= 0.1 * (a * (y - b) + 1.0 * y)
        steps[i] = y
    assert held == pytest.approx([sum(steps) / 2], abs=bounds.of_sums(10, unit=bounds.FP64))
