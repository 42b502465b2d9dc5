"""Laws between algorithms, and the product of all of them with all policies and codecs."""

import numpy as np
import pytest

from tests import bounds
from tests.jobs import ddp, history
from tests.laws.test_state_laws import FEW, UNMASKED, UPDATES
from tests.names import ALGORITHMS, CODECS, POLICIES
from tests.products import sampled
from tests.ranks import once, ranks
from trainer.config.errors import ConfigError
from trainer.config.load import load

BASE = {
    "seed": 4,
    "clients": 6,
    "data": {"partition": {"name": "dirichlet", "alpha": 1.0}},
    "schedule": {"batch_size": 32, "phases": [{"steps": 3}]},
}
WHOLE = {"batch_size": 10_000, "phases": [{"steps": 1}]}  # one step on all local data


EXACTLY = BASE | bounds.DOUBLE


def run(algorithm: dict[str, object], rounds: int = 4, **changes: object) -> list[dict]:
    return once(2, history, EXACTLY | {"algorithm": algorithm} | changes, rounds)[0]


def test_fedsgd_is_fedavg_with_one_full_batch_step():
    by_gradients = run({"name": "fedsgd"}, schedule=WHOLE)
    by_weights = run({"name": "fedavg"}, schedule=WHOLE)
    assert bounds.apart(by_gradients, by_weights) < bounds.of_runs(by_weights)


def test_fedsgd_does_not_depend_on_the_size_of_its_micro_batches():
    small = run({"name": "fedsgd"}, schedule={"batch_size": 16, "phases": [{"epochs": 1}]})
    assert bounds.apart(small, run({"name": "fedsgd"}, schedule=WHOLE)) < bounds.of_runs(small)


@pytest.mark.parametrize("controls", ["option-1", "option-2"])
def test_the_first_round_of_scaffold_is_fedavg(controls):
    scaffold = run({"name": "scaffold", "controls": controls}, rounds=1)
    assert bounds.apart(scaffold, run({"name": "fedavg"}, rounds=1)) == 0


def test_scaffold_with_one_full_step_is_mini_batch_sgd():
    scaffold = run({"name": "scaffold", "controls": "fresh"}, schedule=WHOLE)
    fedsgd = run({"name": "fedsgd"}, schedule=WHOLE)
    assert bounds.apart(scaffold, fedsgd) < bounds.of_runs(fedsgd)


@pytest.mark.parametrize("size", [2, 4])
def test_local_sgd_with_one_step_is_large_batch_sgd_is_ddp(size):
    """Clients share the samples, so a step of all of them is one batch of clients x batch_size."""
    tree = EXACTLY | {
        "clients": size,
        "data": {"partition": {"name": "shared"}},
        "optimizer": {"lr": 0.1, "weight_decay": 0.01},
        "schedule": {"batch_size": 24, "phases": [{"steps": 1}]},
    }
    local, sgd = (
        ranks(size).run(history, tree | {"algorithm": {"name": name}}, 12)[0]
        for name in ("fedavg", "fedsgd")
    )
    large = tree | {"clients": 1, "schedule": {"batch_size": 24 * size, "phases": [{"steps": 1}]}}
    one = ranks(1).run(history, large, 12)[0]
    theirs = ranks(size).run(ddp, tree, 12)[0]
    for other in (sgd[-1]["anchor"], one[-1]["anchor"], theirs):
        assert np.abs(local[-1]["anchor"] - other).max() < bounds.of_runs(one)


def test_fedga_without_displacement_is_fedavg():
    assert bounds.apart(run({"name": "fedga", "beta": 0}), run({"name": "fedavg"})) == 0


def test_fedga_on_identical_clients_is_fedavg():
    same = {"data": {"partition": {"name": "percentage-iid", "share": -1}}, "schedule": WHOLE}
    aligned = run({"name": "fedga", "beta": 0.5}, **same)
    fedavg = run({"name": "fedavg"}, **same)
    assert bounds.apart(aligned, fedavg) < bounds.of_runs(fedavg)


