"""Laws of Streaming DiLoCo's fragments, on real gloo processes."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests import bounds, optimizer_jobs, pipeline_jobs
from tests.jobs import final_model, history
from tests.products import sampled
from tests.ranks import ranks

OUTER = {"name": "fedavg", "server": {"lr": 0.7, "momentum": 0.9, "nesterov": True}}
BASE: dict[str, Any] = {
    "seed": 9,
    "clients": 4,
    "data": {"partition": {"name": "dirichlet", "alpha": 1.0}},
    "schedule": {"batch_size": 32, "phases": [{"steps": 2}]},
}
PATTERNS = ["strided", "sequential"]


def streaming(fragments: int, pattern: str = "strided") -> dict[str, Any]:
    # with one fragment there is nothing to stride over
    return {"sync": {"name": "streaming", "fragments": fragments, "pattern": pattern}}


@pytest.mark.parametrize("codec", ["fp32", "int8"])
def test_one_fragment_is_full_synchronisation_bit_for_bit(codec):
    tree = BASE | {"algorithm": OUTER, "codec": {"name": codec}, "participation": 0.5}
    full, one = (ranks(2).run(history, t, 5)[0] for t in (tree, tree | streaming(1)))
    for a, b in zip(full, one, strict=True):
        assert np.array_equal(a["anchor"], b["anchor"])
        assert a.get("payload") == b.get("payload") and a.get("wire") == b.get("wire")


@pytest.mark.parametrize("pattern,fragments", sampled(PATTERNS, [2, 3, 8]))
def test_every_parameter_travels_once_in_as_many_rounds_as_there_are_fragments(pattern, fragments):
    rows = ranks(2).run(history, BASE | streaming(fragments, pattern), 2 * fragments)[0]
    size = rows[0]["anchor"].size
    for first in (1, 1 + fragments):
        turn = rows[first : first + fragments]
        assert (sum(row["mask"].astype(int) for row in turn) == 1).all()
        sent = [row["payload"]["values"] for row in turn]
        assert sum(sent) == turn[0]["dense"]  # of a round of DiLoCo with so many times the steps
        assert max(sent) <= BASE["clients"] * 4 * -(-size // fragments)  # the peak, an F-th of it
    for before, after in pairwise(rows):
        off = ~after["mask"]
        assert np.array_equal(before["anchor"][off], after["anchor"][off])
        assert (after["labelled"], after["thawed"]) == (off.sum(), 0)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_between_two_exchanges_a_client_trains_as_if_there_were_none(pattern):
    """A client alone: what the server takes over is what training without rounds has there."""
    alone = BASE | bounds.DOUBLE | {"clients": 1}
    full = ranks(1).run(history, alone, 7)[0]
    for row, expected in zip(
        ranks(1).run(history, alone | streaming(3, pattern), 7)[0][1:], full[1:], strict=True
    ):
        mask = row["mask"]
        assert np.abs(row["anchor"] - expected["anchor"])[mask].max() < bounds.of_runs(full)
        assert np.abs(row["anchor"] - expected["anchor"])[~mask].max() > 1e-6


def test_a_fragments_outer_steps_are_those_of_diloco():
    """x_p and its momentum buffer from what travelled alone, in numpy: a step for each turn."""
    tree = BASE | {"algorithm": OUTER} | streaming(3)
    rows = ranks(2).run(optimizer_jobs.server_states, tree, 9)[0]
    plain = OUTER["server"]
    for first in range(3):
        turns = [first + 1, first + 4, first + 7]
        mask = rows[turns[0]]["mask"]
        buffer = np.zeros(int(mask.sum()))
        for at in turns:
            assert np.array_equal(rows[at]["mask"], mask)
            before, after = rows[at - 1]["anchor"][mask], rows[at]["anchor"][mask]
            now = rows[at]["state"]["momentum_buffer"][mask].astype(float)
            mean = now - plain["momentum"] * buffer
            expected = before - plain["lr"] * (mean + plain["momentum"] * now)
            rounding = bounds.of_sums(4, np.abs(before).max() + np.abs(now).max())
            assert np.abs(after - expected).max() < rounding
            assert np.abs(mean).max() > 0
            buffer = now
        last = rows[-1]["state"]["momentum_buffer"][mask]
        assert np.array_equal(last, rows[turns[-1]]["state"]["momentum_buffer"][mask])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_result_does_not_depend_on_the_number_of_ranks(pattern):
    tree = BASE | bounds.DOUBLE | {"algorithm": OUTER, "participation": 0.5}
    tree |= streaming(3, pattern)
    alone, two, four = (ranks(n).run(history, tree, 8)[0] for n in (1, 2, 4))
    for other in (two, four):
        assert bounds.apart(alone, other) < bounds.of_runs(alone)
        for a, b in zip(alone[1:], other[1:], strict=True):
            assert a["payload"] == b["payload"] and np.array_equal(a["mask"], b["mask"])


def test_evaluating_the_mean_model_is_evaluating_the_reconciled_one():
    first, *others = ranks(4).run(final_model, BASE | streaming(4), 6)
    assert first["apart"], "no client drifted: the law was not put to a test"
    (accuracy, loss), (right, other) = first["mean"], first["final"]
    assert accuracy == right
    assert loss == pytest.approx(other, rel=bounds.of_sums(first["tested"]))
    for result in others:
        assert np.array_equal(first["anchor"], result["anchor"])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pipelines_fragments_are_those_of_one_device(pattern):
    """Also where a stage has nothing of a fragment; with whole batches no order of sums differs."""
    tree = BASE | {"algorithm": OUTER, "optimizer": {"momentum": 0.9}} | streaming(4, pattern)
    results = ranks(4).run(pipeline_jobs.trained, tree | {"parallel": {"pipeline": 4}}, 6)
    (alone,) = ranks(1).run(pipeline_jobs.trained, tree, 6)
    assert np.array_equal(np.concatenate([result["own"] for result in results]), alone["own"])
    assert results[0]["payload"] == alone["payload"]
    for name, values in alone["model"].items():
        assert np.array_equal(results[0]["model"][name], values)
