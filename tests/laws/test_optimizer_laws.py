"""Laws of the clients' and the server's optimizers, on real gloo processes."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from tests import bounds, optimizer_jobs
from tests.jobs import history
from tests.laws.test_state_laws import CODEC, SYNC
from tests.names import OPTIMIZERS, POLICIES, SERVERS
from tests.products import sampled
from tests.ranks import ranks
from trainer.config.optimizers import ServerAdam

BASE: dict[str, Any] = {
    "seed": 6,
    "clients": 5,
    "data": {"partition": {"name": "dirichlet", "alpha": 1.0}},
    "model": {"name": "softmax"},
    "schedule": {"batch_size": 32, "phases": [{"steps": 3}]},
}
LOCAL: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "momentum": 0.9},
    "adam": {"name": "adam", "lr": 0.01, "weight_decay": 0.01},
    "adamw": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
}
SERVER: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.7, "momentum": 0.9, "nesterov": True},
    "adam": {"name": "adam"},
    "yogi": {"name": "yogi"},
    "adagrad": {"name": "adagrad", "beta1": 0.5},
}
ROUNDS = 8


# ------------------------------------------------------------------ clients


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_clients_state_is_that_of_an_optimizer_of_its_own(optimizer, tmp_path):
    """One of torch's for each client, given the gradients that the client saw, to the bit.

    Clients move between two ranks, and wait in files.
    """
    tree = BASE | {
        "optimizer": LOCAL[optimizer] | {"state": "keep"},
        "participation": 0.6,
        "client_memory": 0,
    }
    results = ranks(2).run(optimizer_jobs.steps, tree, ROUNDS, str(tmp_path))
    taken = sorted((row for each in results for row in each["taken"]), key=lambda row: row[:2])
    kept = {client: own for each in results for client, own in each["kept"].items()}
    torchs = {client: Torchs(LOCAL[optimizer]) for client in kept}
    assert len(taken) == 3 * 3 * ROUNDS and len(kept) == 5
    assert len({(row[1], at) for at, each in enumerate(results) for row in each["taken"]}) > 5
    for _, client, lr, before, gradient, after in taken:
        assert np.array_equal(torchs[client].step(lr, before, gradient), after)
    for client, own in kept.items():
        state = torchs[client].state()
        assert own.keys() == state.keys()
        assert all(np.array_equal(own[name], state[name]) for name in state)


class Torchs:
    """An optimizer of torch for one vector."""

    def __init__(self, settings: dict[str, Any]) -> None:
        rest = {name: value for name, value in settings.items() if name != "name"}
        kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        fused = {} if settings["name"] == "sgd" else {"fused": True}
        self.parameter = torch.nn.Parameter(torch.zeros(650))
        self.optimizer = kinds[settings["name"]]([self.parameter], **({"lr": 1.0} | rest | fused))

    def step(self, lr: float, before: Any, gradient: Any) -> Any:
        self.parameter.data.copy_(torch.from_numpy(before))
        self.parameter.grad = torch.from_numpy(gradient)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        return self.parameter.detach().numpy()

    def state(self) -> dict[str, Any]:
        held = self.optimizer.state[self.parameter]
        return {name: tensor.numpy() for name, tensor in held.items()}


@pytest.mark.parametrize("optimizer,size", sampled(["adam", "adamw"], [2, 4]))
def test_coded_messages_have_one_result_on_any_number_of_ranks(optimizer, size):
    """What a client keeps moves with it, to the bit."""
    tree = BASE | {
        "optimizer": LOCAL[optimizer] | {"state": "keep"},
        "algorithm": {"server": SERVER["yogi"]},
        "participation": 0.6,
        "codec": CODEC["bf16"],
    }
    alone, several = (ranks(n).run(history, tree, ROUNDS)[0] for n in (1, size))
    assert bounds.apart(alone, several) == 0
    assert sum(row["wire"]["moves"] for row in several[1:]) > 0


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_diloco_of_one_client_whose_server_takes_the_mean_is_plain_training(optimizer):
    """Up to rounding only: x - (x - y) is not always y."""
    settings = LOCAL[optimizer] | {"state": "keep", "eps": 1e-3}
    tree = BASE | bounds.DOUBLE | {"clients": 1, "optimizer": settings}
    tree["model"] = BASE["model"] | {"precision": "fp64"}
    rows = ranks(1).run(history, tree, ROUNDS)[0]
    expected = ranks(1).run(optimizer_jobs.plain, tree, ROUNDS)[0]
    # A gradient is a sum over 32 samples, and what it is off by is divided by eps at most.
    steps = 3 * ROUNDS
    amplified = bounds.of_sums(32, 1.0, bounds.FP64) / settings["eps"] * settings["lr"] * steps
    assert np.abs(rows[-1]["anchor"] - expected).max() < amplified
    reset = ranks(1).run(history, tree | {"optimizer": settings | {"state": "reset"}}, ROUNDS)[0]
    assert np.abs(reset[-1]["anchor"] - expected).max() > 1e6 * amplified


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fedsgd_of_one_client_is_plain_training_by_the_server(optimizer):
    settings = LOCAL[optimizer] | ({"momentum": 0.0} if optimizer == "sgd" else {"eps": 1e-3})
    tree = BASE | bounds.DOUBLE | {"clients": 1, "optimizer": settings}
    tree |= {"model": BASE["model"] | {"precision": "fp64"}, "algorithm": {"name": "fedsgd"}}
    tree["schedule"] = {"batch_size": 32, "phases": [{"steps": 1}]}
    rows = ranks(1).run(history, tree, 3 * ROUNDS)[0]
    expected = ranks(1).run(optimizer_jobs.plain, tree, 3 * ROUNDS)[0]
    lr, eps = settings.get("lr", 0.05), settings.get("eps", 1.0)
    amplified = bounds.of_sums(32, 1.0, bounds.FP64) / eps * lr * 3 * ROUNDS
    assert np.abs(rows[-1]["anchor"] - expected).max() < amplified
    assert np.abs(rows[-1]["anchor"] - rows[0]["anchor"]).max() > 0.05


# ------------------------------------------------------------------ the server


@pytest.mark.parametrize("policy,server", sampled(POLICIES, SERVERS, times=2))
def test_what_does_not_travel_stays_while_the_servers_state_takes_a_zero(policy, server):
    """Where the mask is off, the anchor is put back, and moments step as of an update of zero.

    A fragment's are put back as well, since they step when it travels. Where nobody sends, nothing
    changes. And all ranks hold the same, to the bit.
    """
    sync = SYNC[policy] | {"cmfl": {"relevance": 0.9}, "gaia": {"significance": 0.5}}.get(
        policy, {}
    )
    tree = BASE | {"algorithm": {"server": SERVER[server]}, "sync": sync}
    first, other = ranks(2).run(optimizer_jobs.server_states, tree, 14)
    still = silent = 0
    for before, after, same in zip(first, first[1:], other[1:], strict=False):
        assert np.array_equal(after["anchor"], same["anchor"])
        assert all(np.array_equal(after["state"][n], same["state"][n]) for n in same["state"])
        off = np.zeros(650, bool) if after["mask"] is None else ~after["mask"]
        assert np.array_equal(before["anchor"][off], after["anchor"][off])
        silent += after["sent"] == before["sent"]
        still += int(off.sum())
        for name, values in after["state"].items():
            expected = before["state"][name]
            if after["sent"] > before["sent"] and policy != "streaming":
                expected = of_zero(server, name, expected)
            assert np.array_equal(values[off], expected[off]), name
    assert still > 0 or policy in ("full", "gwpf-released"), "nothing stood still"
    assert silent > 0 or policy != "cmfl", "nobody was silent"
    assert all(np.isfinite(row["anchor"]).all() for row in first)


def of_zero(server: str, name: str, values: Any) -> Any:
    """What a vector of the server's state becomes in a round without an update."""
    if name != "second_moment":  # the momentum buffer of SGD, or the mean of updates
        factor = SERVER[server].get("momentum", SERVER[server].get("beta1", 0.9))
    else:  # Adagrad's sum does not change by nothing, and nor does Yogi's mean
        factor = ServerAdam().beta2 if server == "adam" else 1.0
    return values * np.float32(factor)


