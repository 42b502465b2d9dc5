"""Sampling: who draws which samples, in which order, as a function of (seed, client, number)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import bounds
from trainer.data.sampling import Sampler, SharedSampler, WithReplacement

N, CLIENTS, BATCH = 103, 4, 6
KINDS = [Sampler, WithReplacement, SharedSampler]


def drawn(sampler: Sampler, client: int, steps: int, first: int = 0) -> list[list[int]]:
    return [sampler.places(client, first + k).tolist() for k in range(steps)]


def shared(clients: int = CLIENTS, **changes: bool | int) -> SharedSampler:
    options = {"batch_size": BATCH, "seed": 1, "shared": True} | changes
    return SharedSampler([torch.arange(N)] * clients, **options)


def test_one_pass_over_shared_samples_gives_each_to_one_client_and_drops_the_tail():
    steps = shared().steps_per_pass(0)
    seen = [i for c in range(CLIENTS) for batch in drawn(shared(), c, steps) for i in batch]
    assert steps == N // (CLIENTS * BATCH)
    assert len(seen) == len(set(seen)) == steps * CLIENTS * BATCH


def test_shared_samples_are_dealt_anew_in_the_next_pass():
    first, second = (drawn(shared(), 0, 4, first=first) for first in (0, 4))
    assert first != second
    assert {i for batch in first for i in batch} != {i for batch in second for i in batch}


def test_a_step_of_all_clients_is_one_large_batch_of_one_client():
    """Local SGD with H = 1 sees the batches of large-batch SGD, whoever computes which part."""
    parts = [drawn(shared(), client, 9) for client in range(CLIENTS)]
    whole = shared(clients=1, batch_size=BATCH * CLIENTS)
    for step, batch in enumerate(drawn(whole, 0, 9)):
        assert batch == [i for part in parts for i in part[step]]


def test_shared_samples_in_a_fixed_order_come_as_they_are():
    batches = drawn(shared(reshuffle=False), 1, 2)
    assert batches[0] == list(range(BATCH, 2 * BATCH))
    assert batches[1] == list(range(CLIENTS * BATCH + BATCH, CLIENTS * BATCH + 2 * BATCH))


def test_with_replacement_every_sample_is_equally_likely_and_some_come_twice():
    sampler = WithReplacement([torch.arange(10)], batch_size=4, seed=3)
    batches = drawn(sampler, 0, 3000)
    assert all(len(batch) == 4 for batch in batches)
    assert any(len(set(batch)) < 4 for batch in batches)
    counts = torch.bincount(torch.tensor(batches).flatten(), minlength=10)
    shares = counts.double() / counts.sum()
    assert (shares - 0.1).abs().max() < bounds.of_share(0.1, int(counts.sum()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batchs_number_is_enough_to_go_on(kind):
    def sampler() -> Sampler:
        return kind(
            [torch.arange(N)] * CLIENTS, batch_size=BATCH, seed=5, shared=kind is SharedSampler
        )

    whole = drawn(sampler(), 2, 40)
    assert drawn(sampler(), 2, 23) + drawn(sampler(), 2, 17, first=23) == whole
    for client in (0, 1, 3):
        assert drawn(sampler(), client, 40) != whole


@pytest.mark.parametrize("kind", KINDS)
@given(before=st.integers(0, 60), steps=st.integers(0, 60), size=st.integers(1, 40))
def test_samples_are_counted_without_drawing_them(kind, before, steps, size):
    sampler = kind([torch.arange(N)] * 2, batch_size=size, seed=5, shared=kind is SharedSampler)
    batches = drawn(sampler, 1, steps, first=before)
    assert sampler.samples(1, before, steps) == sum(len(batch) for batch in batches)


@pytest.mark.parametrize("kind", [Sampler, WithReplacement])
def test_an_empty_batch_size_is_all_that_a_client_holds(kind):
    sampler = kind([torch.arange(7), torch.arange(3)], batch_size=None, seed=1)
    assert [len(sampler.places(client, 0)) for client in (0, 1)] == [7, 3]
    assert sampler.steps_per_pass(0) == sampler.steps_per_pass(1) == 1
