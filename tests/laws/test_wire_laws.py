"""Laws of the books: bytes counted are bytes handed to torch, payload is what clients upload."""

import pytest

from tests import jobs, law_jobs, message_jobs
from tests.laws.test_state_laws import BASE, CODEC, SYNC, fits
from tests.names import ALGORITHMS
from tests.products import sampled
from tests.ranks import ranks

ROUNDS = 4


@pytest.mark.parametrize(
    "algorithm,policy,codec,size",
    sampled(
        ALGORITHMS,
        SYNC,
        ["fp32", "bf16", "int8", "int4", "fp8", "sign", "sparse", "randomk", "lowrank"],
        [2, 3],
        fits=lambda algorithm, policy, codec, _: fits(algorithm, policy, codec),
    ),
)
def test_counted_bytes_are_those_handed_to_torch(algorithm, policy, codec, size, tmp_path):
    tree = BASE | {
        "algorithm": {"name": algorithm},
        "sync": SYNC[policy],
        "codec": CODEC[codec],
        "participation": 1.0 if policy == "gwpf-released" else 0.6,
    }
    results = ranks(size).run(law_jobs.handed_over, tree, ROUNDS, str(tmp_path))
    for result in results:
        assert result["counted"] == result["handed"] > 0
        for kind, total in result["total"].items():
            assert sum(other["payload"][kind] for other in results) == total
        assert sum(result["rank_samples"]) == result["samples"]
        assert min(result["idle"]) >= 0
    # before it was watched a run only makes sure that all ranks are there
    assert sum(result["handed"] for result in results) == results[0]["ledger"]


@pytest.mark.parametrize("codec,alone", [("fp32", 1), ("int8", 2)])
def test_votes_that_ride_take_no_collective_of_their_own(codec, alone):
    """An fp32 exchange with votes is one of owners, too: a ring cannot add a few bits."""
    tree = BASE | {"codec": CODEC[codec], "placement": "fixed"}  # no records move
    for policy, voted in (("gwpf", alone + 2), ("gwpf-riding", 2)):
        for rows in ranks(2).run(law_jobs.collectives, tree | {"sync": SYNC[policy]}, ROUNDS):
            assert any(labelled for labelled, _ in rows), "nothing froze"
            assert [calls for _, calls in rows] == [
                voted if labelled else alone for labelled, _ in rows
            ]


@pytest.mark.parametrize(
    "policy,codec", sampled(SYNC, CODEC, fits=lambda policy, codec: fits("fedavg", policy, codec))
)
def test_payload_does_not_depend_on_who_trains_whom(policy, codec, tmp_path):
    tree = BASE | {"sync": SYNC[policy], "codec": CODEC[codec]}
    payloads = [
        ranks(size).run(law_jobs.payload, tree | {"placement": placement}, ROUNDS)[0]
        for size, placement in ((1, "dealt"), (2, "dealt"), (4, "fixed"))
    ]
    for other in payloads[1:]:
        for kind, size in payloads[0].items():
            # fp32 sums in another order: a choice within rounding of its threshold may differ
            exact = codec not in ("fp32", "randomk") or policy in ("full", "cmfl")
            assert other[kind] == (size if exact else pytest.approx(size, rel=0.002))


@pytest.mark.parametrize(
    "changes,norm",
    [
        ({"codec": CODEC["int8"], "sync": SYNC["gwpf"]}, False),
        ({"evaluation": {"bn_batches": 4}}, True),
        ({"parallel": {"pipeline": 2}}, False),
    ],
    ids=["gwpf", "batch norm", "pipeline"],
)
def test_the_last_row_has_all_that_a_run_has_sent(changes, norm, tmp_path):
    """Also what is sent for the model that it saves: statistics, and the stages of a pipeline."""
    tree = BASE | {"rounds": 2} | changes
    results = ranks(2).run(jobs.sent_in_a_life, tree, str(tmp_path), norm)
    assert sum(own for own, _ in results) == results[0][1] > 0


@pytest.mark.parametrize(
    "algorithm,policy,codec", sampled(ALGORITHMS, SYNC, CODEC, fits=lambda *case: fits(*case))
)
def test_payload_is_what_the_clients_messages_hold(algorithm, policy, codec):
    """Each message written out: values and scales, bits or numbers of places, ballots, silence."""
    tree = BASE | {
        "algorithm": {"name": algorithm},
        "sync": SYNC[policy],
        "codec": CODEC[codec],
        "participation": 1.0 if policy == "gwpf-released" else 0.6,
    }
    (result,) = ranks(1).run(message_jobs.written, tree, 2 * ROUNDS)
    written, payload = result["written"], result["payload"]
    # a list of blocks and their values travel in one piece, which the books tell apart
    assert sum(written.values()) == sum(payload.values()) > 0
    assert written.get("control") == payload.get("control")
    assert result["reconcile"].get("reconcile", 0) == 4 * BASE["clients"] * result["apart"]
