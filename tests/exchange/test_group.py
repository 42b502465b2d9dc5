"""Small agreements of ranks: lanes, votes, digests; on real ranks if ranks matter."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import jobs
from tests.ranks import ranks
from trainer.exchange.lanes import lane_bits, pack, unpack


@given(st.sampled_from([1, 2, 4, 8, 32]), st.data())
def test_unpack_inverts_pack(bits, data):
    most = min(2**bits - 1, 2**31 - 1)
    lanes = 8 // min(bits, 8)
    counts = data.draw(st.lists(st.integers(0, most), min_size=0, max_size=5 * lanes))
    counts = torch.tensor(counts[: len(counts) // lanes * lanes], dtype=torch.int32)
    packed = pack(counts, bits)
    assert packed.numel() * 8 == counts.numel() * bits
    assert torch.equal(unpack(packed, bits).to(torch.int32), counts)


@pytest.mark.parametrize(
    "most,bits", [(1, 1), (2, 2), (3, 2), (4, 4), (15, 4), (255, 8), (256, 32)]
)
def test_lanes_are_as_narrow_as_they_may_be(most, bits):
    assert lane_bits(most) == bits


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("most", [1, 3, 300])
@pytest.mark.parametrize("count", [1, 37, 1000])
def test_a_vote_counts_every_client_of_every_rank(size, most, count):
    answers = ranks(size).run(jobs.vote, count, most, 2)
    total = sum(votes for votes, _ in answers)
    for _, decided in answers:
        assert np.array_equal(decided, total >= 2)


def test_ranks_notice_that_they_disagree():
    assert ranks(2).run(jobs.agreement, True) == [True, True]
    assert ranks(2).run(jobs.agreement, False) == [False, False]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_bytes_reach_rank_0_and_are_counted(size):
    answers = ranks(size).run(jobs.told_first)
    assert answers[0][0] == [b"x" * (1000 * rank) for rank in range(size)]
    assert all(received == [] for received, _ in answers[1:])
    ring = sum(wire for _, wire in answers) - sum(1000 * rank for rank in range(size))
    assert ring == 2 * (size - 1) * 8 * size  # of the lengths, one float64 for each rank
