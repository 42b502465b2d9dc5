"""APF against the specification's round-based form, written out for one scalar."""

import numpy as np
import pytest
import torch

from tests import bounds
from tests.exchange.turns import select, server, turn
from tests.jobs import experiment_run
from trainer.config.communication import APF as Settings
from trainer.exchange.policies.apf import APF, random_rounds
from trainer.keys import Purpose, stream

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
    numbers = torch.Generator().manual_seed(3)
    deltas = torch.randn(200, 64, generator=numbers) + torch.linspace(0, 0.5, 64)
    policy = APF(Settings(threshold=0.2, ema=0.9, tighten_at=1.0), 64, CPU)
    active = []
    for number, delta in enumerate(deltas, start=1):
        places = select(policy)
        mask = torch.ones(64, dtype=torch.bool) if places.mask is None else places.mask
        active.append(mask)
        policy.applied(delta.clone(), server(torch.zeros(64), number), places)
    ours = torch.stack(active)
    assert 0.1 < (~ours).float().mean() < 0.9, "the test needs both sleep and waking"
    for i in range(64):
        assert ours[:, i].tolist() == reference(deltas[:, i].tolist(), 0.9, 0.2), f"coordinate {i}"


def test_frozen_values_are_rolled_back_after_each_step():
    policy = APF(Settings(), 4, CPU)
    policy.freeze(torch.tensor([True, False, True, False]))
    params, anchor = torch.ones(4), torch.zeros(4)
    policy.stepped(turn(params, anchor))
    assert params.tolist() == [0, 1, 0, 1]


def test_the_threshold_tightens_when_most_are_frozen():
    policy = APF(Settings(threshold=1.0, ema=0.5, tighten_at=0.5, threshold_floor=0.3), 4, CPU)
    for number, sign in enumerate((1, -1), start=1):
        places = select(policy)
        policy.applied(torch.full((4,), float(sign)), server(torch.zeros(4), number), places)
    assert policy.labelled == 4
    assert policy.threshold == 0.5


def random_reference(name: str, deltas: np.ndarray, draws: list[np.ndarray]) -> np.ndarray:
    """Specification 3.4 on top of 3.3, for all coordinates: (rounds, P), are they active?

    The published code of APF++ draws u from [0, 100) and, if u < K / 20, adds floor(u) rounds.
    """
    size = deltas.shape[1]
    e, eabs = np.zeros(size, np.float32), np.zeros(size, np.float32)
    period, until, active = np.zeros(size, int), np.zeros(size, int), []
    for c, delta in enumerate(deltas):
        k, draw = c + 1, draws[c]
        active.append(until <= c)
        awake = active[-1]
        e = np.where(awake, np.float32(0.9) * e + np.float32(0.1) * delta, e)
        eabs = np.where(awake, np.float32(0.9) * eabs + np.float32(0.1) * np.abs(delta), eabs)
        unstable = ~(np.abs(e) < np.float32(0.2) * eabs)
        period = np.where(awake, np.where(unstable, period // 2, period + 1), period)
        if name == "sharp":
            extra = (draw < 0.5).astype(int)
        elif name == "aggressive":
            extra = (draw < min(k / 100, 0.5)).astype(int)
        else:
            u = 100 * draw
            extra = np.where(u < k, np.floor(u / 5), 0).astype(int)
        until = np.where(awake, c + period + extra * unstable + 1, until)
    return np.array(active)


# ramps shorter than the papers', so that 80 rounds see both ends of them
RAMPS = {"random_probability_ramp": 100, "random_length_ramp": 5}


@pytest.mark.parametrize("name", ["sharp", "plus", "aggressive"])
def test_the_random_variants_freeze_what_their_reference_does(name):
    numbers = torch.Generator().manual_seed(3)
    deltas = torch.randn(80, 64, generator=numbers) + torch.linspace(0, 2.5, 64)
    settings = Settings(threshold=0.2, ema=0.9, tighten_at=1.0, random=name, **RAMPS)
    policy = APF(settings, 64, CPU, seed=5)
    active = []
    for number, delta in enumerate(deltas, start=1):
        places = select(policy)
        mask = torch.ones(64, dtype=torch.bool) if places.mask is None else places.mask
        active.append(mask.numpy())
        policy.applied(delta.clone(), server(torch.zeros(64), number), places)
    draws = [torch.rand(64, generator=stream(5, Purpose.FREEZING, k)).numpy() for k in range(1, 81)]
    expected = random_reference(name, deltas.numpy(), draws)
    plain = random_reference(name, deltas.numpy(), [np.ones(64)] * 80)
    assert (plain & ~expected).mean() > 0.05, "nothing was frozen at random"
    assert np.array_equal(np.array(active), expected)


def test_what_is_frozen_at_random_follows_from_the_runs_seed_and_the_round():
    draws = {
        (seed, number): torch.cat(
            [*random_rounds(Settings(random="sharp"), seed, 500, number, CPU)]
        )
        for seed in (1, 2)
        for number in (1, 2)
    }
    again = torch.cat([*random_rounds(Settings(random="sharp"), 2, 500, 2, CPU)])
    assert torch.equal(draws[2, 2], again)
    assert not torch.equal(draws[2, 2], draws[1, 2]) and not torch.equal(draws[2, 2], draws[2, 1])
    rank = experiment_run({"seed": 7, "sync": {"name": "apf", "random": "sharp"}})
    assert rank.parts.policy.seed == 7


@pytest.mark.parametrize(
    "name,round_number,share,longest",
    [
        ("none", 1000, 0.0, 0),
        ("sharp", 1, 0.5, 1),
        ("sharp", 1000, 0.5, 1),
        ("aggressive", 200, 0.1, 1),
        ("aggressive", 1900, 0.5, 1),
        ("plus", 10, 0.0, 0),  # K / 20 is below one round
        ("plus", 1000, 0.49, 49),  # half of them, less those that drew less than one round
        ("plus", 4000, 0.99, 99),
    ],
)
def test_probability_and_length_are_the_papers(name, round_number, share, longest):
    settings = Settings(random=name)
    rounds = torch.cat([*random_rounds(settings, 1, 400_000, round_number, CPU)]).float()
    error = bounds.of_share(0.5, len(rounds))  # the most that any share has
    assert (rounds > 0).float().mean().item() == pytest.approx(share, abs=error)
    assert rounds.max().item() == longest
    if name == "plus" and longest:
        asleep = rounds[rounds > 0]
        assert asleep.mean().item() == pytest.approx((1 + longest) / 2, rel=0.01)
