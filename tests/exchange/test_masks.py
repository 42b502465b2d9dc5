"""What is done by masks without branches, against what torch does with them."""

import math

import pytest
import torch

from trainer.exchange import masks
from trainer.exchange.masks import blank, choose, chunks, gather, indices, scatter

CPU = torch.device("cpu")
PIECE = 64
SIZES = [0, 1, PIECE - 1, PIECE, 3 * PIECE + 5]
SHARES = [0.0, 0.4, 1.0]


@pytest.fixture(autouse=True)
def _pieces(monkeypatch):
    monkeypatch.setattr(masks, "CHUNK", PIECE)


def drawn(size: int, share: float, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Two vectors with values that arithmetic would not keep, and a mask."""
    draws = torch.Generator().manual_seed(size)
    one, other = (torch.randn(size, generator=draws).mul_(9).to(dtype) for _ in range(2))
    if dtype.is_floating_point and size > 4:
        one[:4] = torch.tensor([math.nan, math.inf, -0.0, 1e-42], dtype=dtype)
    return [one, other, torch.rand(size, generator=draws) < share]


def bits(vector: torch.Tensor) -> torch.Tensor:
    return vector.view(torch.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("width", [1, 3, 1000])
def test_pieces_follow_each_other_and_fit(size, width):
    pieces = list(chunks(size, CPU, width))
    assert [place for piece in pieces for place in range(size)[piece]] == list(range(size))
    assert all(piece.stop - piece.start <= max(1, PIECE // width) for piece in pieces)
    assert pieces, "there is something to join even if the vector is empty"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16])
def test_a_choice_has_the_bits_of_what_was_chosen(size, share, dtype):
    one, other, mask = drawn(size, share, dtype)
    expected = torch.where(mask, one, other)
    for out in (torch.empty_like(one), one.clone(), other.clone()):
        choose(mask, one, other, out)
        assert torch.equal(bits(out), bits(expected))
    choose(mask, one, other, out=one)  # in the place of what it is chosen from
    assert torch.equal(bits(one), bits(expected))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", SHARES)
def test_what_is_gathered_is_what_the_mask_selects(size, share):
    vector, _, mask = drawn(size, share)
    assert torch.equal(indices(mask), mask.nonzero()[:, 0])
    values = torch.empty(int(mask.sum()))
    gather(vector, mask, values)
    assert torch.equal(bits(values), bits(vector[mask]))
    back = torch.full((size,), 7.0)
    scatter(values, mask, back)
    assert torch.equal(bits(back), bits(torch.where(mask, vector, 0.0)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", SHARES)
def test_what_is_blank_is_zero_unless_it_is_no_number(size, share):
    """A NaN shows wherever it is, as in a product."""
    vector, _, mask = drawn(size, share)
    expected = vector * mask
    blank(vector, mask, out=vector)
    assert torch.equal(bits(vector), bits(expected))
