"""Laws of Gaia and CMFL, whose clients choose what they upload, on real gloo processes.

Each round of a run is done a second time here, in numpy, from the papers' formulas.
"""

from itertools import pairwise

import numpy as np
import pytest

from tests import bounds
from tests.jobs import history
from tests.ranks import once, ranks
from tests.uploads import uploads

BASE = {
    "seed": 7,
    "clients": 5,
    "data": {"partition": {"name": "dirichlet", "alpha": 1.0}},
    "schedule": {"batch_size": 32, "phases": [{"steps": 3}]},
}
GAIA = {"name": "gaia", "significance": 0.1, "decay_rounds": 3}
CMFL = {"name": "cmfl", "relevance": 0.66, "decay_rounds": 50}
ROUNDS = 8


def rounds(size: int, sync: dict[str, object], number: int = ROUNDS, like=None, **changes: object):
    """Each round as rank 0 saw it, with the clients of all ranks."""
    tree = BASE | {"sync": sync} | changes
    if like is None:
        all_ranks = once(size, uploads, tree, number)
    else:
        all_ranks = ranks(size).run(uploads, tree, number, like)
    for rows in zip(*all_ranks, strict=True):
        everyone = {c: row for rank in rows for c, row in rank["clients"].items()}
        yield rows[0] | {"clients": dict(sorted(everyone.items())), "ranks": rows}


