"""Staggered frozen periods: no round thaws everything, and none lasts longer than it may."""

import numpy as np
import pytest
import torch

from tests import bounds
from tests.exchange.turns import select, server
from trainer.config.communication import APF as APFSettings
from trainer.config.communication import GWPF as GWPFSettings
from trainer.exchange.policies.apf import APF
from trainer.exchange.policies.gwpf import GWPF
from trainer.exchange.policies.policy import Policy
from trainer.exchange.policies.stagger import MOST, shifts, spread, whole
from trainer.layout import Layout

CPU = torch.device("cpu")
SIZE, CAP = 20_000, 9
STEADY = {"threshold": 1.0, "ema": 0.9, "tighten_at": 1.0}  # any change of sign is stable


def travelling(policy: Policy, rounds: int) -> np.ndarray:
    """What travels in each round (rounds, P) if all coordinates oscillate, so all stay stable."""
    seen = []
    for number in range(1, rounds + 1):
        places = select(policy)
        mask = torch.ones(SIZE, dtype=torch.bool) if places.mask is None else places.mask
        assert places.count == int(mask.count_nonzero())
        seen.append(mask.numpy())
        change = torch.full((SIZE,), float((-1) ** number))
        policy.applied(change, server(torch.zeros(SIZE), number), places)
    return np.array(seen)


def longest(mask: np.ndarray) -> int:
    """The most rounds in a row that any coordinate is left out."""
    most, run = 0, np.zeros(SIZE, int)
    for row in mask:
        run = np.where(row, 0, run + 1)
        most = max(most, int(run.max()))
    return most


@pytest.mark.parametrize("stagger", [False, True])
def test_the_cap_thaws_no_more_than_a_rounds_share(stagger):
    cycle, settings = CAP + 1, GWPFSettings(**STEADY, max_frozen_rounds=CAP, stagger=stagger)
    mask = travelling(GWPF(settings, SIZE, CPU, seed=3), 5 * cycle)
    assert longest(mask) == CAP
    counts = mask[2:].sum(axis=1)  # all froze after the second round
    if not stagger:
        assert set(counts) == {0, SIZE}
        return
    most = SIZE / cycle + SIZE * bounds.of_share(1 / cycle, SIZE)
    assert counts.max() <= most
    for start in range(len(counts) - cycle):
        assert (mask[2 + start :][:cycle].sum(axis=0) == 1).all(), "each has a round of its own"


@pytest.mark.parametrize("stagger", [False, True])
def test_coordinates_of_one_period_wake_in_different_rounds(stagger):
    rounds, settings = 120, APFSettings(**STEADY, stagger=stagger)
    mask = travelling(APF(settings, SIZE, CPU, seed=3), rounds)
    late = mask[rounds // 2 :].sum(axis=1)
    if not stagger:
        assert set(late) == {0, SIZE}
        return
    assert late.max() < 2 * late.mean() and late.min() > late.mean() / 2
    plain = travelling(APF(APFSettings(**STEADY), SIZE, CPU), rounds)
    assert mask.mean() == pytest.approx(plain.mean(), rel=0.15), "periods are as long as before"


@pytest.mark.parametrize("period", [0, 1, 2, 7, 40])
def test_lengths_are_even_around_the_period(period):
    shift = shifts(whole(SIZE), 5, MOST, CPU)
    lengths = spread(torch.full_like(shift, period), shift)
    assert lengths.dtype == torch.int16
    counts = lengths.bincount()
    least = period - period // 2
    assert len(counts) == least + period + 1 and not counts[:least].any()
    share = 1 / (period + 1)
    # MOST is no multiple of the lengths' number, which makes some likelier by one draw in MOST
    off = bounds.of_share(share, SIZE) + 1 / MOST
    assert ((counts[least:] / SIZE - share).abs() <= off).all()


def test_a_stage_draws_what_the_whole_model_would():
    shapes = [("a.weight", (30, 4)), ("a.bias", (30,)), ("b.weight", (7,))]
    together = shifts(Layout(shapes), 1, 100, CPU)
    apart = [shifts(Layout([shape]), 1, 100, CPU) for shape in shapes]
    assert torch.equal(together, torch.cat(apart))
    assert not torch.equal(together, shifts(Layout(shapes), 2, 100, CPU))
