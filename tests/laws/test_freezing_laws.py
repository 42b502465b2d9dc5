"""Laws of partial synchronisation, on real gloo processes.

python -m pytest tests/laws
"""

from itertools import pairwise

import numpy as np
import pytest

from tests import bounds
from tests.jobs import final_model, history
from tests.products import sampled
from tests.ranks import once, ranks

BASE = {
    "seed": 7,
    "clients": 6,
    "data": {"partition": {"name": "dirichlet", "alpha": 1.0}},
    "schedule": {"batch_size": 32, "phases": [{"steps": 3}]},
}
# thresholds at which a short run on the digits freezes and thaws plenty
FREEZING = {
    "apf": {"name": "apf", "threshold": 0.3, "ema": 0.8},
    "apf-sharp": {"name": "apf", "threshold": 0.3, "ema": 0.8, "random": "sharp"},
    "apf-plus": {
        "name": "apf",
        "threshold": 0.3,
        "ema": 0.8,
        "random": "plus",
        "random_probability_ramp": 30,
        "random_length_ramp": 5,
    },
    "apf-aggressive": {
        "name": "apf",
        "threshold": 0.3,
        "ema": 0.8,
        "random": "aggressive",
        "random_probability_ramp": 20,
    },
    "gwpf": {"name": "gwpf", "threshold": 0.3, "ema": 0.8, "quorum": 0.5},
    "apf-staggered": {"name": "apf", "threshold": 0.3, "ema": 0.8, "stagger": True},
    "gwpf-staggered": {
        "name": "gwpf",
        "threshold": 0.3,
        "ema": 0.8,
        "stagger": True,
        "max_frozen_rounds": 3,
    },
    "gwpf-riding": {
        "name": "gwpf",
        "threshold": 0.3,
        "ema": 0.8,
        "quorum": 0.5,
        "votes": "riding",
    },
    "apf-rows": {"name": "apf", "threshold": 0.3, "ema": 0.8, "unit": "row", "random": "sharp"},
    "gwpf-rows": {"name": "gwpf", "threshold": 0.3, "ema": 0.8, "unit": "row"},
    "gwpf-released": {"name": "gwpf-released", "threshold": 0.5, "aliased": False, "ema": 0.8},
}
ROUNDS = 14


def experiment(policy: str, **changes: object) -> dict[str, object]:
    return BASE | {"sync": FREEZING[policy]} | changes


@pytest.mark.parametrize("policy", ["apf", "gwpf"])
def test_threshold_zero_is_full_synchronisation_bit_for_bit(policy):
    full = ranks(2).run(history, BASE, 6)[0]
    zero = ranks(2).run(history, BASE | {"sync": {"name": policy, "threshold": 0}}, 6)[0]
    for a, b in zip(full, zero, strict=True):
        assert np.array_equal(a["anchor"], b["anchor"])
    assert zero[-1]["payload"] == full[-1]["payload"]


@pytest.mark.parametrize("policy", ["apf-sharp", "apf-aggressive"])
def test_random_freezing_with_probability_zero_is_apf_bit_for_bit(policy):
    plain = once(2, history, experiment("apf"), ROUNDS)[0]
    zero = experiment(policy, sync=FREEZING[policy] | {"random_probability": 0})
    for a, b in zip(plain, ranks(2).run(history, zero, ROUNDS)[0], strict=True):
        assert np.array_equal(a["anchor"], b["anchor"])
    assert a["labelled"] > 0


@pytest.mark.parametrize("policy", ["apf-sharp", "apf-plus", "apf-aggressive"])
def test_random_freezing_sends_less_than_apf(policy):
    plain, drawn = (once(2, history, experiment(p), ROUNDS)[0] for p in ("apf", policy))
    sent = [sum(sum(row["payload"].values()) for row in rows[1:]) for rows in (plain, drawn)]
    assert sent[1] < sent[0]


@pytest.mark.parametrize("policy", FREEZING)
def test_all_ranks_agree_on_masks_and_models(policy):
    first, *others = once(4, history, experiment(policy), ROUNDS)
    assert any(row["labelled"] for row in first[1:]), "nothing froze: the law was not put to a test"
    for other in others:
        for a, b in zip(first[1:], other[1:], strict=True):
            assert np.array_equal(a["anchor"], b["anchor"])
            assert np.array_equal(a["frozen"], b["frozen"])
            assert (a["mask"] is None) == (b["mask"] is None)
            assert a["mask"] is None or np.array_equal(a["mask"], b["mask"])


