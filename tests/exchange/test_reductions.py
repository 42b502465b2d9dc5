"""Reductions on real ranks: the same bits everywhere, near the mean, whoever trains whom."""

import numpy as np
import pytest

from tests import bounds
from tests.exchange.messages import NORMS, WEIGHTS, exchanged, values
from tests.products import sampled
from tests.ranks import ranks

ALL = ["fp32", "fp32, thin", "bf16", "bf16, thin", "int8", "int8, thin", "int4", "fp8", "sign"]
ALL += ["sparse", "randomk", "randomk, int8"]
WHOLE = ["sign", "sparse"]  # formats of which no values are left out
ADDED = ["fp32", "fp32, thin", "randomk"]  # by a collective, in its order
CODED = [name for name in ALL if name not in ADDED + WHOLE]


def exact(name: str, count: int, clients: int = len(WEIGHTS)) -> dict[str, np.ndarray]:
    """The means by definition, in float64: by weight, and 1/8 of each for the control."""
    sent = [values(client, count, "thin" in name) for client in range(clients)]
    total = sum(WEIGHTS[:clients])
    by_weight = [weight / total for weight in WEIGHTS[:clients]]
    factors = {"delta": by_weight, "control": [1 / 8] * clients, "buffers": by_weight}
    return {
        name: sum(f * v[name].double().numpy() for f, v in zip(own, sent, strict=True))
        for name, own in factors.items()
    }


def allowed(name: str, largest: float, codings: int = 1) -> float:
    """How far a mean of values up to `largest` may be off, after so many codings of each."""
    coding = {
        "fp32": 0.0,
        "bf16": bounds.BF16,
        "int8": (1 + 2.0**-7) / 254,  # half a step; a scale is rounded up to the next bf16
        "int4": (1 + 2.0**-7) / 14,
        "fp8": 1 / 16,
        "randomk": 1.0,  # a value that is not chosen counts as zero
        "sparse": 1.0,  # so does one that is not among the largest
        "sign": 1.0,  # the mean magnitude of a block, in place of any
    }[name.split(",")[0]]
    return codings * coding * largest + bounds.of_sums(len(WEIGHTS), largest)


@pytest.mark.parametrize("name,count", sampled(ALL, [1, 3, 1001], times=2))
def test_means_are_the_same_bits_on_every_rank(name, count):
    answers = ranks(4).run(exchanged, name, count)
    expected, first = exact(name, count), answers[0]["mean"]
    for answer in answers:
        assert {n: v.tobytes() for n, v in answer["mean"].items()} == {
            n: v.tobytes() for n, v in first.items()
        }
    codings = {
        "delta": 2,
        "control": 1,
        "buffers": 0,
    }  # the mean itself is coded; exact vectors not
    for vector, mean in first.items():
        sent = [values(client, count, "thin" in name)[vector] for client in range(len(WEIGHTS))]
        most = max(float(value.abs().max()) for value in sent)
        assert np.abs(mean - expected[vector]).max() <= allowed(name, most, codings[vector])


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("share", [None, 0.5, 0.0])
def test_no_bit_of_a_coded_mean_depends_on_the_number_of_ranks(name, share):
    one, *others = (ranks(size).run(exchanged, name, 1001, share)[0] for size in (1, 2, 4))
    for other in others:
        for vector, mean in one["mean"].items():
            assert np.array_equal(mean, other["mean"][vector]), vector


@pytest.mark.parametrize(
    "name,share", [(name, s) for name in ALL for s in (None, 0.5, 0.0)[: 1 if name in WHOLE else 3]]
)
def test_a_mean_is_that_of_what_the_others_are_reported_to_have_got(name, share):
    answers = ranks(2).run(exchanged, name, 1001, share)
    sent = answers[0]["sent"] | answers[1]["sent"]
    assert sorted(sent) == list(range(len(WEIGHTS)))
    for vector, factors, codings in (
        ("control", [1 / 8] * len(WEIGHTS), 0),  # comes back as it was added up
        ("delta", WEIGHTS, 1),
    ):
        got = [sent[client][vector].astype(np.float64) for client in range(len(WEIGHTS))]
        mean = sum(factor * values for factor, values in zip(factors, got, strict=True))
        most = max(np.abs(values).max() for values in got)
        off = np.abs(answers[0]["mean"][vector] - mean).max()
        assert off <= allowed(name, most, codings), vector
    off = ~answers[0]["mask"]
    assert off.all() == (share == 0) and off.any() == (share is not None)
    for vector in ("delta", "control"):
        assert not answers[0]["mean"][vector][off].any()


