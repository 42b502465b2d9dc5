"""Formats of what a client sends: what comes back, how many bytes it takes, where it may be cut."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests import bounds
from trainer.exchange.encoders import Blocks, Encoder, Plain, Sparse, index_bytes
from trainer.exchange.float8 import Float8
from trainer.exchange.packing import bitmap, bits
from trainer.exchange.signs import Signs
from trainer.exchange.top_k import TopK

TINY = torch.finfo(torch.float32).tiny
KEY = (1, 2, 3, 0)  # seed, round, client, vector
BLOCK = 8
ENCODERS = {
    "fp32": Plain(torch.float32),
    "fp64": Plain(torch.float64, torch.float64),
    "bf16": Plain(torch.bfloat16),
    "int8": Blocks(BLOCK),
    "int8, unbiased": Blocks(BLOCK, unbiased=True),
    "int4": Blocks(BLOCK, bits=4),
    "int4, unbiased": Blocks(BLOCK, bits=4, unbiased=True),
    "fp8": Float8(BLOCK),
    "fp8, unbiased": Float8(BLOCK, unbiased=True),
    "sign": Signs(BLOCK),
    "top": TopK(0.25, BLOCK, levels=1),
    "top, two levels": TopK(0.25, BLOCK, levels=2),
    "top, listed by bits": TopK(0.5, BLOCK, levels=1),
}
BLOCKS = ["int8", "int8, unbiased", "int4", "int4, unbiased", "fp8", "fp8, unbiased"]
CONTRACTIONS = ["sign", "top", "top, two levels", "top, listed by bits"]
THINNED = ("fp32", "bf16", "int8", "int4", "fp8")
SPARSE = {f"sparse {name}": Sparse(ENCODERS[name]) for name in THINNED}

# beyond 3.38e38 a value's block has no scale in bf16
FLOATS = st.floats(-(2.0**126), 2.0**126, width=32)
# lengths of a vector, and how many of its values are zero
VALUES = st.lists(FLOATS, max_size=5 * BLOCK)
THIN = st.lists(st.one_of(st.just(0.0), st.just(0.0), st.just(0.0), FLOATS), max_size=9 * BLOCK)


def vector(values: list[float], encoder: Encoder = ENCODERS["fp32"]) -> Tensor:
    return torch.tensor(values, dtype=getattr(encoder, "computed", torch.float32))


def through(encoder: Encoder, values: Tensor, key: tuple[int, ...] = KEY) -> Tensor:
    """What arrives of a vector that is sent in one part."""
    (data,) = encoder.encode(values, (0, len(values)), key)
    return encoder.decode(data, len(values))


def cuts(draw: st.DataObject, count: int, block: int) -> list[int]:
    """Any cuts of `count` values between blocks, as if for so many owners."""
    blocks = st.lists(st.integers(0, math.ceil(count / block)), max_size=4)
    inner = sorted(min(count, at * block) for at in draw.draw(blocks))
    return [0, *inner, count]


# --- all formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ENCODERS, *SPARSE])
@given(values=THIN, draw=st.data())
def test_a_part_has_as_many_bytes_as_it_says_and_gives_as_many_values(name, values, draw):
    encoder = (ENCODERS | SPARSE)[name]
    sent = vector(values, encoder)
    edges = cuts(draw, len(sent), encoder.block)
    parts = encoder.encode(sent, edges, KEY)
    assert len(parts) == len(edges) - 1
    for part, (start, end) in zip(parts, pairwise(edges), strict=True):
        assert part.dtype == torch.uint8 and part.dim() == 1
        assert encoder.size(end - start) in (None, part.numel())
        assert encoder.decode(part, end - start).shape == (end - start,)


@pytest.mark.parametrize("name", ENCODERS)
@given(values=VALUES, draw=st.data())
def test_cuts_change_no_byte(name, values, draw):
    encoder = ENCODERS[name]
    sent = vector(values, encoder)
    (whole,) = encoder.encode(sent, (0, len(sent)), KEY)
    parts = encoder.encode(sent, cuts(draw, len(sent), encoder.block), KEY)
    assert torch.equal(torch.cat(parts), whole)
    assert sum(encoder.cost(parts, len(sent))) == whole.numel(), "what is counted is what is sent"


@pytest.mark.parametrize("name", SPARSE)
@given(values=THIN, draw=st.data())
def test_cuts_of_a_thin_vector_change_no_value(name, values, draw):
    encoder, sent = SPARSE[name], vector(values)
    edges = cuts(draw, len(sent), encoder.block)
    parts = encoder.encode(sent, edges, KEY)
    lengths = [b - a for a, b in pairwise(edges)]
    joined = torch.cat([encoder.decode(p, n) for p, n in zip(parts, lengths, strict=True)])
    assert torch.equal(joined, through(encoder, sent))


@pytest.mark.parametrize("name", [*ENCODERS, *SPARSE])
@given(values=VALUES)
def test_bytes_may_start_anywhere(name, values):
    """What arrives of a client lies behind what arrives of another, at any address."""
    encoder = (ENCODERS | SPARSE)[name]
    sent = vector(values, encoder)
    (data,) = encoder.encode(sent, (0, len(sent)), KEY)
    shifted = torch.cat([data.new_zeros(1), data])[1:]
    assert torch.equal(encoder.decode(shifted, len(sent)), encoder.decode(data, len(sent)))


@pytest.mark.parametrize("name", [*ENCODERS, *SPARSE])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_diverged_shows(name, wrong):
    """A value that is no number must not become one on the way."""
    sent = vector([0.5] * (3 * BLOCK), (ENCODERS | SPARSE)[name])
    sent[BLOCK + 3] = wrong
    got = through((ENCODERS | SPARSE)[name], sent)
    assert not got[BLOCK + 3].isfinite()
    assert got[:BLOCK].isfinite().all() and got[2 * BLOCK :].isfinite().all()


# --- one by one -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fp32", "fp64"])
@given(values=VALUES)
def test_plain_values_come_back_exactly(name, values):
    encoder = ENCODERS[name]
    assert encoder.exact
    assert torch.equal(through(encoder, vector(values, encoder)), vector(values, encoder))


@given(values=VALUES)
def test_bf16_rounds_to_its_nearest(values):
    assert not ENCODERS["bf16"].exact
    sent, got = vector(values), through(ENCODERS["bf16"], vector(values))
    assert got.dtype == torch.float32
    assert ((got - sent).abs() <= sent.abs() * 2.0**-8 + TINY).all()
    assert torch.equal(through(ENCODERS["bf16"], got), got), "what is in the format stays"


# --- blocks ---------------------------------------------------------------------------------------


def scales(sent: Tensor) -> Tensor:
    """The largest magnitude in the block of each value."""
    rows = torch.nn.functional.pad(sent, (0, -len(sent) % BLOCK)).view(-1, BLOCK)
    return rows.abs().amax(1).repeat_interleave(BLOCK)[: len(sent)]


@pytest.mark.parametrize(
    "name,steps",
    [
        *(("int8", 1 / 254), ("int8, unbiased", 1 / 127)),
        *(("int4", 1 / 14), ("int4, unbiased", 1 / 7)),
    ],
)
@given(values=VALUES)
def test_an_integer_is_off_by_a_share_of_its_blocks_largest_value(name, steps, values):
    """Half a step if rounded to the nearest, a step at random; the scale itself is rounded up."""
    sent = vector(values)
    off = (through(ENCODERS[name], sent).double() - sent.double()).abs()
    up = 1 + 2.0**-7  # at most, from the largest value to a bf16 no smaller
    rounding = 1 + bounds.of_sums(127)  # of up to 127 steps, in units of one
    assert (off <= steps * up * rounding * scales(sent).double() + TINY).all()


@pytest.mark.parametrize("name,share", [("fp8", 1 / 16), ("fp8, unbiased", 1 / 8)])
@given(values=VALUES)
def test_a_float_is_off_by_a_share_of_itself(name, share, values):
    """Or, far below the largest of its block, by a share of the smallest step."""
    sent = vector(values)
    off = (through(ENCODERS[name], sent).double() - sent.double()).abs()
    rounding = 1 + bounds.of_sums(3)  # two products and a quotient
    up = 1 + 2.0**-7  # as above
    least = share * 2.0**-6 * up * scales(sent).double() / 448
    assert (off <= rounding * (share * sent.double().abs()).maximum(least) + TINY).all()


def test_a_small_float_is_closer_than_an_integer_and_a_large_one_is_not():
    sent = torch.tensor([1.0, 0.9, 0.02, 0.007, 0.003, -0.001, 0.0, 0.5])
    off = {name: (through(ENCODERS[name], sent) - sent).abs() for name in ("fp8", "int8")}
    assert (off["fp8"][2:6] < off["int8"][2:6]).all()
    assert off["fp8"][1] > off["int8"][1]


@pytest.mark.parametrize("name", BLOCKS)
@given(values=st.lists(FLOATS, min_size=BLOCK, max_size=BLOCK))
def test_zeros_stay_zeros_and_leave_their_neighbours_alone(name, values):
    sent = vector([*[0.0] * BLOCK, *values, *[0.0] * BLOCK])
    got = through(ENCODERS[name], sent)
    assert got[:BLOCK].count_nonzero() == got[2 * BLOCK :].count_nonzero() == 0
    assert torch.equal(through(Blocks(BLOCK), vector(values)), through(Blocks(BLOCK), sent)[8:16])


@pytest.mark.parametrize("name,share", [("int8", 250), ("fp8", 27)])
def test_every_magnitude_has_a_scale(name, share):
    """A small update is as exact as a large one, which a scale in fp16 would not allow."""
    for exponent in range(-36, 38):
        sent = torch.linspace(-1, 1, BLOCK) * 10.0**exponent
        assert ((through(ENCODERS[name], sent) - sent).abs() <= sent.abs().max() / share).all()


@pytest.mark.parametrize("name,step", [("int8", 1 / 127), ("fp8", 1 / 14)])  # 32 of 448
def test_random_rounding_is_right_on_average(name, step):
    """Within five standard errors of 2,000 draws, of which each is off by half a step at most."""
    sent = torch.randn(4 * BLOCK, generator=torch.Generator().manual_seed(1))
    encoder, draws = ENCODERS[f"{name}, unbiased"], 2000
    mean = torch.stack([through(encoder, sent, (1, 2, who, 0)) for who in range(draws)]).mean(0)
    bound = 5 * scales(sent) * (1 + 2.0**-7) * step / 2 / draws**0.5
    assert ((mean - sent).abs() < bound).all()
    biased = through(ENCODERS[name], sent)
    assert ((biased - sent).abs() > bound).any(), "the bound tells them apart"


@pytest.mark.parametrize("name", ["int8, unbiased", "fp8, unbiased"])
def test_random_rounding_is_a_function_of_its_key(name):
    encoder, sent = ENCODERS[name], torch.linspace(-1, 1, 100)
    first = through(encoder, sent)
    assert torch.equal(through(encoder, sent), first)
    for key in ((2, 2, 3, 0), (1, 3, 3, 0), (1, 2, 4, 0), (1, 2, 3, 1)):
        assert not torch.equal(through(encoder, sent, key), first), key


# --- a few bits for each value, or fewer ----------------------------------------------------------


@pytest.mark.parametrize("name", CONTRACTIONS)
@given(values=VALUES)
def test_what_is_lost_of_a_block_is_less_than_it_has(name, values):
    """|x - C(x)|^2 <= (1 - 1 / n) |x|^2 in each block, which error feedback relies on."""
    sent = vector(values)
    lost = (sent.double() - through(ENCODERS[name], sent).double()).square()
    share = 1 - (1 - bounds.BF16**2) / BLOCK  # of the scale's rounding
    for off, own in zip(lost.split(BLOCK), sent.double().square().split(BLOCK), strict=True):
        assert off.sum() <= (share + bounds.of_sums(BLOCK)) * own.sum() + BLOCK * TINY


@given(values=st.lists(FLOATS, min_size=1, max_size=3 * BLOCK))
def test_signs_have_the_mean_magnitude_of_their_block(values):
    sent = vector(values)
    got = through(ENCODERS["sign"], sent)
    for part, own in zip(got.split(BLOCK), sent.split(BLOCK), strict=True):
        mean = own.double().abs().mean()
        assert ((part.double().abs() - mean).abs() <= bounds.BF16 * mean + TINY).all()
        assert ((part < 0) == (own < 0))[part != 0].all()
    nothing = vector([0.0] * len(values))
    assert torch.equal(through(ENCODERS["sign"], nothing), nothing)


# --- thin vectors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPARSE)
@given(values=THIN)
def test_a_thin_vector_arrives_as_it_would_whole(name, values):
    encoder, sent = SPARSE[name], vector(values)
    assert encoder.exact == encoder.inner.exact
    assert torch.equal(through(encoder, sent), through(encoder.inner, sent))


@given(st.integers(1, 200), st.data())
def test_a_thin_part_is_as_long_as_what_it_holds(blocks, draw):
    kept = draw.draw(st.sets(st.integers(0, blocks - 1)))
    sent = torch.zeros(blocks * BLOCK)
    sent[[block * BLOCK for block in kept]] = 1.0
    for inner in (ENCODERS["fp32"], ENCODERS["int8"]):
        items = blocks * BLOCK // inner.block  # a value, or a block of them
        (data,) = Sparse(inner).encode(sent, (0, len(sent)), KEY)
        expected = 4 + index_bytes(items, len(kept)) + inner.size(len(kept) * inner.block)
        assert data.numel() == expected


@given(st.lists(st.booleans(), max_size=70))
def test_bits_inverts_bitmap(chosen):
    chosen = torch.tensor(chosen, dtype=torch.bool)
    data = bitmap(chosen)
    assert data.numel() == math.ceil(len(chosen) / 8)
    assert torch.equal(bits(data, len(chosen)).bool(), chosen)