# ------------------------------------------------------------------ Gaia


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gaia_sends_and_keeps_what_the_papers_formula_says(momentum):
    algorithm = {"name": "fedavg", "server": {"momentum": momentum}}
    buffer, left_out = 0.0, 0
    for t, row in enumerate(rounds(2, GAIA, algorithm=algorithm), start=1):
        threshold = np.float32(GAIA["significance"] / np.sqrt(1 + (t - 1) / 3))
        mean, union = np.zeros_like(row["anchor"], float), np.zeros(row["anchor"].size, bool)
        values = index = 0
        for client in row["clients"].values():
            significant = np.abs(client["update"]) > threshold * np.abs(row["before"])
            assert np.array_equal(client["sent"], np.where(significant, client["update"], 0))
            assert client["values"] == significant.sum()
            mean += client["weight"] * client["sent"].astype(float)
            union |= significant
            values += 4 * int(significant.sum())
            index += min(-(-significant.size // 8), 4 * int(significant.sum()))
        buffer = momentum * buffer + mean
        expected = row["before"] - np.where(union, buffer, 0)
        # one sum: over the clients, the momentum buffers of the rounds before, and the model
        rounding = bounds.of_sums(len(row["clients"]) + t + 1, np.abs(row["before"]).max())
        assert np.abs(expected - row["anchor"]).max() < rounding
        assert np.array_equal(row["anchor"][~union], row["before"][~union])
        assert np.array_equal(row["mask"], union)
        left_out += int((~union).sum())
        assert (row["payload"]["values"], row["payload"]["votes"]) == (values, index)
        assert row["wire"]["values"] == 2 * 4 * int(union.sum())
    assert left_out > 1000, "every client sent nearly everything: the law was not put to a test"


def test_gaia_loses_nothing_that_it_does_not_send():
    """For each client: what it sent and what it still holds is what its training did."""
    sent, trained, rows = {}, {}, list(rounds(2, GAIA, participation=0.6))
    for row in rows:
        for client, own in row["clients"].items():
            trained[client] = trained.get(client, 0) + own["start"] - own["end"]
            sent[client] = sent.get(client, 0) + own["sent"].astype(float)
    last = {c: own for row in rows for c, own in row["clients"].items()}
    for client, own in last.items():
        residual = own["update"].astype(float) - own["sent"]
        assert np.abs(residual).max() > 0
        # in each round the client subtracts two models and adds what it still held
        rounding = bounds.of_sums(2 * ROUNDS, np.abs(own["start"]).max())
        assert np.abs(sent[client] + residual - trained[client]).max() < rounding


def test_gaia_goes_on_from_what_a_client_has_not_sent():
    rows, residual = list(rounds(2, GAIA)), {}
    for row in rows:
        for client, own in row["clients"].items():
            start = row["before"] - residual.get(client, np.float32(0))
            assert np.array_equal(own["start"], start.astype(float))
            residual[client] = own["update"] - own["sent"]
    weights = {c: own["weight"] for c, own in rows[-1]["clients"].items()}
    terms = np.array([weights[c] * kept.astype(float) for c, kept in residual.items()])
    rounding = bounds.of_sums(2 * len(terms), np.abs(terms).sum(axis=0).max())
    assert np.abs(rows[-1]["apart"] - terms.sum(axis=0)).max() < rounding


def test_gaia_that_finds_everything_significant_is_full_synchronisation():
    everything = {"name": "gaia", "significance": 0}
    full = once(2, history, BASE, ROUNDS)[0]
    for row, dense in zip(rounds(2, everything), full[1:], strict=True):
        assert np.abs(row["anchor"] - dense["anchor"]).max() < bounds.of_runs(full)
        assert row["apart"].size == 0
        assert row["payload"]["values"] <= dense["payload"]["values"]


def test_gaia_that_finds_nothing_significant_sends_nothing():
    for row in rounds(2, {"name": "gaia", "significance": 1e30}, 3):
        moved = (row["before"] == 0).sum()  # next to nothing, any change is significant
        assert row["count"] <= moved
        values = sum(client["values"] for client in row["clients"].values())
        assert row["payload"]["votes"] == 4 * values  # so few that indices are cheaper than bits
        assert np.array_equal(row["anchor"][row["before"] != 0], row["before"][row["before"] != 0])


# ------------------------------------------------------------------ CMFL


@pytest.mark.parametrize("codec,value", [("fp32", 4), ("bf16", 2)])
def test_cmfl_skips_whom_the_papers_formula_names(codec, value):
    direction, skipped, seen = None, 0, list(rounds(2, CMFL, codec={"name": codec}))
    for t, row in enumerate(seen, start=1):
        threshold = CMFL["relevance"] / np.sqrt(1 + (t - 1) / 50)
        mean, weights, uploading = np.zeros_like(row["anchor"], float), 0.0, 0
        size = np.zeros_like(mean)  # of the terms of the mean
        for client in row["clients"].values():
            u = client["update"]
            relevant = direction is None or np.mean(np.sign(u) == direction) >= threshold
            assert client["values"] == (u.size if relevant else None)
            if relevant:
                mean += client["weight"] * u.astype(float)
                size += client["weight"] * np.abs(u)
                weights, uploading = weights + client["weight"], uploading + 1
        skipped += len(row["clients"]) - uploading
        expected = row["before"] - (mean / weights if uploading else 0)
        rounding = bounds.of_sums(uploading + 2, np.abs(row["before"]).max())
        if codec == "bf16" and uploading:  # rounded when it is sent and when it comes back
            rounding += bounds.of_sums(2, size.max() / weights, bounds.BF16)
        assert np.abs(expected - row["anchor"]).max() < rounding
        assert row["payload"]["values"] == value * u.size * uploading
        assert row["payload"]["control"] == len(row["clients"]) - uploading
        # a ring of two ranks; or half of each message to its owner, and each half back
        expected = 2 * u.size if codec == "fp32" else uploading * u.size // 2 + u.size
        assert row["wire"]["values"] == (value * expected if uploading else 0)
        moved = row["before"] - row["anchor"]
        direction = np.sign(moved) if moved.any() else None
    assert 0 < skipped < len(seen) * 5, "all or none skipped: the law was not put to a test"


def test_cmfl_in_a_round_that_all_skip_leaves_the_model_as_it_is():
    algorithm = {"name": "fedavg", "server": {"momentum": 0.9}}
    seen = list(rounds(2, {"name": "cmfl", "relevance": 1.0}, 4, algorithm=algorithm))
    everybody = [[c["values"] is not None for c in row["clients"].values()] for row in seen]
    assert everybody == [[True] * 5, [False] * 5, [True] * 5, [False] * 5]
    for row in (seen[1], seen[3]):
        assert np.array_equal(row["anchor"], row["before"])
        assert row["payload"]["values"] == row["wire"]["values"] == 0
        assert row["count"] == 0


def test_cmfl_that_asks_for_no_relevance_is_full_synchronisation_bit_for_bit():
    full = once(2, history, BASE, ROUNDS)[0][1:]
    zero = ranks(2).run(history, BASE | {"sync": {"name": "cmfl", "relevance": 0}}, ROUNDS)[0][1:]
    for a, b in zip(full, zero, strict=True):
        assert np.array_equal(a["anchor"], b["anchor"])
        assert a["payload"] == b["payload"]
        assert b["wire"]["control"] == a["wire"]["control"] + 2 * 4 * BASE["clients"]


# ------------------------------------------------------------------ both


@pytest.mark.parametrize("sync", [GAIA, CMFL], ids=["gaia", "cmfl"])
def test_the_choices_do_not_depend_on_the_number_of_ranks(sync):
    """Round by round from the same model and residuals: else a choice within rounding of its
    threshold falls to the other side, and from then on the two are different runs."""
    alone = list(rounds(1, sync))
    for one, four in zip(alone, rounds(4, sync, like=alone), strict=True):
        assert one["payload"] == four["payload"]
        for client, own in one["clients"].items():
            assert np.array_equal(own["sent"], four["clients"][client]["sent"])
        rounding = bounds.of_sums(len(one["clients"]) + 2, np.abs(one["before"]).max())
        assert np.abs(one["anchor"] - four["anchor"]).max() < rounding


@pytest.mark.parametrize("sync", [GAIA, CMFL], ids=["gaia", "cmfl"])
def test_all_ranks_agree_on_the_model_and_count_alike(sync):
    for row in rounds(4, sync, participation=0.8):
        first, *others = row["ranks"]
        for other in others:
            assert np.array_equal(first["anchor"], other["anchor"])
            assert first["total"] == other["total"]
        for kind, total in first["total"].items():
            assert sum(rank["own"][kind] for rank in row["ranks"]) == total


def test_masks_of_gaia_change_from_round_to_round():
    masks = [row["mask"] for row in rounds(2, GAIA)]
    assert all((a != b).any() for a, b in pairwise(masks))
