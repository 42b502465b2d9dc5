"""The server's optimizers against Algorithm 2 of FedOpt, written out, and against torch's own."""

from math import copysign, sqrt
from typing import Any

import pytest
import torch

from tests import bounds
from trainer.algorithms.server import ServerOptimizer
from trainer.config.load import load
from trainer.config.parts import resolve
from trainer.turn import Memory, Server

SIZE, ROUNDS = 60, 9
ADAPTIVE: dict[str, dict[str, Any]] = {
    "adam": {"lr": 0.1},
    "adam-own": {"name": "adam", "lr": 0.02, "beta1": 0.0, "beta2": 0.7, "tau": 0.1},
    "yogi": {"lr": 0.1},
    "yogi-own": {"name": "yogi", "lr": 0.02, "beta1": 0.5, "beta2": 0.9, "tau": 0.1},
    "adagrad": {"lr": 0.1},
    "adagrad-own": {"name": "adagrad", "lr": 0.02, "beta1": 0.5, "tau": 0.1},
}
SGD: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "momentum": {"lr": 0.5, "momentum": 0.9},
    "diloco": {"lr": 0.7, "momentum": 0.9, "nesterov": True},
}


def settings(case: str) -> Any:
    chosen = {"name": case} | ADAPTIVE[case] if case in ADAPTIVE else SGD[case]
    return load({"algorithm": {"server": chosen}})[0].algorithm.server


def built(case: str) -> ServerOptimizer:
    chosen = settings(case)
    optimizer: ServerOptimizer = resolve(chosen.implementation)(chosen)
    return optimizer


def updates(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Of all sizes about tau, and zero in places and in a round, as of what does not travel."""
    stream = torch.Generator().manual_seed(3)
    sizes = torch.logspace(-6, 1, SIZE, dtype=dtype)
    drawn = [sizes * torch.randn(SIZE, generator=stream, dtype=dtype) for _ in range(ROUNDS)]
    for at, delta in enumerate(drawn):
        delta[at::7] = 0
    drawn[4].zero_()
    return drawn


def start(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.linspace(-2, 2, SIZE, dtype=dtype)


def played(optimizer: ServerOptimizer, x: torch.Tensor, state: Memory) -> list[torch.Tensor]:
    values = []
    for delta in updates(x.dtype):
        optimizer.step(x, delta, state)
        values.append(x.clone())
    return values


def algorithm_2(kind: str, x: float, deltas: list[float], chosen: Any) -> list[float]:
    """The paper's, for one coordinate; its Delta_t points to where clients went, ours back."""
    m, v, values = 0.0, chosen.tau**2, []
    for ours in deltas:
        delta = -ours
        m = chosen.beta1 * m + (1 - chosen.beta1) * delta
        if kind == "adagrad":
            v = v + delta**2
        elif kind == "yogi":
            apart = v - delta**2
            v = v - (1 - chosen.beta2) * delta**2 * (copysign(1, apart) if apart else 0)
        else:
            v = chosen.beta2 * v + (1 - chosen.beta2) * delta**2
        x = x + chosen.lr * m / (sqrt(v) + chosen.tau)
        values.append(x)
    return values


@pytest.mark.parametrize("case", ADAPTIVE)
def test_each_round_is_that_of_algorithm_2(case):
    optimizer, chosen, x = built(case), settings(case), start()
    values = torch.stack(played(optimizer, x, optimizer.state(x)))
    deltas = torch.stack(updates())
    expected = [
        algorithm_2(chosen.name, float(first), deltas[:, at].tolist(), chosen)
        for at, first in enumerate(start())
    ]
    most = chosen.lr * ROUNDS / sqrt(1 - getattr(chosen, "beta2", 0)) + 2  # that x can reach
    rounding = bounds.of_sums(10 * ROUNDS, most, bounds.FP64)
    for at in range(SIZE):
        torch.testing.assert_close(values[:, at].tolist(), expected[at], rtol=0, atol=rounding)
    assert (x - start()).abs().max() > chosen.lr


def theirs(kind: Any, x: torch.Tensor, state: Memory | None = None, **options: Any) -> torch.Tensor:
    """The values after torch's optimizer, whose state may be given."""
    parameter = torch.nn.Parameter(x)
    optimizer = kind([parameter], **options)
    if state:
        optimizer.state[parameter].update(state)
    for delta in updates(x.dtype):
        parameter.grad = delta
        optimizer.step()
    return parameter.detach()


def test_adagrad_is_torchs_whose_sum_starts_at_tau_squared():
    optimizer, x, chosen = built("adagrad"), start(), settings("adagrad")
    played(optimizer, x, optimizer.state(x))
    options = {"eps": chosen.tau, "initial_accumulator_value": chosen.tau**2}
    expected = theirs(torch.optim.Adagrad, start(), lr=chosen.lr, **options)
    assert (x - expected).abs().max() < bounds.of_sums(10 * ROUNDS, 4, bounds.FP64)


@pytest.mark.parametrize("case", ["adam", "adam-own"])
def test_adam_is_torchs_once_there_is_no_bias_to_correct(case):
    optimizer, x, chosen = built(case), start(), settings(case)
    played(optimizer, x, optimizer.state(x))
    late = {
        "step": torch.tensor(1e7),  # 1 - 0.99^(10^7) is 1
        "exp_avg": torch.zeros(SIZE, dtype=x.dtype),
        "exp_avg_sq": torch.full((SIZE,), chosen.tau**2, dtype=x.dtype),
    }
    options = {"lr": chosen.lr, "betas": (chosen.beta1, chosen.beta2), "eps": chosen.tau}
    expected = theirs(torch.optim.Adam, start(), late, **options)
    assert (x - expected).abs().max() < bounds.of_sums(10 * ROUNDS, 12, bounds.FP64)
    early = theirs(torch.optim.Adam, start(), **options)  # which has no tau at first
    assert (x - early).abs().max() > 0.01


@pytest.mark.parametrize("case", SGD)
def test_sgd_has_the_bits_of_torchs(case):
    optimizer, x, chosen = built(case), start(torch.float32), settings(case)
    played(optimizer, x, optimizer.state(x))
    options = {"momentum": chosen.momentum, "nesterov": chosen.nesterov, "lr": chosen.lr}
    assert torch.equal(x, theirs(torch.optim.SGD, start(torch.float32), **options))


def test_the_default_takes_the_mean_model_itself():
    optimizer, x = built("fedavg"), start(torch.float32)
    state = optimizer.state(x)
    for delta in updates(torch.float32):
        expected = x - delta
        optimizer.step(x, delta, state)
        assert torch.equal(x, expected) and not state


@pytest.mark.parametrize("case", [*ADAPTIVE, *SGD])
def test_each_coordinate_is_on_its_own(case):
    """A model in two parts ends as the whole one."""
    optimizer, whole = built(case), start(torch.float32)
    played(optimizer, whole, optimizer.state(whole))
    x = start(torch.float32)
    server = Server(x, optimizer.state(x), x[:0])
    for delta in updates(torch.float32):
        for place in (slice(0, 17), slice(17, None)):
            part = server.part(place)
            optimizer.step(part.anchor, delta[place].clone(), part.state)
    rounding = bounds.of_sums(10 * ROUNDS, float(whole.abs().max()))
    assert (x - whole).abs().max() < rounding


@pytest.mark.parametrize("case", ADAPTIVE)
def test_no_more_vectors_are_kept_than_the_rule_has(case):
    optimizer, chosen, x = built(case), settings(case), start()
    assert optimizer.state(x).keys() == {"second_moment", *["exp_avg"][: bool(chosen.beta1)]}
