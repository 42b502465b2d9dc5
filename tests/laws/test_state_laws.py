"""Laws of what clients and the server keep between rounds, on real gloo processes."""

import numpy as np
import pytest

from tests import bounds, law_jobs
from tests.names import ALGORITHMS
from tests.products import sampled
from tests.ranks import ranks

BASE = {
    "seed": 5,
    "clients": 5,
    "data": {"partition": {"name": "dirichlet", "alpha": 1.0}},
    "schedule": {"batch_size": 32, "phases": [{"steps": 3}]},
}
SYNC = {
    "full": {"name": "full"},
    "apf": {"name": "apf", "threshold": 0.3, "ema": 0.5},
    "gwpf": {"name": "gwpf", "threshold": 0.3, "ema": 0.5},
    "gwpf-riding": {
        "name": "gwpf",
        "threshold": 0.3,
        "ema": 0.5,
        "votes": "riding",
        "stagger": True,
        "max_frozen_rounds": 4,
    },
    "apf-rows": {"name": "apf", "threshold": 0.3, "ema": 0.5, "unit": "row"},
    "gwpf-rows": {"name": "gwpf", "threshold": 0.3, "ema": 0.5, "unit": "row"},
    "gwpf-released": {"name": "gwpf-released", "aliased": False, "ema": 0.5},
    "streaming": {"name": "streaming", "fragments": 3},
    "gaia": {"name": "gaia", "significance": 0.05},
    "cmfl": {"name": "cmfl", "relevance": 0.6},
}
CODEC = {
    "fp32": {"name": "fp32"},
    "bf16": {"name": "bf16"},
    "bf16-feedback": {"name": "bf16", "error_feedback": True},
    "int8": {"name": "int8"},
    "int8-lossy": {"name": "int8", "error_feedback": False},
    "int4": {"name": "int4"},
    "fp8": {"name": "fp8"},
    "sign": {"name": "sign"},
    "sign-lossy": {"name": "sign", "error_feedback": False},
    "sparse": {"name": "sparse", "share": 0.1},
    "sparse-lossy": {"name": "sparse", "block": 256, "error_feedback": False},
    "randomk": {"name": "randomk", "share": 0.2},
    "randomk-int8": {"name": "randomk", "share": 0.2, "bits": 8},
    "lowrank": {"name": "lowrank", "rank": 2},
    "lowrank-lossy": {"name": "lowrank", "rank": 1, "error_feedback": False},
    "lowrank-ahead": {"name": "lowrank", "rank": 1, "step_ahead": True},
    "sparse-ahead": {"name": "sparse", "share": 0.1, "step_ahead": True},
    "randomk-ahead": {"name": "randomk", "share": 0.2, "step_ahead": True},
    "lowrank-budget": {"name": "lowrank", "rank": 2, "budget": {"share": 0.6}},
}
UNMASKED = ("lowrank", "sign", "sparse")  # formats of which no single values are left out
FEW = ("sparse", "randomk")  # formats that change few values in a round
UPDATES = (*UNMASKED, "randomk")  # formats that no gradients travel in
ROUNDS = 6


def fits(algorithm: str, policy: str, codec: str = "") -> bool:
    """FedSGD's clients do not train, and send gradients; factors are of whole rows of updates."""
    kind = codec.split("-")[0]
    if algorithm == "fedsgd" and kind in UPDATES:
        return False
    ahead = codec.endswith("-ahead")
    if (ahead or kind in UNMASKED) and policy not in ("full", "cmfl"):
        return kind == "lowrank" and not ahead and policy.endswith("-rows")
    if policy == "cmfl" and kind in FEW:
        return False
    return algorithm != "fedsgd" or policy.split("-")[0] in ("full", "apf", "cmfl")


# ------------------------------------------------------------------ SCAFFOLD's controls


@pytest.mark.parametrize(
    "policy,codec,participation,weighting",
    sampled(
        SYNC,
        ["fp32", "bf16", "int8", "int4", "fp8", "sign", "sparse", "randomk", "lowrank"],
        [1.0, 0.6],
        ["samples", "uniform"],
        fits=lambda policy, codec, share, _: (
            fits("scaffold", policy, codec) and (policy != "gwpf-released" or share == 1)
        ),
    ),
)
def test_the_servers_control_is_the_mean_of_all_clients_controls(
    policy, codec, participation, weighting
):
    """c = (1/N) sum of c_i over all N clients, whatever is left out, coded away or kept silent."""
    tree = BASE | {
        "algorithm": {"name": "scaffold", "controls": "option-2", "weighting": weighting},
        "participation": participation,
        "sync": SYNC[policy],
        "codec": CODEC[codec],
    }
    assert_mean_of_controls(ranks(2).run(law_jobs.controls, tree, ROUNDS))


