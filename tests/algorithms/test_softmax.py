"""The trainer in float64 against the same algorithms in plain numpy: softmax regression on digits.

The numpy side shares nothing with ours but what the run reads from its settings: who holds which
samples, and who is sampled. x is the server's model, (10, 65), the last column the biases.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import bounds
from tests.jobs import experiment_run, history
from tests.products import sampled
from tests.ranks import ranks
from trainer.data.load import load
from trainer.engine.parts import RankState

W = npt.NDArray[np.float64]
ROUNDS, LR, BETA = 6, 0.1, 0.05
BASE = {
    "seed": 4,
    "clients": 6,
    # unequal parts, so that the mean's weights matter
    "data": {"sampling": "fixed", "restart": True, "partition": {"name": "dirichlet"}},
    "model": {"name": "softmax", "precision": "fp64"},
    "codec": {"name": "fp64"},
    "optimizer": {"lr": LR},
    "schedule": {"batch_size": None, "phases": [{"steps": 4}]},
}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "fedsgd": {"name": "fedsgd"},
    "fedavg": {"name": "fedavg"},
    "fedga": {"name": "fedga", "beta": BETA},
    "fresh": {"name": "scaffold", "controls": "fresh"},
    "option-2": {"name": "scaffold", "controls": "option-2"},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight-decay": {"optimizer": {"lr": LR, "weight_decay": 0.03}},
    "server-momentum": {"algorithm": {"server": {"lr": 0.7, "momentum": 0.9}}},
    "half-of-the-clients": {"participation": 0.5},
    "mini-batches": {"schedule": {"batch_size": 50, "phases": [{"steps": 7}]}},
    "all-at-once": {
        "optimizer": {"lr": LR, "weight_decay": 0.03},
        "algorithm": {"server": {"lr": 0.7, "momentum": 0.9}},
        "participation": 0.5,
    },
}


@pytest.mark.parametrize("algorithm,variant", sampled(ALGORITHMS, VARIANTS, times=2))
def test_each_round_is_that_of_plain_numpy_on_one_rank_and_on_two(
    algorithm: str, variant: str
) -> None:
    tree = settings(algorithm, variant)
    expected = list(Reference.of(experiment_run(tree)).rounds(ALGORITHMS[algorithm]))
    for size in (1, 2):
        rows = ranks(size).run(history, tree, ROUNDS)[0]
        rounding = bounds.of_runs(rows)
        for x, row in zip(expected, rows[1:], strict=True):
            assert np.abs(anchor(row) - x).max() < rounding
    assert np.abs(expected[-1]).max() > 0.05  # it has moved


def settings(algorithm: str, variant: str) -> dict[str, Any]:
    changes = VARIANTS[variant]
    server = changes.get("algorithm", {})
    if algorithm == "fedsgd":  # its server's momentum is the optimizer's, its step is eta
        server, own = {}, {"momentum": server["server"]["momentum"]} if server else {}
        changes = changes | {"optimizer": changes.get("optimizer", {"lr": LR}) | own}
    return BASE | changes | {"algorithm": ALGORITHMS[algorithm] | server}


def anchor(row: dict[str, Any]) -> W:
    """(10, 65): the weights, which come first in the flat vector, and beside them the biases."""
    flat = row["anchor"]
    return np.concatenate([flat[:640].reshape(10, 64), flat[640:, None]], axis=1)


@dataclass
class Reference:
    """A federation in numpy; the symbols are those of the papers."""

    x_data: list[W]  # by client: (n, 65), normalised, the last column 1
    y_data: list[npt.NDArray[np.int64]]
    sampled: list[list[int]]  # by round
    steps: int
    batch: int | None
    lr: float
    decay: float
    server_lr: float
    server_momentum: float
    c: W = field(default_factory=lambda: np.zeros((10, 65)))  # SCAFFOLD's controls: the server's,
    c_i: dict[int, W] = field(default_factory=dict)  # and the clients'

    @classmethod
    def of(cls, rank: RankState) -> "Reference":
        """The same settings; data and sampled clients as the run has them."""
        experiment, parts = rank.experiment, rank.clients.sampler.parts
        data = load(experiment.data, download=False)
        images = data.x_train.numpy().reshape(-1, 64) / 16
        x = np.concatenate([(images - 0.3053) / 0.3760, np.ones((len(images), 1))], axis=1)
        y = data.y_train.numpy()
        server = getattr(experiment.algorithm, "server", experiment.optimizer)
        phase = experiment.schedule.phases[0]
        assert phase.steps is not None
        return cls(
            x_data=[x[part.numpy()] for part in parts],
            y_data=[y[part.numpy()] for part in parts],
            sampled=[rank.clients.sampled(number) for number in range(1, ROUNDS + 1)],
            steps=phase.steps,
            batch=experiment.schedule.batch_size,
            lr=experiment.optimizer.lr,
            decay=experiment.optimizer.weight_decay,
            server_lr=server.lr,
            server_momentum=server.momentum,
        )

    def rounds(self, algorithm: dict[str, Any]) -> Iterator[W]:
        """The model after each round."""
        kind = algorithm.get("controls", algorithm["name"])
        play = {"fedsgd": self.fedsgd, "option-2": self.option_2}.get(
            kind, lambda x, m: self.aligned(x, m, kind)
        )
        x, v = np.zeros((10, 65)), np.zeros((10, 65))
        for clients in self.sampled:
            sizes = {i: len(self.y_data[i]) for i in clients}
            means = {i: n / sum(sizes.values()) for i, n in sizes.items()}
            v = self.server_momentum * v + play(x, means)
            x = x - self.server_lr * v
            yield x

    # each answers the pseudo-gradient: what the server steps along, with its own momentum

    def fedsgd(self, x: W, means: dict[int, float]) -> W:
        """Mini-batch SGD as the homework has it: a client's gradient is over its local steps."""
        gradient = self.decay * x
        for i, weight in means.items():
            batches = list(self.batches(i))
            seen = sum(len(y) for _, y in batches)
            gradient = gradient + weight * sum(
                len(batch[1]) / seen * slope(x, *batch) for batch in batches
            )
        return gradient

    def aligned(self, x: W, means: dict[int, float], kind: str) -> W:
        """FedAvg, and the two that also exchange the whole gradients at x."""
        own = {i: slope(x, self.x_data[i], self.y_data[i]) for i in means}
        mean = sum(weight * own[i] for i, weight in means.items())
        delta = np.zeros_like(x)
        for i, weight in means.items():
            start = x - BETA * (mean - own[i]) if kind == "fedga" else x
            correction = mean - own[i] if kind == "fresh" else np.zeros_like(x)
            delta += weight * (x - self.local(i, start, correction))
        return delta

    def option_2(self, x: W, means: dict[int, float]) -> W:
        """SCAFFOLD with kept controls: c_i+ = c_i - c + (x - y) / (K eta).

        c is the mean of c_i over all clients, each counted once, as the paper has it.
        """
        delta, change = np.zeros_like(x), np.zeros_like(x)
        for i, weight in means.items():
            old = self.c_i.get(i, np.zeros_like(x))
            y = self.local(i, x, self.c - old)
            self.c_i[i] = old - self.c + (x - y) / (self.steps * self.lr)
            delta += weight * (x - y)
            change += self.c_i[i] - old
        self.c = self.c + change / len(self.x_data)
        return delta

    def local(self, client: int, y: W, correction: W) -> W:
        for batch in self.batches(client):
            y = y - self.lr * (slope(y, *batch) + correction + self.decay * y)
        return y

    def batches(self, client: int) -> Iterator[tuple[W, npt.NDArray[np.int64]]]:
        """A round's: in the order of the client's samples, which begins anew where it ends."""
        x, y = self.x_data[client], self.y_data[client]
        size = self.batch or len(y)
        starts = range(0, len(y), size)
        for step in range(self.steps):
            first = starts[step % len(starts)]
            yield x[first : first + size], y[first : first + size]


def slope(w: W, x: W, y: npt.NDArray[np.int64]) -> W:
    """The gradient of the mean cross-entropy of softmax(x w^T)."""
    logits = x @ w.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return p.T @ x / len(y)
