"""APF against the specification's round-based form, written out for one scalar."""

import torch

from trainer.config.communication import APF as Settings
from trainer.sync.apf import APF
from trainer.sync.comm import Comm
from trainer.sync.policy import Electorate
from trainer.sync.tally import Tally

CPU = torch.device("cpu")


def reference(deltas: list[float], alpha: float, threshold: float) -> list[bool]:
    """Specification 3.3 for one coordinate: is it active in round 1, 2, ...?"""
    e = eabs = 0.0
    period, until, active = 0, 0, []
    for c, delta in enumerate(deltas):
        active.append(until <= c)
        if not active[-1]:
            continue
        e = alpha * e + (1 - alpha) * delta
        eabs = alpha * eabs + (1 - alpha) * abs(delta)
        stable = abs(e) < threshold * eabs
        period = period + 1 if stable else period // 2
        until = c + period + 1
    return active


def test_a_coordinate_sleeps_and_wakes_as_the_reference_says():
    stream = torch.Generator().manual_seed(3)
    deltas = torch.randn(200, 64, generator=stream) + torch.linspace(0, 0.5, 64)
    policy = APF(Settings(threshold=0.2, ema=0.9, tighten_at=1.0), 64, CPU)
    active = []
    for number, delta in enumerate(deltas, start=1):
        selection = policy.select(number, Electorate(1, 1), Comm(Tally(), CPU))
        mask = torch.ones(64, dtype=torch.bool) if selection.mask is None else selection.mask
        active.append(mask)
        policy.observe(delta.clone(), torch.zeros(64), selection, number)
    ours = torch.stack(active)
    assert 0.1 < (~ours).float().mean() < 0.9, "the test needs both sleep and waking"
    for i in range(64):
        assert ours[:, i].tolist() == reference(deltas[:, i].tolist(), 0.9, 0.2), f"coordinate {i}"


def test_frozen_values_are_rolled_back_after_each_step():
    policy = APF(Settings(), 4, CPU)
    policy.freeze(torch.tensor([True, False, True, False]))
    params, anchor = torch.ones(4), torch.zeros(4)
    policy.after_step(params, anchor)
    assert params.tolist() == [0, 1, 0, 1]


def test_the_threshold_tightens_when_most_are_frozen():
    policy = APF(Settings(threshold=1.0, ema=0.5, tighten_at=0.5, threshold_floor=0.3), 4, CPU)
    for number, sign in enumerate((1, -1), start=1):
        selection = policy.select(number, Electorate(1, 1), Comm(Tally(), CPU))
        policy.observe(torch.full((4,), float(sign)), torch.zeros(4), selection, number)
    assert policy.frozen_count == 4
    assert policy.threshold == 0.5