@pytest.mark.parametrize("algorithm,server", sampled(["fedprox", "fedga", "scaffold"], SERVERS))
def test_every_algorithm_with_a_servers_step_takes_any_optimizer(algorithm, server):
    tree = BASE | {
        "algorithm": {"name": algorithm, "server": SERVER[server]},
        "optimizer": LOCAL["adamw"] | {"state": "keep"},
    }
    first, other = ranks(2).run(optimizer_jobs.server_states, tree, 3)
    for before, row, same in zip(first, first[1:], other[1:], strict=False):
        assert np.isfinite(row["anchor"]).all()
        assert not np.array_equal(before["anchor"], row["anchor"])
        assert np.array_equal(row["anchor"], same["anchor"])


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_schedule_scales_the_steps_and_they_warm_up(optimizer):
    """eta of each step: from warmup_lr to lr in two rounds, then the phases' share of it."""
    tree = BASE | {
        "optimizer": LOCAL[optimizer] | {"warmup_rounds": 2, "warmup_lr": 0.001},
        "schedule": {"phases": [{"steps": 2, "rounds": 3}, {"steps": 2, "lr_scale": 0.1}]},
        "clients": 1,
    }
    taken = ranks(1).run(optimizer_jobs.steps, tree, 4, "")[0]["taken"]
    expected = [0.001, 0.00325, 0.0055, 0.00775, 0.01, 0.01, 0.001, 0.001]
    assert [row[2] for row in taken] == pytest.approx(expected)
    moved = [np.abs(row[5] - row[3]).max() for row in taken]
    assert all(b > a for a, b in pairwise(moved[:1] + moved[2:5:2]))
