"""The few largest values: which they are, where they are, and how many bytes say so."""

from math import ceil, log2

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests import bounds
from trainer.exchange.top_k import TopK, largest, magnitudes

SHAPES = st.tuples(st.floats(1e-3, 1), st.integers(1, 40).map(lambda n: 8 * n))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(SHAPES, st.integers(0, 99), st.sampled_from([1, 2]))
def test_the_largest_values_arrive_where_they_were(shape, seed, levels):
    share, block = shape
    code = TopK(share, block, levels=levels)
    sent = normal(3 * block - 5, seed=seed)
    (data,) = code.encode(sent, (0, len(sent)), ())
    got = code.decode(data, len(sent))
    assert data.numel() == code.size(len(sent))
    for x, y in zip(sent.split(block), got.split(block), strict=True):
        kept = min(len(x), ceil(share * block))
        order = x.abs().argsort(descending=True)[:kept]
        assert torch.equal(y.nonzero()[:, 0], order.sort().values)
        assert torch.equal(y[order].sign(), x[order].sign())
        assert len(y[order].abs().unique()) <= levels


def test_of_equal_values_the_first_are_kept_beside_any_others():
    x = torch.zeros(6, 16)
    x[:, 5:9] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert largest(x, 2).tolist() == [[5, 6]] * 6
    assert largest(x, 6).tolist() == [[0, 1, 5, 6, 7, 8]] * 6
    x[0, 15] = -torch.nan
    assert largest(x, 2).tolist() == [[5, 15], *[[5, 6]] * 5]


def test_more_blocks_than_are_looked_at_together():
    x = normal(700, 1000)
    assert torch.equal(largest(x, 3), torch.cat([largest(row[None], 3) for row in x]))


@given(st.integers(1, 60), st.integers(0, 99))
def test_two_magnitudes_lose_less_than_one(count, seed):
    kept = normal(1, count, seed=seed).abs()
    mean, above = magnitudes(kept, 1)
    levels, same = magnitudes(kept, 2)
    assert torch.equal(above, same)
    assert levels[0, 0] <= mean[0, 0] and (levels[0, 1] >= mean[0, 0] or not above.any())
    one = (kept - mean.float()).square().sum()
    two = (kept - levels.float().gather(1, above.long())).square().sum()
    assert two <= one + bounds.BF16**2 * kept.square().sum() + bounds.of_sums(
        count, kept.max() ** 2
    )


@pytest.mark.parametrize("block", [64, 256, 1024, 4096])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.25, 0.5, 1.0])
def test_places_cost_little_more_than_they_must(share, block):
    """Never more than a bit for each value. All choices of k of n would need log2(n over k) bits:
    within 0.65 bits of that for each place, and the bits that fill bytes up."""
    code = TopK(share, block, levels=1)
    k = ceil(share * block)
    assert code.index <= block // 8
    terms = [log2(block - i) - log2(i + 1) for i in range(k)]
    assert 8 * code.index < sum(terms) + 0.65 * k + 24 or code.index == block // 8
    assert code.cost([], 3 * block) == (3 * (2 + ceil(k / 8)), 3 * code.index)


def test_the_default_costs_what_its_page_says():
    up, down = (TopK(0.05, 1024, levels=levels) for levels in (1, 2))
    assert (up.row, down.row) == (50, 59)
