"""Random streams: each purpose has a number of its own, and no two keys are the same stream."""

from itertools import permutations, product

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.keys import Purpose, stream

KEY = st.lists(st.integers(0, 2**31), min_size=0, max_size=3).map(tuple)


def test_purposes_have_numbers_of_their_own_that_never_change():
    """Every result depends on them."""
    assert {purpose.name: int(purpose) for purpose in Purpose} == {
        "ORDER": 100,
        "SAMPLING": 101,
        "TURN": 102,
        "FULL_GRADIENT": 103,
        "DEAL": 104,
        "UNREACHABLE": 105,
        "SLOW": 106,
        "ESTIMATE": 107,
        "FREEZING": 110,
        "CROP": 111,
        "ROUNDING": 112,
        "BASIS": 113,
        "STAGGER": 114,
        "CHOICE": 115,
        "DROPOUT": 120,
    }
    assert len(Purpose.__members__) == len(set(Purpose)), "an alias is a number used twice"


def test_every_part_of_a_key_counts_and_so_does_its_order():
    keys = [(seed, purpose, *place) for seed, purpose in product((1, 2), Purpose)
            for place in ((), *permutations((1, 2, 3), 2))]  # fmt: skip
    assert len({stream(*key).initial_seed() for key in keys}) == len(keys)


def test_keys_of_other_lengths_are_other_streams():
    keys = [(2,), (2, 0), (2, 0, 0), (2, 2), (), (0, 2)]
    assert len({stream(1, Purpose.TURN, *key).initial_seed() for key in keys}) == len(keys)


@given(st.integers(0, 2**63), st.sampled_from(Purpose), KEY)
def test_a_stream_is_a_function_of_its_key(seed, purpose, place):
    first, second = (stream(seed, purpose, *place) for _ in range(2))
    assert first.device.type == "cpu"
    assert torch.equal(torch.rand(5, generator=first), torch.rand(5, generator=second))


@given(KEY, KEY)
def test_streams_of_unlike_keys_draw_other_numbers(one, other):
    draws = [torch.rand(4, generator=stream(1, Purpose.ROUNDING, *key)) for key in (one, other)]
    assert torch.equal(*draws) == (one == other)


def test_a_stream_leaves_torchs_own_alone():
    before = torch.get_rng_state()
    torch.rand(3, generator=stream(1, Purpose.TURN, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
