"""Laws of the exchange: how clients are spread over ranks does not matter."""

from itertools import pairwise

import numpy as np
import pytest

from tests import bounds
from tests.jobs import final_model, history
from tests.products import sampled
from tests.ranks import ranks

BASE = {
    "seed": 11,
    "clients": 8,
    "data": {"partition": {"name": "dirichlet", "alpha": 0.5}},
    "schedule": {"batch_size": 32, "phases": [{"steps": 3}]},
}


CHANGES = {
    "plain": {},
    "sampled": {"participation": 0.4},
    "server-momentum": {
        "algorithm": {"name": "fedavg", "weighting": "uniform", "server": {"momentum": 0.5}}
    },
    "client-momentum": {"optimizer": {"name": "sgd", "momentum": 0.9, "state": "keep"}},
    "phases": {
        "schedule": {"batch_size": 32, "phases": [{"rounds": 3, "steps": 1}, {"epochs": 1}]}
    },
}
ARITHMETIC = {"double": bounds.DOUBLE, "smooth": bounds.SMOOTH}


@pytest.mark.parametrize("changes,arithmetic", sampled(CHANGES, ARITHMETIC))
def test_the_result_does_not_depend_on_the_number_of_ranks(changes, arithmetic):
    tree = BASE | ARITHMETIC[arithmetic] | CHANGES[changes]
    alone, two, four = (ranks(n).run(history, tree, 10)[0] for n in (1, 2, 4))
    for other in (two, four):
        assert bounds.apart(alone, other) < bounds.of_runs(alone)
        for a, b in zip(alone[1:], other[1:], strict=True):
            for key in ("payload", "dense", "samples", "steps", "clients"):
                assert a[key] == b[key]


def test_gwpf_chooses_the_same_coordinates_on_any_number_of_ranks():
    threshold, rounds = 0.3, 8
    sync = {"name": "gwpf", "threshold": threshold, "ema": 0.8}
    tree = BASE | bounds.SMOOTH | {"sync": sync}
    alone, four = (ranks(n).run(history, tree, rounds)[0] for n in (1, 4))
    assert alone[-1]["frozen"].any(), "nothing froze: the law was not put to a test"
    # A ratio within rounding of the threshold may fall to either side, and stays there. So many
    # ratios are that near, if they are spread as evenly below the threshold as they can be.
    terms = BASE["clients"] + alone[1]["samples"] / BASE["clients"]
    near = rounds * bounds.of_sums(terms) / threshold
    for a, b in zip(alone[1:], four[1:], strict=True):
        assert (a["frozen"] != b["frozen"]).mean() < near


def test_a_client_alone_on_its_rank_weighs_what_it_has_samples():
    """FedAvg of one step with full batches is a gradient step on the union of the data."""
    one_batch = {"batch_size": 10_000, "phases": [{"steps": 1}]}
    tree = BASE | bounds.DOUBLE | {"schedule": one_batch}
    many = ranks(2).run(history, tree, 3)[0]
    pooled = ranks(1).run(history, tree | {"clients": 1}, 3)[0]
    assert bounds.apart(many, pooled) < bounds.of_runs(pooled)


def test_bf16_costs_half_and_stays_close():
    exact = ranks(4).run(history, BASE, 5)[0]
    rounded = ranks(4).run(history, BASE | {"codec": {"name": "bf16"}}, 5)
    assert 2 * rounded[0][5]["payload"]["values"] == exact[5]["payload"]["values"]
    moved = sum(np.abs(b["anchor"] - a["anchor"]).max() for a, b in pairwise(exact))
    # each round's mean is rounded twice: on its way to the owner of the sum, and back
    assert 0 < bounds.apart(exact, rounded[0]) < bounds.of_sums(2, moved, bounds.BF16)
    for other in rounded[1:]:
        assert np.array_equal(rounded[0][5]["anchor"], other[5]["anchor"])


def test_wire_bytes_follow_from_the_collectives_of_the_round():
    rows = ranks(4).run(history, BASE, 1)[0]
    size = rows[0]["anchor"].size
    assert rows[1]["wire"]["values"] == 2 * 3 * 4 * size  # ring all-reduce, all ranks together
    assert rows[1]["wire"]["control"] == 2 * 3 * 4  # the lane that says stop
    assert rows[1]["wire"]["votes"] == 0
    alone = ranks(1).run(history, BASE, 1)[0]
    assert not any(alone[1]["wire"].values())


def test_it_learns():
    result = ranks(2).run(final_model, BASE | {"optimizer": {"name": "sgd", "lr": 0.2}}, 40)[0]
    assert result["final"][0] > 0.9
