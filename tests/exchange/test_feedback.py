"""Formats whose losses clients add to their next message, and owners to the next mean."""

from functools import partial

import numpy as np
import pytest

from tests import bounds
from tests.exchange.messages import WEIGHTS, fed_back
from tests.ranks import ranks

BY_OWNERS = ["sign", "sparse"]
ALL = [*BY_OWNERS, "randomk", "randomk, int8"]
CODED = [name for name in ALL if name != "randomk"]  # which a collective adds up, in its order
ROUNDS, COUNT = 12, 1001
LARGEST = 5 * ROUNDS  # of what normal draws add up to, with room


def summed(size: int, name: str, **options: int) -> dict:
    """What all ranks together have: each knows its own clients."""
    job = partial(fed_back, name, COUNT, ROUNDS, **options)
    first, *others = ranks(size).run(job)
    for other in others:
        for a, b in zip(first["means"], other["means"], strict=True):
            assert np.array_equal(a, b), "ranks hold different means"
        assert np.array_equal(first["owners"], other["owners"])
        for key in ("offered", "arrived", "kept", "payload"):
            first[key] = first[key] + other[key]
    return first


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("away", [-1, 5])
def test_what_arrived_and_what_is_kept_is_what_was_offered(name, size, away):
    """For each client, and for the owners of the mean, over all rounds; also if nobody sends."""
    found = summed(size, name, away=away)
    rounding = bounds.of_sums(3 * ROUNDS, LARGEST)
    off = found["arrived"] + found["kept"] - found["offered"]
    assert np.abs(off).max() < rounding
    assert np.abs(found["kept"]).max(axis=1).min() > 0, "nothing was lost: no test of the law"
    if name != "randomk, int8":  # whose means are coded once more, and nobody keeps what that costs
        mean = np.average(found["arrived"], axis=0, weights=WEIGHTS)
        delivered = np.sum([m.astype(np.float64) for m in found["means"]], axis=0)
        assert np.abs(delivered + found["owners"] - mean).max() < len(WEIGHTS) * rounding
    assert (name in BY_OWNERS) == (np.abs(found["owners"]).max() > 0)
    assert (away >= 0) == any(not m.any() for m in found["means"])


@pytest.mark.parametrize("name", BY_OWNERS)
def test_residuals_do_not_grow_with_the_rounds(name):
    """What is lost is bounded, so the means delivered follow the true ones."""
    found = summed(1, name)
    total = np.average(found["offered"], axis=0, weights=WEIGHTS)
    delivered = np.sum(found["means"], axis=0)
    assert np.linalg.norm(found["owners"]) < np.linalg.norm(total)
    assert np.dot(delivered, total) > 0.3 * np.linalg.norm(delivered) * np.linalg.norm(total)


@pytest.mark.parametrize("name", CODED)
def test_no_bit_depends_on_the_number_of_ranks_and_no_byte_does(name):
    one, *others = (summed(size, name) for size in (1, 2, 4))
    for other in others:
        for a, b in zip(one["means"], other["means"], strict=True):
            assert np.array_equal(a, b)
        assert np.array_equal(one["owners"], other["owners"])
        assert one["payload"] == other["payload"] > 0


@pytest.mark.parametrize("name", BY_OWNERS)
@pytest.mark.parametrize("size", [1, 3])
def test_a_checkpoint_has_what_owners_keep(name, size):
    through, resumed = summed(size, name), summed(size, name, reload=7)
    for a, b in zip(through["means"], resumed["means"], strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(through["owners"], resumed["owners"])
