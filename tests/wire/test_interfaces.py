"""Bytes in the books are those that a rank's interface transmits, for each policy and format.

An interface counts whole packets. What is around a packet's data is known: 66 bytes, 14 of
Ethernet, 20 of IPv4 and 32 of TCP with its timestamps (bench/pods.py), so it counts packets too,
and the difference is what they carried; acknowledgements carry nothing. On a network whose segments
hold 1,448 bytes each, headers are 4.6 % of the data, and acknowledgements, one for each or for each
second segment, 2.3 to 4.6 %. What is left for the tolerance are gloo's own notes around each piece
of a tensor (48 bytes each, up to three), the lengths to which it rounds the pieces of a ring, empty
barriers, and what is sent after the last row was written.
"""

import pytest

from bench.pods import HEADERS
from tests.laws.test_state_laws import CODEC, SYNC
from tests.names import CODECS, POLICIES
from tests.wire.runs import BASE, run
from trainer.config.errors import ConfigError
from trainer.config.load import load

TOLERANCE = 0.02
SEGMENT = 1448  # bytes of data in a packet of 1,500, which has 52 bytes of IPv4 and TCP
MANY = 65535  # segments that an interface takes in one packet, unless it is told otherwise
LEAST = 1e6  # bytes that a run has to send for the comparison to mean something
FORMATS = {name: CODEC.get(name, {"name": name}) for name in CODECS} | {
    "lowrank": {"name": "lowrank", "rank": 64}  # enough bytes
}
FREEZING = ("apf", "gwpf", "gwpf-released")


def tree(policy: str, codec: str) -> dict:
    """Some clients sit out, and records of others move, where the policy takes that."""
    precision = {"precision": "fp64"} if codec == "fp64" else {}
    return BASE | {
        "sync": SYNC[policy],
        "codec": FORMATS[codec],
        "model": BASE["model"] | precision,
        "participation": 1.0 if policy == "gwpf-released" else 0.8,
    }


def fits(policy: str, codec: str) -> bool:
    """By what the sections of the experiment declare."""
    try:
        load(tree(policy, codec))
    except ConfigError:
        return False
    return True


CASES = [(policy, codec) for policy in POLICIES for codec in CODECS if fits(policy, codec)]


def test_each_policy_and_each_format_is_among_the_cases():
    assert {policy for policy, _ in CASES} == set(POLICIES)
    assert {codec for _, codec in CASES} == set(CODECS)


@pytest.mark.parametrize("policy,codec", CASES)
def test_what_is_counted_is_what_the_interfaces_send(policy, codec, pods, start_up, tmp_path):
    done = run(pods, tree(policy, codec), tmp_path)
    assert done.wire > LEAST
    assert done.stream - start_up == pytest.approx(done.wire, rel=TOLERANCE), done.last[
        "wire_bytes_total"
    ]
    if policy in FREEZING:
        assert any(row["labelled_frozen_ratio"] for row in done.rows), "nothing froze"


@pytest.mark.parametrize("algorithm", ["scaffold", "fedga"])
@pytest.mark.parametrize("codec", ["fp32", "int8", "lowrank"])
def test_so_it_is_for_algorithms_that_send_more_than_one_vector(
    algorithm, codec, pods, start_up, tmp_path
):
    done = run(pods, tree("full", codec) | {"algorithm": {"name": algorithm}}, tmp_path)
    assert done.wire > LEAST
    assert done.stream - start_up == pytest.approx(done.wire, rel=TOLERANCE)


def test_so_it_is_for_a_pipeline(pods, start_up, tmp_path):
    """Activations and their gradients, which torch sends by itself."""
    spread = {
        "clients": 2,
        "parallel": {"pipeline": 3, "microbatches": 2},
        "schedule": {"batch_size": 32, "phases": [{"steps": 4}]},
    }
    done = run(pods, BASE | spread, tmp_path)
    assert done.last["wire_bytes_total"]["pipeline"] > LEAST
    assert done.stream - start_up == pytest.approx(done.wire, rel=TOLERANCE)


def test_headers_are_what_is_said_where_each_segment_has_its_own(pods, tmp_path):
    """The interfaces are told to take single segments, as a network does, in place of many."""
    try:
        pods.most_segments(1)
        done = run(pods, tree("full", "fp32") | {"rounds": 2}, tmp_path)
    finally:
        pods.most_segments(MANY)
    assert HEADERS / SEGMENT < done.framing / done.stream < 2 * HEADERS / SEGMENT
