"""Checkpoints hold everything: saved and restored in the middle, a run ends with the same bits."""

from itertools import product

import numpy as np
import pytest

from tests import bounds, checkpoint_jobs, jobs
from tests.names import ALGORITHMS, OPTIMIZERS, POLICIES, SERVERS
from tests.products import sampled
from tests.ranks import ranks

FREEZE = {"threshold": 0.3, "ema": 0.6}
SYNC = {
    "full": {"name": "full"},
    "apf": {"name": "apf", "random": "sharp"} | FREEZE,
    "gwpf": {"name": "gwpf"} | FREEZE,
    "gwpf-released": {"name": "gwpf-released", "aliased": False, "ema": 0.6},
    "streaming": {"name": "streaming", "fragments": 4},
    "gaia": {"name": "gaia", "significance": 0.05, "decay_rounds": 4},
    "cmfl": {"name": "cmfl", "relevance": 0.6},
}


def tree(policy: str, buffers: str, **changes: object) -> dict[str, object]:
    return {
        "seed": 8,
        "clients": 4,
        "participation": 1.0 if policy == "gwpf-released" else 0.75,
        "data": {"augment": True},
        "model": {"buffers": buffers},
        "optimizer": {"momentum": 0.9, "state": "keep", "lr": 0.02},
        "schedule": {"batch_size": 16, "phases": [{"steps": 2}]},
        "sync": SYNC[policy],
        "codec": {"name": "bf16"},
    } | changes


@pytest.mark.parametrize("policy,buffers", [*product(POLICIES, ["mean", "local"])])
def test_any_policy_and_buffers(policy, buffers, tmp_path):
    for result in ranks(2).run(checkpoint_jobs.restored, tree(policy, buffers), str(tmp_path)):
        freezes = policy not in ("full", "gaia", "cmfl")
        assert result["frozen"] > 0 or not freezes, "the policy's state was not put to a test"
        assert result["differing"] == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_any_algorithm(algorithm, tmp_path):
    changes = {"algorithm": {"name": algorithm} | SERVER.get(algorithm, {})}
    for result in ranks(2).run(
        checkpoint_jobs.restored, tree("apf", "mean", **changes), str(tmp_path)
    ):
        assert result["differing"] == []


@pytest.mark.parametrize(
    "optimizer,kept,server", sampled(OPTIMIZERS, ["keep", "reset"], [*SERVERS, "fedsgd"])
)
def test_any_optimizer_at_the_clients_and_at_the_server(optimizer, kept, server, tmp_path):
    changes = {
        "optimizer": {"name": optimizer, "state": kept} | LOCAL[optimizer],
        "algorithm": {"server": FEDOPT[server]} if server != "fedsgd" else {"name": "fedsgd"},
    }
    for result in ranks(2).run(
        checkpoint_jobs.restored, tree("apf", "mean", **changes), str(tmp_path)
    ):
        assert result["differing"] == []
        assert bool(result["records"]) == (kept == "keep" and server != "fedsgd")


LOCAL = {"sgd": {"momentum": 0.9}, "adam": {}, "adamw": {"decay_norm_and_bias": False}}
FEDOPT = {name: {"name": name} for name in SERVERS} | {"sgd": {"momentum": 0.9, "nesterov": True}}
SERVER = {
    name: {"server": {"momentum": 0.5}} for name in ("fedavg", "fedprox", "fedga", "scaffold")
}


def test_a_run_with_local_buffers_ends_with_a_model_on_several_ranks(tmp_path):
    tree_ = tree("full", "local") | {"rounds": 2}
    ranks(2).run(jobs.life, tree_, str(tmp_path), True)
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("policy", ["gwpf", "streaming"])
def test_the_mean_model_is_the_weighted_mean_of_the_clients_own(policy):
    """Against what the clients hold, averaged here in plain numpy."""
    experiment = {
        "seed": 3,
        "clients": 5,
        "data": {"partition": {"name": "dirichlet", "alpha": 0.5}},
        "sync": SYNC[policy] | ({"quorum": 1.0} if policy == "gwpf" else {}),
    }
    results = ranks(2).run(jobs.own_models, experiment, 10)
    own = results[0]["own"] | results[1]["own"]
    sizes = np.array(results[0]["sizes"], dtype=np.float64)
    expected = sum(own[c] * (n / sizes.sum()) for c, n in enumerate(sizes))
    apart = max(np.abs(own[a] - own[b]).max() for a in own for b in own)
    assert apart > 1e-3, "no client drifted: the mean was not put to a test"
    # one sum: over the clients, of the model and what each kept apart from it
    rounding = bounds.of_sums(len(own) + 2, max(np.abs(values).max() for values in own.values()))
    for result in results:
        assert np.abs(result["reconciled"] - expected).max() < rounding
        assert result["payload"] == 4 * result["apart"] * 5