@pytest.mark.parametrize("name,clients", sampled(ALL, [0, 1, 5]))
def test_a_rank_that_has_to_stop_is_known_to_all(name, clients):
    """Also one that trains none of the round's clients, and if nobody sends anything."""
    for stopping in (-1, 0, 3):
        answers = ranks(4).run(exchanged, name, 100, None, stopping, clients)
        assert [answer["stop"] for answer in answers] == [stopping >= 0] * 4
        for answer in answers:
            assert any(mean.any() for mean in answer["mean"].values()) == (clients > 0)


@pytest.mark.parametrize(
    "name,size,voters", sampled(ALL, [1, 2, 3], [(5, 1), (5, 77), (1, 500)], times=2), ids=str
)
def test_votes_that_ride_are_counted_and_change_no_value(name, size, voters):
    """Also of ranks without a client of the round, and with a rank that has to stop."""
    clients, items = voters
    plain = ranks(size).run(exchanged, name, 1001, 0.5, size - 1, clients)
    voted = ranks(size).run(exchanged, name, 1001, 0.5, size - 1, clients, items)
    total = sum(answer["votes"] for answer in voted)
    assert items < 70 or (total >= 3).any() or size == 1
    for before, answer in zip(plain, voted, strict=True):
        assert before["decided"] is None
        assert np.array_equal(answer["decided"], total >= 3)
        assert before["stop"] and answer["stop"]
        assert before["payload"] == answer["payload"]
        for vector, mean in answer["mean"].items():
            assert mean.tobytes() == voted[0]["mean"][vector].tobytes()
            if name in CODED:
                assert np.array_equal(mean, before["mean"][vector])
            else:  # a ring adds the ranks in another order
                most = np.abs(mean).max(initial=1.0)
                assert np.abs(mean - before["mean"][vector]).max() < bounds.of_sums(clients, most)
    share = -(-items // (8 * size)) * 8  # of an owner, at two bits a count and one a decision
    for kind, count in voted[0]["wire"].items():
        here, there = (sum(answer["wire"][kind] for answer in rows) for rows in (voted, plain))
        votes = size * (size - 1) * (share // 4 + share // 8) if kind == "votes" else 0
        assert here == there + votes, kind
        assert count >= 0


@pytest.mark.parametrize(
    "name,own",
    [
        ("fp32", 2 * 4 * 1001),
        ("bf16", 2 * 2 * 1001),
        ("int8", 2 * 16 * 66),
        ("int4", 2 * 16 * 34),
        ("fp8", 2 * 16 * 66),
        ("sign", 2 * 16 * 10),
        ("randomk", 2 * 4 * 51),
        ("randomk, int8", 2 * 66),
    ],  # ceil(1001 / 64): 16
)
def test_payload_is_what_clients_send_and_does_not_depend_on_the_number_of_ranks(name, own):
    for size in (1, 2, 4):
        answers = ranks(size).run(exchanged, name, 1001)
        assert sum(a["payload"]["values"] for a in answers) == len(WEIGHTS) * own
        assert sum(a["payload"]["buffers"] for a in answers) == len(WEIGHTS) * 4 * NORMS
        assert sum(a["formed"] for a in answers) == (name not in ADDED) * len(WEIGHTS)
        assert (sum(sum(a["wire"].values()) for a in answers) > 0) == (size > 1)


def test_a_thin_message_costs_what_it_holds():
    thin, dense = (ranks(2).run(exchanged, name, 1001) for name in ("fp32, thin", "fp32"))
    held = sum(int(values(c, 1001, True)["delta"].count_nonzero()) for c in range(len(WEIGHTS)))
    control = len(WEIGHTS) * 4 * 1001
    assert sum(a["payload"]["values"] for a in thin) == 4 * held + control
    assert sum(a["payload"]["votes"] for a in thin) == len(WEIGHTS) * 126  # a bit for each value
    assert sum(a["payload"]["votes"] for a in dense) == 0