def assert_mean_of_controls(results):
    """c = (1/N) sum of c_i on every rank, and there are controls to put it to a test."""
    clients = {c: own for result in results for c, own in result["clients"].items()}
    terms = np.array([*clients.values()]) / BASE["clients"]
    assert np.abs(terms).max() > 1e-3, "no client has a control: the law was not put to a test"
    # each of the rounds adds to both sides, and rounds
    rounding = bounds.of_sums(2 * ROUNDS * len(clients), np.abs(terms).sum(axis=0).max())
    for result in results:
        assert np.abs(result["server"] - terms.sum(axis=0)).max() < rounding


@pytest.mark.parametrize("policy", ["apf", "gwpf"])
def test_option_1_keeps_the_law_under_freezing_too(policy):
    tree = BASE | {
        "algorithm": {"name": "scaffold", "controls": "option-1"},
        "sync": SYNC[policy],
    }
    results = ranks(2).run(law_jobs.controls, tree, ROUNDS)
    assert results[0]["labelled"] > 0, "nothing froze: the law was not put to a test"
    assert_mean_of_controls(results)


@pytest.mark.parametrize(
    "policy,controls", sampled(["full", "gwpf", "cmfl"], ["option-1", "option-2"])
)
def test_the_controls_of_clients_that_step_by_adam_keep_the_law_too(policy, controls):
    tree = BASE | {
        "algorithm": {"name": "scaffold", "controls": controls, "server": {"name": "yogi"}},
        "optimizer": {"name": "adam", "state": "keep"},
        "participation": 0.6,
        "sync": SYNC[policy],
    }
    assert_mean_of_controls(ranks(2).run(law_jobs.controls, tree, ROUNDS))


@pytest.mark.parametrize("policy", ["gwpf", "streaming", "gaia"])
def test_controls_stay_in_proportion_where_clients_train_on_from_their_own_values(policy):
    """What a client kept apart before this turn is no gradient of this turn."""
    tree = BASE | {"algorithm": {"name": "scaffold"}, "model": {"name": "softmax"}}
    own = SYNC[policy] | ({"significance": 0.5} if policy == "gaia" else {})
    full, apart = (
        ranks(1).run(law_jobs.controls, tree | {"sync": sync}, 40)[0]["clients"]
        for sync in (SYNC["full"], own)
    )
    size = {
        n: max(np.abs(c).max() for c in each.values()) for n, each in (("f", full), ("a", apart))
    }
    assert 0 < size["a"] < 3 * size["f"]


def test_thawed_coordinates_keep_their_gradient_under_option_1():
    tree = BASE | {
        "algorithm": {"name": "scaffold", "controls": "option-1"},
        "sync": SYNC["gwpf"] | {"quorum": 0.2, "thaw_threshold": 0.1},
    }
    result = ranks(1).run(law_jobs.controls, tree, ROUNDS)[0]
    plain = ranks(1).run(law_jobs.controls, tree | {"sync": SYNC["full"]}, ROUNDS)[0]
    for client, control in result["clients"].items():
        # pixels that are always black have no gradient, with or without freezing
        zero = (control == 0) & (plain["clients"][client] != 0)
        assert zero.mean() < 0.01


# ------------------------------------------------------------------ residuals


@pytest.mark.parametrize(
    "policy,codec,participation",
    sampled(
        [
            *("full", "apf", "gwpf", "gwpf-riding", "apf-rows", "gwpf-rows"),
            *("streaming", "gaia", "cmfl"),
        ],
        [
            *("fp32", "bf16", "bf16-feedback", "int8", "int4", "fp8"),
            *("sign", "sparse", "randomk", "lowrank"),
            *("lowrank-ahead", "sparse-ahead", "randomk-ahead"),
        ],
        [1.0, 0.6],
        fits=lambda policy, codec, _: (
            fits("fedavg", policy, codec)
            and (policy == "gaia" or codec not in ("fp32", "bf16"))
            and (policy == "full" or not codec.endswith("-ahead"))  # a silent offer holds all, too
        ),
    ),
)
def test_what_was_sent_and_what_is_kept_is_what_was_offered(policy, codec, participation):
    """For each client, over all rounds: sum of sent + residual = sum of the updates it offered.

    Offered is what the mask lets through. A client that CMFL silences forgets its update, and so
    does the law; Gaia's clients, and those a step ahead, train on from their residual, so each
    offer contains it.
    """
    tree = BASE | {
        "sync": SYNC[policy],
        "codec": CODEC[codec],
        "participation": participation,
    }
    rows = {
        client: row
        for result in ranks(2).run(law_jobs.accounted, tree, ROUNDS)
        for client, row in result.items()
    }
    largest = 0.0
    for row in rows.values():
        magnitude = np.abs(row["offered"]).max() + np.abs(row["held"]).max()
        rounding = bounds.of_sums(3 * ROUNDS, magnitude)
        if policy == "gaia" or codec.endswith("-ahead"):  # the last offer has all that is left
            assert np.abs(row["held"] - row["last"]).max() < rounding
        else:
            assert np.abs(row["sent"] + row["held"] - row["offered"]).max() < rounding
        largest = max(largest, np.abs(row["held"]).max())
    assert largest > 0, "nothing was lost: the law was not put to a test"
    assert policy != "cmfl" or any(row["silent"] for row in rows.values()), "nobody was silent"


