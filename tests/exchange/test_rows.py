"""Rows: what they are, how they are judged, and that they freeze and thaw as wholes."""

import pytest
import torch
from torch import Tensor

from tests.exchange.turns import select, server, turn
from trainer.config.communication import APF as APFSettings
from trainer.config.communication import GWPF as GWPFSettings
from trainer.exchange.policies.apf import APF
from trainer.exchange.policies.drift import DriftRatio
from trainer.exchange.policies.gwpf import GWPF
from trainer.exchange.policies.policy import Policy
from trainer.exchange.policies.stagger import whole
from trainer.exchange.rows import Rows
from trainer.layout import Layout

CPU = torch.device("cpu")
LAYOUT = Layout([("conv", (3, 2, 2)), ("bias", (3,)), ("scale", ()), ("fc", (20, 5))])
ROWS = Rows(LAYOUT)
EAGER = {"threshold": 0.5, "ema": 0.8, "tighten_at": 1.0}
SIZE = LAYOUT.size


def created(name: str, layout: Layout, **more: object) -> Policy:
    kind, settings = {"apf": (APF, APFSettings), "gwpf": (GWPF, GWPFSettings)}[name]
    return kind(settings(**EAGER, **more), layout.size, CPU, 3, layout)


def test_rows_are_those_of_the_first_dimension():
    assert ROWS.count == 3 + 3 + 1 + 20
    values = torch.arange(float(SIZE))
    sums = ROWS.sums(values)
    assert sums[:8].tolist() == [6, 22, 38, 12, 13, 14, 15, 16 + 17 + 18 + 19 + 20]
    assert ROWS.first(values)[:8].tolist() == [0, 4, 8, 12, 13, 14, 15, 16]
    spread = ROWS.spread(torch.arange(ROWS.count))
    assert torch.equal(ROWS.first(spread), torch.arange(ROWS.count))
    assert torch.equal(ROWS.sums(spread.float())[:3], 4 * torch.arange(3.0))


def test_a_row_is_judged_by_the_sums_over_it():
    """|E| / Ea is 1 and 1, and 0 and 0.9: a row whose large values move is not stable."""
    ratio = DriftRatio(4, 0.5, CPU)
    ratio.signed, ratio.absolute = (
        torch.tensor([1.0, -1.0, 0.0, 0.9]),
        torch.tensor([1.0, 1.0, 9.0, 1.0]),
    )
    rows = Rows(Layout([("a", (2, 2))]))
    assert ratio.below(0.5, rows).tolist() == [False, False, True, True]
    assert ratio.below(0.05, rows).tolist() == [False] * 4


def trained(policy: Policy, rounds: int, seed: int = 0) -> list[Tensor]:
    """The frozen coordinates after each round of two clients, whose values drift or oscillate."""
    draws = torch.Generator().manual_seed(seed)
    anchor, memories, seen = torch.zeros(policy.size), [{}, {}], []
    drift = torch.linspace(0, 1, policy.size)
    for number in range(1, rounds + 1):
        ballots, moved = [], []
        for memory in memories:
            own = turn(anchor.clone(), anchor, number)
            policy.entering(own, memory)
            for _ in range(3):
                own.params -= 0.1 * (torch.randn(policy.size, generator=draws) + drift)
                policy.stepped(own)
            ballot = policy.leaving(own, memory)
            if ballot is not None:
                assert ballot.shape == (policy.items,)
                ballots.append(ballot)
            moved.append(anchor - own.params)
        assert policy.ballot_bytes() == (-(-policy.items // 8) if ballots else 0)
        if policy.voting:
            votes = sum(ballot.int() for ballot in ballots)
            places = policy.select(votes >= policy.quorum(2))
        else:
            places = select(policy)
        change = (moved[0] + moved[1]) / 2
        if places.mask is not None:
            change *= places.mask
        anchor = anchor - change
        policy.applied(change.clone(), server(anchor, number), places)
        seen.append(policy.frozen.clone())
    return seen


@pytest.mark.parametrize("more", [{}, {"stagger": True}], ids=["plain", "stagger"])
@pytest.mark.parametrize("name", ["apf", "gwpf"])
def test_rows_freeze_and_thaw_as_wholes(name, more):
    policy = created(name, LAYOUT, unit="row", **more)
    masks = trained(policy, 60)
    own = torch.stack([ROWS.first(mask) for mask in masks])
    assert all(torch.equal(ROWS.spread(row), mask) for row, mask in zip(own, masks, strict=True))
    assert (own.any(0) & ~own.all(0)).any(), "some row must have frozen and thawed"
    assert not torch.equal(own[:, 7:].any(1), own[:, 7:].all(1)), "rows are judged one by one"


@pytest.mark.parametrize("random", ["sharp", "aggressive", "plus"])
def test_rows_are_frozen_at_random_as_wholes_too(random):
    short = {"random_probability_ramp": 20, "random_length_ramp": 2.0}
    policy = created("apf", LAYOUT, unit="row", random=random, **short)
    masks = trained(policy, 30)
    assert any(mask.any() for mask in masks)
    assert all(torch.equal(ROWS.spread(ROWS.first(mask)), mask) for mask in masks)


@pytest.mark.parametrize("more", [{}, {"stagger": True}], ids=["plain", "stagger"])
@pytest.mark.parametrize("name", ["apf", "gwpf"])
def test_rows_of_one_value_are_elements(name, more):
    row, element = (
        trained(created(name, whole(50), unit=unit, **more), 40) for unit in ("row", "element")
    )
    assert any(mask.any() for mask in element)
    assert all(torch.equal(a, b) for a, b in zip(row, element, strict=True))