def test_fedprox_without_pull_is_fedavg():
    assert bounds.apart(run({"name": "fedprox", "prox": 0}), run({"name": "fedavg"})) == 0


ARITHMETIC = {"double": bounds.DOUBLE, "smooth": bounds.SMOOTH}


@pytest.mark.parametrize(
    "algorithm,arithmetic", sampled(["fedga", "scaffold", "fedsgd"], ARITHMETIC)
)
def test_the_result_does_not_depend_on_the_number_of_ranks(algorithm, arithmetic):
    tree = BASE | ARITHMETIC[arithmetic] | {"algorithm": {"name": algorithm}, "participation": 0.5}
    alone, four = (ranks(n).run(history, tree, 5)[0] for n in (1, 4))
    assert bounds.apart(alone, four) < bounds.of_runs(alone)
    assert [row["payload"] for row in alone[1:]] == [row["payload"] for row in four[1:]]


@pytest.mark.parametrize(
    "algorithm,factor",
    [
        ({"name": "fedavg"}, 1),
        ({"name": "fedprox"}, 1),
        ({"name": "fedsgd"}, 1),
        ({"name": "fedga"}, 2),
        ({"name": "scaffold", "controls": "fresh"}, 2),
        ({"name": "scaffold", "controls": "option-1"}, 2),
        ({"name": "scaffold", "controls": "option-2"}, 2),
    ],
    ids=str,
)
def test_uploads_are_as_many_models_as_the_specification_says(algorithm, factor):
    row = ranks(2).run(history, BASE | {"algorithm": algorithm}, 1)[0][1]
    assert sum(row["payload"].values()) == factor * row["dense"]


FREEZE = {"threshold": 0.3, "ema": 0.5}
SYNC = {
    "full": {"name": "full"},
    "apf": {"name": "apf"} | FREEZE,
    "gwpf": {"name": "gwpf"} | FREEZE,
    "gwpf-released": {"name": "gwpf-released", "aliased": False, "ema": 0.5},
    "streaming": {"name": "streaming", "fragments": 3},
    "gaia": {"name": "gaia", "significance": 0.05},
    "cmfl": {"name": "cmfl", "relevance": 0.5},
}


def refused(algorithm: str, policy: str, codec: str) -> str:
    """What is said of a combination that does not fit; nothing, if it does."""
    if algorithm == "fedsgd" and policy.startswith("gwpf"):
        return f"sync.name: {policy} judges frozen parameters"
    if algorithm == "fedsgd" and policy == "streaming":
        return "sync.name: streaming has clients train what does not travel, and fedsgd has none"
    if algorithm == "fedsgd" and policy == "gaia":
        return "sync.name: gaia keeps what a client does not send"
    if algorithm == "fedsgd" and codec in UPDATES:
        return f"codec.name: {codec} .*, and fedsgd's clients send gradients"
    if codec in UNMASKED and policy not in ("full", "cmfl"):
        return f"codec.name: {codec} .* whole .*, and {policy} leaves (single )?values out"
    if codec in FEW and policy == "cmfl":
        return f"sync.name: cmfl compares clients .*, and {codec} changes few values in a round"
    return ""


@pytest.mark.parametrize("algorithm,policy,codec", sampled(ALGORITHMS, POLICIES, CODECS, times=2))
def test_every_combination_trains_and_keeps_the_laws(algorithm, policy, codec):
    tree = BASE | {
        "algorithm": {"name": algorithm},
        "sync": SYNC[policy],
        "codec": {"name": codec},
    }
    if refusal := refused(algorithm, policy, codec):
        with pytest.raises(ConfigError, match=refusal):
            load(tree)
        return
    first, other = ranks(2).run(history, tree, 3)
    for before, row, same in zip(first, first[1:], other[1:], strict=False):
        assert np.isfinite(row["anchor"]).all()
        assert np.array_equal(row["anchor"], same["anchor"])
        assert not np.array_equal(before["anchor"], row["anchor"])
        if row["mask"] is not None:
            assert np.array_equal(before["anchor"][~row["mask"]], row["anchor"][~row["mask"]])