@pytest.mark.parametrize("policy,momentum", sampled(FREEZING, [0.0, 0.9]))
def test_what_is_not_exchanged_does_not_move(policy, momentum):
    server = {"algorithm": {"server": {"momentum": momentum}}} if momentum else {}
    rows = once(4, history, experiment(policy, **server), ROUNDS)[0]
    still = 0
    for before, after in pairwise(rows):
        if after["mask"] is not None:
            out = ~after["mask"]
            still += int(out.sum())
            assert np.array_equal(before["anchor"][out], after["anchor"][out])
    assert still > 0 or policy == "gwpf-released"


@pytest.mark.parametrize("policy", ["apf", "gwpf", "gwpf-riding", "gwpf-released"])
def test_the_first_round_freezes_nothing(policy):
    rows = ranks(2).run(history, experiment(policy), 2)[0]
    assert not rows[1]["frozen"].any()
    assert rows[2]["mask"] is None


@pytest.mark.parametrize("policy,codec", sampled(FREEZING, ["fp32", "bf16"]))
def test_bytes_are_those_of_active_and_thawed_values_and_of_votes(policy, codec):
    coded = {"codec": {"name": codec}} if codec != "fp32" else {}
    rows = once(4, history, experiment(policy, **coded), ROUNDS)[0]
    value = {"fp32": 4, "bf16": 2}[codec]
    size, clients, kind = rows[0]["anchor"].size, BASE["clients"], FREEZING[policy]["name"]
    vote = {"gwpf": lambda f: -(-f // 8), "gwpf-released": lambda f: 4 * f}
    # six clients on four ranks: at most two on one, so counts need two bits; decisions need one
    share = lambda f: -(-f // 32) * 8  # of an owner, in whole bytes  # noqa: E731
    wire = {
        "gwpf": lambda f: 3 * share(f) + 3 * share(f) // 2,
        "gwpf-released": lambda f: 2 * 3 * 4 * f,
    }
    assert any(row["labelled"] for row in rows[1:]), "nothing froze"
    for before, row in pairwise(rows[1:]):
        frozen = int(before["frozen"].sum())  # F, as judged after the round before
        items = before["items"]
        assert items <= frozen if policy.endswith("rows") else items == frozen
        active = size - frozen
        sent = size if row["mask"] is None else int(row["mask"].sum())
        thawed = sent - active
        assert (row["count"], row["thawed"], row["labelled"]) == (sent, thawed, frozen)
        assert row["payload"]["values"] == clients * value * (active + thawed)
        assert row["payload"]["votes"] == clients * vote.get(kind, lambda f: 0)(items)
        assert row["dense"] == clients * 4 * size
        if codec == "fp32":  # a ring all-reduce
            assert row["wire"]["values"] == 2 * 3 * value * sent
        else:  # each client's shares for three other owners, and each owner's share to three ranks
            longest = -(-sent // 4)
            shortest = max(0, sent - 3 * longest)
            up = row["wire"]["values"] - 3 * value * sent
            assert clients * (sent - longest) <= up / value <= clients * (sent - shortest)
        assert row["wire"]["votes"] == wire.get(kind, lambda f: 0)(items)


def test_gwpf_sends_less_than_fedavg_and_its_released_code_never_does():
    def sent(policy):
        rows = once(4, history, experiment(policy), ROUNDS)[0][1:]
        return [(sum(row["payload"].values()), row["dense"]) for row in rows]

    assert sum(p for p, _ in sent("gwpf")) < sum(d for _, d in sent("gwpf"))
    released = sent("gwpf-released")
    assert all(payload >= dense for payload, dense in released)
    assert sum(p for p, _ in released) > sum(d for _, d in released)


def test_evaluating_the_mean_model_is_evaluating_the_reconciled_one():
    for result in ranks(2).run(final_model, experiment("gwpf"), ROUNDS):
        assert result["apart"], "nothing was frozen: the law was not put to a test"
        (accuracy, loss), (right, other) = result["mean"], result["final"]
        assert accuracy == right
        assert loss == pytest.approx(other, rel=bounds.of_sums(result["tested"]))


def test_after_reconciliation_all_ranks_hold_one_model():
    first, *others = ranks(4).run(final_model, experiment("gwpf"), ROUNDS)
    for other in others:
        assert np.array_equal(first["anchor"], other["anchor"])


@pytest.mark.parametrize("stagger", [False, True])
def test_a_frozen_period_ends_at_its_cap(stagger):
    cap = {"max_frozen_rounds": 2, "stagger": stagger}
    sync = FREEZING["gwpf"] | {"quorum": 1.0, "thaw_threshold": 1.0} | cap
    rows = ranks(2).run(history, experiment("gwpf", sync=sync), ROUNDS)[0]
    longest, run = 0, np.zeros(rows[0]["anchor"].size, int)
    for row in rows[1:]:
        run = np.zeros_like(run) if row["mask"] is None else np.where(row["mask"], 0, run + 1)
        longest = max(longest, int(run.max()))
    assert longest == 2  # frozen after round r: out of r + 1 and r + 2, back in r + 3
