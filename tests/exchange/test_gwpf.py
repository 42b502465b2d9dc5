"""GWPF and its released rule against the specification's noise table and its aliasing proof."""

import pytest
import torch

from tests import bounds
from tests.exchange.turns import select, server, turn
from trainer.config.communication import APF as APFSettings
from trainer.config.communication import GWPF as Settings
from trainer.config.communication import GWPFReleased as ReleasedSettings
from trainer.exchange.message import Places
from trainer.exchange.policies.apf import APF
from trainer.exchange.policies.drift import halved
from trainer.exchange.policies.gwpf import GWPF
from trainer.exchange.policies.gwpf_released import GWPFReleased

CPU = torch.device("cpu")
SIZE, CLIENTS = 40_000, 10


def frozen_gwpf(**settings: float) -> GWPF:
    policy = GWPF(Settings(**settings), SIZE, CPU)
    policy.freeze(torch.ones(SIZE, dtype=torch.bool))
    policy.age.fill_(9)  # for longer than any memory of these tests goes back
    return policy


def share_thawed_by_noise(policy: GWPF, steps: int) -> float:
    """Each client walks at random from the agreed model, which no update is worth thawing for."""
    stream = torch.Generator().manual_seed(1)
    anchor, ballots = torch.zeros(SIZE), []
    for _ in range(CLIENTS):
        own, memory = turn(anchor.clone(), anchor, number=5), {}
        policy.entering(own, memory)
        for _ in range(steps):
            own.params += torch.randn(SIZE, generator=stream)
            policy.stepped(own)
        ballots.append(policy.leaving(own, memory))
    places = select(policy, ballots)  # all are frozen, so what travels has thawed
    assert places.count == int(places.mask.count_nonzero())
    return places.count / SIZE


# P(thaw) of a useless coordinate, specification section 1.6: (steps, T_thaw, quorum share, P)
NOISE = [
    (4, 0.02, 0.1, 1.000),
    (4, 0.05, 0.5, 1.000),
    (4, 0.5, 0.1, 0.9986),
    (4, 0.5, 0.5, 0.574),
    (5, 0.5, 0.1, 0.9951),
    (5, 0.5, 0.5, 0.399),
    (50, 0.2, 0.1, 0.954),
    (50, 0.2, 0.5, 0.097),
    (50, 0.5, 0.1, 0.0369),  # the specification prints 0.042; this is from 4 million draws
    (50, 0.5, 0.5, 0.000),
]


@pytest.mark.parametrize("steps,thaw,quorum,probability", NOISE)
def test_noise_thaws_as_often_as_the_table_says(steps, thaw, quorum, probability):
    policy = frozen_gwpf(thaw_threshold=thaw, quorum=quorum)
    # and what the table's own rounding leaves open
    tolerance = bounds.of_share(probability, SIZE) + 0.0012
    assert share_thawed_by_noise(policy, steps) == pytest.approx(probability, abs=tolerance)


def test_one_vote_of_ten_from_four_samples_thaws_nearly_all_noise():
    thawed = share_thawed_by_noise(frozen_gwpf(thaw_threshold=0.5, quorum=0.1), steps=4)
    assert 0.998 < thawed < 0.9995


def test_a_frozen_coordinate_keeps_training_and_its_drift_survives_the_round():
    policy = frozen_gwpf(quorum=1.0)
    anchor, memory = torch.zeros(SIZE), {}
    for number in (1, 2, 3):
        own = turn(anchor.clone(), anchor, number)
        policy.entering(own, memory)
        assert torch.equal(own.params, torch.full((SIZE,), float(number - 1)))
        own.params += 1.0
        policy.stepped(own)
        policy.leaving(own, memory)
        policy.rounds = number
    assert torch.equal(memory["travel"], torch.full((SIZE,), 3.0))
    assert torch.equal(policy.displacement(anchor, memory), torch.full((SIZE,), -3.0))


def test_what_thawed_while_a_client_was_away_starts_anew():
    policy = frozen_gwpf(quorum=1.0)
    anchor, memory = torch.zeros(SIZE), {}
    own = turn(anchor.clone(), anchor, number=1)
    policy.entering(own, memory)
    own.params += 1.0
    policy.stepped(own)
    policy.leaving(own, memory)
    policy.rounds = 1
    policy.age[0] = 0  # thawed in round 1 and frozen again at its end
    frozen = policy.frozen.clone()
    frozen[1] = False  # active again
    policy.freeze(frozen)
    own = turn(anchor.clone(), anchor, number=2)
    policy.entering(own, memory)
    assert own.params[0] == 0 and own.params[1] == 0
    assert bool((own.params[2:] == 1).all())
    travel = own.work["gwpf.travel"]
    assert travel[0] == 0 and bool((travel[1:] == 1).all())


