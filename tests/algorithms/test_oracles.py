"""Algorithms against exact oracles: two quadratic clients f_i(x) = a_i / 2 (x - b_i)^2, float64."""

import pytest
import torch

from tests import bounds
from trainer.config.load import load
from trainer.config.parts import resolve
from trainer.turn import Server, Turn

CLIENTS = ((1.0, 0.0), (3.0, 1.0))  # (a, b)
PRINTED = 0.5e-9 + bounds.of_sums(100, unit=bounds.FP64)  # of nine digits, and what is computed


def rounds(count: int, steps: int, weight_decay: float = 0.0, **algorithm: object) -> list[float]:
    """x after each round, all clients taking part, exact gradients, lr 0.1."""
    settings = {"lr": 0.1, "weight_decay": weight_decay}
    return played(count, steps, settings, algorithm)[0]


def played(
    count: int, steps: int, settings: dict[str, object], algorithm: dict[str, object]
) -> tuple[list[float], list[dict[str, torch.Tensor]], list[list[float]]]:
    """Also the clients' memories, and the gradients of the last round by client."""
    experiment, _ = load({"optimizer": settings, "algorithm": algorithm})
    chosen, optimizer = experiment.algorithm, experiment.optimizer
    algorithm = resolve(chosen.implementation)(chosen, resolve(optimizer.implementation)(optimizer))
    anchor = torch.zeros(1, dtype=torch.float64)
    server = Server(anchor, algorithm.server_state(anchor), torch.empty(0), lr=0.1)
    memories = [{} for _ in CLIENTS]
    values = []
    seen = [[] for _ in CLIENTS]
    for server.number in range(1, count + 1):
        whole = [a * (anchor - b) for a, b in CLIENTS]
        means = {vector.name: torch.zeros_like(anchor) for vector in algorithm.vectors}
        for client, (a, b) in enumerate(CLIENTS):
            turn = Turn(
                client,
                server,
                params=anchor.clone(),
                grads=torch.zeros_like(anchor),
                memory=memories[client],
                steps=steps,
                lr=0.1,
                mean_lr=0.1,
                batch=1,
            )
            if algorithm.needs != "nothing":
                turn.gradient = whole[client]
            if algorithm.needs == "mean gradient":
                turn.mean_gradient = sum(whole) / len(CLIENTS)
            algorithm.begin(turn)
            seen[client].clear()
            for _ in range(steps):
                turn.grads.copy_(a * (turn.params - b))
                seen[client].append(turn.grads.item())
                algorithm.step(turn)
            sent = algorithm.update(turn)
            for name, vector in sent.items():
                means[name] += vector / len(CLIENTS)
            if algorithm.keeps:
                algorithm.delivered(turn.memory, sent)
        algorithm.apply(server, means)
        values.append(anchor.item())
    return values, memories, seen


ORACLES = {
    "mini-batch": ({"name": "fedsgd", "steps": 1}, (0.15, 0.27, 0.366)),
    "fedavg-1": ({"name": "fedavg", "steps": 1}, (0.15, 0.27, 0.366)),
    "fedavg": ({"name": "fedavg", "steps": 5}, (0.415965000, 0.573732205, 0.633570151)),
    "fedavg-wd": (
        {"name": "fedavg", "steps": 5, "weight_decay": 0.01},
        (0.415179605, 0.571720939, 0.630744043),
    ),
    "fedavg-server-momentum": (
        {"name": "fedavg", "steps": 5, "server": {"lr": 0.5, "momentum": 0.9}},
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


@pytest.mark.parametrize(
    "optimizer",
    [{"name": "sgd"}, {"name": "sgd", "momentum": 0.9}, {"name": "adam"}, {"name": "adamw"}],
    ids=["sgd", "momentum", "adam", "adamw"],
)
def test_option_2_keeps_the_mean_of_the_local_gradients_whatever_steps_along_them(optimizer):
    settings = {"lr": 0.1, **optimizer}
    for count in (1, 2, 5):
        _, memories, seen = played(count, 4, settings, {"name": "scaffold"})
        for memory, gradients in zip(memories, seen, strict=True):
            rounding = bounds.of_sums(10 * count, 10.0, bounds.FP64)
            assert memory["control"].item() == pytest.approx(sum(gradients) / 4, abs=rounding)


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