# ------------------------------------------------------------------ the store


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": {"name": "scaffold"}, "sync": SYNC["gwpf"], "codec": CODEC["int8"]},
        {"sync": SYNC["gaia"], "optimizer": {"momentum": 0.9, "state": "keep"}},
        {"algorithm": {"name": "scaffold"}, "codec": CODEC["lowrank"]},
        {"sync": SYNC["streaming"], "codec": CODEC["int4"]},
    ],
    ids=["scaffold-gwpf-int8", "gaia-momentum", "scaffold-lowrank", "streaming-int4"],
)
def test_records_in_files_give_the_same_bits_as_records_in_memory(size, changes, tmp_path):
    tree = BASE | {"participation": 0.6} | changes
    held = ranks(size).run(law_jobs.stored, tree, ROUNDS, str(tmp_path / "held"))
    filed = ranks(size).run(
        law_jobs.stored, tree | {"client_memory": 0}, ROUNDS, str(tmp_path / "filed")
    )
    for a, b in zip(held, filed, strict=True):
        assert np.array_equal(a["anchor"], b["anchor"])
        assert a["accuracy"] == b["accuracy"]
        assert a["most"] > 0 and b["most"] == 0, "at the end of a round all records are in files"
        assert a["filed"] == 0 and b["filed"] > 0
        assert b["together"] == 1, "without a budget one record is in memory at a time"
        assert not b["left"], "a run that has ended leaves no file behind"


def test_what_clients_keep_moves_with_them():
    tree = BASE | {"participation": 0.6, "algorithm": {"name": "scaffold"}}
    dealt = ranks(2).run(law_jobs.stored, tree, 2 * ROUNDS, "")
    fixed = ranks(2).run(law_jobs.stored, tree | {"placement": "fixed"}, 2 * ROUNDS, "")
    assert sum(result["moved"] for result in dealt) > 0
    assert sum(result["moved"] for result in fixed) == 0
    size = np.abs(dealt[0]["anchor"]).max()
    # only the order of sums differs: over clients, in each round, then through the local steps
    bound = bounds.of_sums(2 * ROUNDS * (BASE["clients"] + 3 * 32), size)
    assert np.abs(dealt[0]["anchor"] - fixed[0]["anchor"]).max() < bound


# ------------------------------------------------------------------ memory


@pytest.mark.parametrize(
    "algorithm,policy,codec", sampled(ALGORITHMS, ["full", "apf"], ["fp32", "int8"])
)
def test_a_message_waits_only_for_a_vote(algorithm, policy, codec):
    tree = BASE | {"sync": SYNC[policy], "codec": CODEC[codec], "algorithm": {"name": algorithm}}
    assert ranks(1).run(law_jobs.waiting, tree, 4) == [0]


def test_momentum_that_clients_keep_makes_no_message_wait():
    tree = BASE | {"optimizer": {"momentum": 0.9, "state": "keep"}, "sync": SYNC["gwpf"]}
    assert ranks(1).run(law_jobs.waiting, tree, ROUNDS) == [0]


def test_a_message_that_is_only_added_up_waits_for_no_vote_either():
    assert ranks(1).run(law_jobs.waiting, BASE | {"sync": SYNC["gwpf"]}, ROUNDS) == [0]
    coded = BASE | {"sync": SYNC["gwpf"], "codec": CODEC["int8"]}
    assert ranks(1).run(law_jobs.waiting, coded, ROUNDS) == [BASE["clients"]]
    riding = BASE | {"sync": SYNC["gwpf-riding"], "codec": CODEC["int8"]}
    assert ranks(1).run(law_jobs.waiting, riding, ROUNDS) == [0], "it decides in the next round"