def test_votes_that_ride_decide_what_travels_in_the_next_round():
    """0 to 3 are frozen; 0 and 1 get votes in round 1, and 1 is frozen again after round 2."""
    policy = GWPF(Settings(threshold=1.0, ema=0.5, votes="riding", tighten_at=1.0), 5, CPU)
    policy.freeze(torch.tensor([True, True, True, True, False]))
    policy.ratio.absolute.fill_(1.0)  # of what oscillates
    policy.ratio.signed[0], change = 1.0, torch.tensor([1.0, -0.1, 0.1, 0.1, 1.0])
    policy.ratio.signed[4] = 1.0
    assert policy.polling and not policy.voting

    places = policy.select(None)
    assert places.mask.tolist() == [False, False, False, False, True]
    policy.decided(torch.tensor([True, True, False, False]))
    policy.applied(change.clone(), server(torch.zeros(5), 1), places)

    saved = policy.state()  # a run may stop here
    policy = GWPF(policy.settings, 5, CPU)
    policy.load(saved)
    places = policy.select(None)
    assert places.mask.tolist() == [True, True, False, False, True]
    # these votes are of clients that had not yet got the new value of 1, so they count only for 2
    policy.decided(torch.tensor([True, True, True, False]))
    policy.applied(change.clone(), server(torch.zeros(5), 2), places)
    assert policy.frozen.tolist() == [False, True, True, True, False]
    assert policy.select(None).mask.tolist() == [True, False, True, False, True]


def test_a_poll_of_nothing_is_none():
    policy = GWPF(Settings(votes="riding"), 4, CPU)
    assert not policy.polling and policy.select(None).mask is None
    policy.freeze(torch.tensor([True, False, False, False]))  # nobody has voted on it yet
    assert policy.polling and policy.select(None).mask.tolist() == [False, True, True, True]


@pytest.mark.parametrize("policy", [GWPF, APF])
def test_the_threshold_is_halved_down_to_its_floor(policy):
    settings = {GWPF: Settings, APF: APFSettings}[policy]
    policy = policy(settings(threshold=1.0, ema=0.9, tighten_at=0.5, threshold_floor=0.2), 4, CPU)
    seen, number = [], 0
    for _ in range(5):  # each time: all freeze, and then all are active again
        for g in (torch.ones(4), -torch.ones(4)):
            number += 1
            mask = torch.ones(4, dtype=torch.bool)
            policy.applied(g, server(torch.zeros(4), number), Places(4, mask))
        seen.append(policy.threshold)
        policy.load(policy.state() | {"crowded": False, "asleep": torch.zeros(4).short()})
        policy.freeze(torch.zeros(4, dtype=torch.bool))
        policy.ratio.signed.zero_(), policy.ratio.absolute.zero_()
    assert seen == [0.5, 0.25, 0.2, 0.2, 0.2]


def test_halving_never_raises_a_threshold():
    assert halved(0.0005, 0.001) == 0.0005
    assert halved(0.0, 0.001) == 0.0


def test_a_threshold_is_halved_once_per_crossing():
    policy = GWPF(Settings(threshold=1.0, ema=0.5, tighten_at=0.5, threshold_floor=0.1), 4, CPU)
    for number, sign in enumerate((1, -1, 1, -1, 1, -1), start=1):
        places = select(policy)
        policy.applied(torch.full((4,), float(sign)), server(torch.zeros(4), number), places)
    assert policy.labelled == 4
    assert policy.threshold == 0.5


def test_aliasing_hides_an_oscillation_that_the_statistic_of_updates_sees():
    weights = torch.tensor([1.0, 2.0, -3.0, 0.5])
    for aliased, ratio in ((True, 1.0), (False, 0.0)):
        policy = GWPFReleased(ReleasedSettings(aliased=aliased), 4, CPU)
        before = weights
        for number in range(1, 400):
            after = weights + 0.01 * (-1) ** number
            places = select(policy)
            policy.freeze(torch.zeros(4, dtype=torch.bool))  # judge only: every round is a sample
            policy.applied(before - after, server(after, number), places)
            before = after
        measured = policy.ratio.signed.abs() / policy.ratio.absolute
        assert measured == pytest.approx(torch.full((4,), ratio), abs=0.01)


def test_the_released_label_is_permanent_and_one_vote_of_ten_sends_it():
    policy = GWPFReleased(ReleasedSettings(), 3, CPU)
    policy.freeze(torch.tensor([True, True, False]))
    places = select(policy, [torch.tensor([True, False])], clients=10)
    assert places.mask.tolist() == [True, False, True]

    assert (places.count, places.thawed(policy.labelled), policy.labelled) == (2, 1, 2)
    assert policy.ballot_bytes() == 8
    policy.applied(torch.ones(3), server(torch.zeros(3)), places)
    assert policy.frozen.tolist()[:2] == [True, True]


def test_the_released_code_never_records_the_last_step_of_a_round():
    policy = GWPFReleased(ReleasedSettings(ema=0.0), 1, CPU)
    policy.freeze(torch.tensor([True]))
    own = turn(torch.zeros(1), torch.zeros(1))
    policy.entering(own, {})
    for value in (1.0, 3.0, 103.0):
        own.params.fill_(value)
        policy.stepped(own)
    # with no memory, the last recorded difference: 1 - 3
    assert own.work["released.signed"].item() == -2.0
    assert own.work["released.last"].item() == 3.0
