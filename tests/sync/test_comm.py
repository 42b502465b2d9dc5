"""The exchange: lanes, quorums, owners that sum; on real ranks where ranks matter."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import bounds, jobs
from tests.ranks import ranks
from trainer.sync.comm import lane_bits, pack, unpack


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


@pytest.mark.parametrize("codec", ["fp32", "bf16"])
@pytest.mark.parametrize("count", [1, 3, 1001])
def test_sums_are_the_same_bits_on_every_rank(codec, count):
    answers = ranks(4).run(jobs.summed, codec, count)
    terms = np.array([vector.astype(float) for vector, _ in answers])
    first = answers[0][1]
    assert all(np.array_equal(first, result) for _, result in answers)
    # bf16 rounds twice, each term and the sum; what adds up in between is float32
    rounding = 2 * bounds.BF16 if codec == "bf16" else len(terms) * bounds.FP32
    assert (np.abs(first - terms.sum(axis=0)) <= rounding * np.abs(terms).sum(axis=0) * 1.01).all()


def test_ranks_notice_that_they_disagree():
    assert ranks(2).run(jobs.agreement, True) == [True, True]
    assert ranks(2).run(jobs.agreement, False) == [False, False]
