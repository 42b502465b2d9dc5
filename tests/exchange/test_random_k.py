"""Random choice of what travels: which coordinates, how evenly, and what they cost."""

from math import ceil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import bounds
from tests.exchange.messages import exchanged
from tests.ranks import ranks
from trainer.exchange.message import Cohort, Places, Terms
from trainer.exchange.reductions.all_reduce import AllReduce
from trainer.exchange.reductions.random_k import RandomK, one_of_each_run
from trainer.keys import Purpose, stream

SEED = 7


def chosen(share: float, places: Places, number: int = 1, purpose: int = 0) -> Places:
    terms = Terms(Cohort(number, ()), (), places.size, SEED, places, purpose=purpose)
    return RandomK(AllReduce(torch.float32), share).choose(places, terms)


@given(st.integers(0, 400), st.floats(1e-6, 1), st.integers(0, 99))
def test_one_coordinate_of_each_run_travels(count, share, number):
    runs = ceil(share * count)
    index = one_of_each_run(count, runs, stream(SEED, Purpose.CHOICE, number))
    assert len(index) == runs
    for at, place in enumerate(index.tolist()):
        assert at * count // runs <= place < (at + 1) * count // runs


@given(st.lists(st.booleans(), max_size=200), st.floats(1e-6, 1))
def test_only_what_a_mask_lets_through_is_chosen(mask, share):
    places = Places(len(mask), torch.tensor(mask, dtype=torch.bool))
    found = chosen(share, places)
    assert found.mask is not None
    assert not (found.mask & ~places.mask).any()
    assert found.count == int(found.mask.sum()) == ceil(share * places.count)


def test_every_coordinate_has_its_chance():
    """Within five standard errors of the share of rounds in which it should travel."""
    count, share, rounds = 997, 0.1, 3000
    times = sum(chosen(share, Places(count), number).mask.double() for number in range(rounds))
    runs = ceil(share * count)
    low, high = 1 / ceil(count / runs), 1 / (count // runs)
    seen = times / rounds
    assert seen.min() > low - bounds.of_share(low, rounds)
    assert seen.max() < high + bounds.of_share(high, rounds)


def test_a_choice_is_that_of_its_round_and_exchange():
    first, *others = (chosen(0.1, Places(500), *key) for key in ((1,), (2,), (1, 1)))
    assert torch.equal(first.mask, chosen(0.1, Places(500), 1).mask)
    for other in others:
        assert not torch.equal(first.mask, other.mask)


def test_all_of_them_are_the_plain_sum():
    for share in (None, 0.5):
        (plain,) = ranks(1).run(exchanged, "fp32", 500, share)
        (whole,) = ranks(1).run(exchanged, "randomk, all", 500, share)
        for name, mean in plain["mean"].items():
            assert mean.tobytes() == whole["mean"][name].tobytes()
        assert plain["payload"] == whole["payload"]


@pytest.mark.parametrize("share", [None, 0.5])
def test_no_index_travels_and_no_rank_needs_more_for_others(share):
    for size in (2, 4):
        answers = ranks(size).run(exchanged, "randomk", 1001, share)
        own = ceil(0.05 * int(answers[0]["mask"].sum()))
        sent = sum(sum(a["wire"].values()) for a in answers)
        # two vectors, three exact values and the lane for stopping, in a ring
        assert sent == 2 * (size - 1) * 4 * (2 * own + 3 + 1)
        assert sum(a["payload"]["values"] for a in answers) == 5 * 2 * 4 * own
        assert sum(a["payload"]["votes"] for a in answers) == 0
        for answer in answers:
            assert (answer["mean"]["delta"] != 0).sum() == own
