"""Sampling: who draws which samples, in which order, as a function of (seed, client, pass)."""

import pytest
import torch

from tests import bounds
from trainer.data.sampling import Dealt, Position, Replacing, Sampler

N, CLIENTS, BATCH = 103, 4, 6


def drawn(sampler: Sampler, steps: int, position: Position | None = None) -> list[list[int]]:
    position = position or Position()
    return [sampler.next_batch(position).tolist() for _ in range(steps)]


def dealt(client: int, seed: int = 1, **changes: bool) -> Dealt:
    options = {"batch_size": BATCH, "seed": seed, "client": client, "clients": CLIENTS} | changes
    return Dealt(torch.arange(N), **options)


def test_one_pass_over_shared_samples_gives_each_to_one_client_and_drops_the_tail():
    steps = dealt(0).steps_per_pass(N // CLIENTS, BATCH)
    seen = [i for c in range(CLIENTS) for batch in drawn(dealt(c), steps) for i in batch]
    assert steps == N // (CLIENTS * BATCH)
    assert len(seen) == len(set(seen)) == steps * CLIENTS * BATCH


def test_shared_samples_are_dealt_anew_in_the_next_pass():
    first, second = (drawn(dealt(0), 8)[:4], drawn(dealt(0), 8)[4:])
    assert first != second
    assert {i for batch in first for i in batch} != {i for batch in second for i in batch}


def test_a_step_of_all_clients_is_one_large_batch_of_one_client():
    """Local SGD with H = 1 sees the batches of large-batch SGD, whoever computes which part."""
    parts = [drawn(dealt(client), 9) for client in range(CLIENTS)]
    whole = Dealt(torch.arange(N), batch_size=BATCH * CLIENTS, seed=1, client=0, clients=1)
    for step, batch in enumerate(drawn(whole, 9)):
        assert batch == [i for part in parts for i in part[step]]


def test_shared_samples_in_a_fixed_order_come_as_they_are():
    batches = drawn(dealt(1, reshuffle=False), 2)
    assert batches[0] == list(range(BATCH, 2 * BATCH))
    assert batches[1] == list(range(CLIENTS * BATCH + BATCH, CLIENTS * BATCH + 2 * BATCH))


def test_with_replacement_every_sample_is_equally_likely_and_some_come_twice():
    sampler = Replacing(torch.arange(10), batch_size=4, seed=3, client=0)
    batches = drawn(sampler, 3000)
    assert all(len(batch) == 4 for batch in batches)
    assert any(len(set(batch)) < 4 for batch in batches)
    counts = torch.bincount(torch.tensor(batches).flatten(), minlength=10)
    shares = counts.double() / counts.sum()
    assert (shares - 0.1).abs().max() < bounds.of_share(0.1, int(counts.sum()))


@pytest.mark.parametrize("kind", [Sampler, Replacing, Dealt])
def test_two_numbers_are_enough_to_go_on(kind):
    options = {"batch_size": BATCH, "seed": 5, "client": 2, "clients": CLIENTS}
    whole = drawn(kind(torch.arange(N), **options), 40)
    position = Position()
    first = drawn(kind(torch.arange(N), **options), 23, position)
    again = Position(position.epoch, position.offset)
    assert first + drawn(kind(torch.arange(N), **options), 17, again) == whole


def test_a_restart_leaves_a_pass_that_was_begun_and_no_other():
    position = Position(epoch=3, offset=0)
    position.restart()
    assert position == Position(3, 0)
    position.offset = 5
    position.restart()
    assert position == Position(4, 0)
