"""The budget of low rank: never overspent, spent where updates move, and alike on all ranks."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedctl.bundled import PRESETS
from tests.exchange.messages import LAYOUT, factored
from tests.ranks import ranks
from trainer.config.codecs import LowRank as Settings
from trainer.config.errors import ConfigError
from trainer.config.load import load
from trainer.exchange.reductions.budget import PERIOD, Budget
from trainer.exchange.reductions.factors import Format, tables
from trainer.exchange.reductions.low_rank import LowRank, orthonormal

ROUNDS = 2 * PERIOD + 1
SMALL = {"bits": 4, "block": 8}


def settings(most: int, **more: object) -> Settings:
    return Settings.model_validate({"name": "lowrank", "budget": {"bytes": most}, **SMALL, **more})


def budget(most: int, **more: object) -> Budget:
    return Budget(settings(most, **more), list(tables(LAYOUT, 1)), LAYOUT.size)


def ones(factor: float) -> list[list[Tensor]]:
    """Second factors of LAYOUT's matrices; the first's are `factor` times longer."""
    return [[torch.eye(45, 2) * factor, torch.eye(24, 2), torch.eye(4, 1)]]


MATRICES = ["conv", "fc", "last"]
LEAST = budget(10**6).size([1, 1, 1])
SOME = budget(10**6).size([2, 2, 1]) + 30


def updates(moving: str) -> list[Tensor]:
    """Updates of three clients, of full rank in one matrix and small in all else."""
    draws = torch.Generator().manual_seed(0)
    sent = [0.01 * torch.randn(ROUNDS, LAYOUT.size, generator=draws) for _ in range(3)]
    for rows in sent:
        for piece in LAYOUT.pieces:
            if piece.name == moving:
                rows[:, piece.place] *= 1000
    return sent


@given(st.integers(LEAST, 3000), st.integers(1, 8), st.floats(1e-3, 1e3))
def test_no_decision_overspends(most: int, rank: int, factor: float) -> None:
    found = budget(most, rank=rank)
    for number in range(1, ROUNDS):
        assert found.size(found.ranks) <= most
        assert all(1 <= r <= m.most for r, m in zip(found.ranks, found.matrices, strict=True))
        found.spend(number, ones(factor), told=False)


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_its_bytes_are_those_of_the_code(bits: int) -> None:
    given = {"bits": bits} if bits < 32 else {"bits": bits, "block": 64}
    found = budget(10**6, rank=3, **given)
    form = Format(found.tables(), settings(1, **given))
    exact = sum(code.size(code.count) for code in (form.left, form.right, form.plain))
    # here each factor is rounded up to whole bytes, there the buffer of all
    assert exact <= found.size(found.ranks) <= exact + 2 * len(found.matrices)


@pytest.mark.parametrize("moving", ["conv", "fc"])
def test_columns_go_to_the_matrix_that_moves(moving: str) -> None:
    """And no client's message is larger than the budget in any round."""
    chosen = settings(SOME).model_dump()
    (found,) = ranks(1).run(factored, chosen, updates(moving), ROUNDS)
    totals = [0, *(answer["payload"] for answer in found)]
    assert all(after - before <= 3 * SOME for before, after in pairwise(totals))
    before, after = found[0]["ranks"], found[-1]["ranks"]
    assert before == [2, 2, 1]
    for at, name in enumerate(MATRICES):
        assert (after[at] > before[at]) == (name == moving), after


def test_ranks_and_means_do_not_depend_on_the_number_of_ranks() -> None:
    chosen = settings(SOME).model_dump()
    (alone,) = ranks(1).run(factored, chosen, updates("fc"), ROUNDS)
    assert alone[0]["ranks"] != alone[-1]["ranks"]
    for answers in ranks(3).run(factored, chosen, updates("fc"), ROUNDS):
        for one, other in zip(alone, answers, strict=True):
            assert (one["mean"]["delta"] == other["mean"]["delta"]).all()
            assert one["ranks"] == other["ranks"]


def test_bases_stay_orthonormal_where_ranks_change() -> None:
    reduction = LowRank(settings(3000), LAYOUT, 3)
    bases, draws = reduction.basis("delta", torch.zeros(1)), torch.Generator().manual_seed(0)
    assert reduction.budget is not None
    reduction.budget.most = LEAST + 60  # less than it starts with: columns must go
    for number in range(1, ROUNDS):
        factors = [torch.randn(basis.shape, generator=draws) for basis in bases]
        reduction.bases["delta"] = [orthonormal(f, f) for f in factors]  # as after any round
        reduction.learn(number, {"delta": factors}, told=False)
        bases = reduction.bases["delta"]
        matrices = reduction.formats.whole.matrices
        assert [basis.shape[1] for basis in bases] == [m.full_rank for m in matrices]
        for basis in bases:
            gram = basis.double().T @ basis.double()
            assert (gram - torch.eye(len(gram), dtype=torch.float64)).abs().max() < 1e-6


def test_what_is_saved_decides_alike() -> None:
    one, other = (LowRank(settings(SOME), LAYOUT, 3) for _ in range(2))
    assert one.budget is not None and other.budget is not None
    one.basis("delta", torch.zeros(1))
    for number in range(1, PERIOD + 4):
        factors = [
            f[:, : m.full_rank]
            for f, m in zip(ones(50.0)[0], one.formats.whole.matrices, strict=True)
        ]
        one.learn(number, {"delta": factors}, told=False)
    other.load(one.state())
    assert other.budget.ranks == one.budget.ranks != [2, 2, 1]
    assert [m.full_rank for m in other.formats.whole.matrices] == other.budget.ranks
    assert other.budget.decided() == one.budget.decided()


def test_a_run_that_goes_on_with_more_bits_has_fewer_columns() -> None:
    one, other = LowRank(settings(SOME), LAYOUT, 3), LowRank(settings(SOME, bits=8), LAYOUT, 3)
    assert one.budget is not None and other.budget is not None
    one.basis("delta", torch.zeros(1))
    one.learn(1, {"delta": ones(1.0)[0]}, told=False)
    other.load(one.state())
    assert other.budget.size(other.budget.ranks) <= SOME < other.budget.size(one.budget.ranks)
    assert [basis.shape[1] for basis in other.bases["delta"]] == other.budget.ranks


@pytest.mark.parametrize("rows", [0, 1])
def test_rounds_in_which_few_rows_of_a_matrix_travel_take_nothing_from_it(rows: int) -> None:
    learnt, other = budget(SOME), budget(SOME)
    for number in range(1, PERIOD):
        learnt.spend(number, ones(10.0), told=False)
        other.spend(number, ones(10.0), told=False)
    few = [[torch.eye(45, 2)[:, :rows], *ones(10.0)[0][1:]]]
    learnt.spend(PERIOD, few, told=False)
    other.spend(PERIOD, ones(10.0), told=False)
    assert learnt.ranks == other.ranks and [len(own) for own in learnt.lengths] == [2, 2, 1]


def test_a_matrix_that_never_travels_takes_no_column_that_another_could_use() -> None:
    found = budget(SOME)
    for number in range(1, ROUNDS):
        found.spend(number, [[torch.zeros(45, 0), *ones(1.0)[0][1:]]], told=False)
    assert found.ranks[1] >= 2 and found.size(found.ranks) <= SOME


def test_what_diverges_is_judged_elsewhere() -> None:
    reduction = LowRank(settings(SOME), LAYOUT, 3)
    bases = reduction.basis("delta", torch.zeros(1))
    for number in range(1, PERIOD + 1):
        factors = [torch.full_like(basis, torch.nan) for basis in bases]
        reduction.learn(number, {"delta": factors}, told=False)
    assert reduction.budget is not None and reduction.budget.seen == 0


def test_stages_of_a_pipeline_have_none() -> None:
    tree = {"codec": settings(SOME).model_dump(exclude_none=True), "ranks": 2}
    with pytest.raises(ConfigError, match=r"codec.budget: .*; drop it, or set parallel.pipeline=1"):
        load({"extends": "fedavg-digits", **tree, "parallel": {"pipeline": 2}}, presets=PRESETS)


def test_too_few_bytes_are_refused_with_the_least() -> None:
    with pytest.raises(ConfigError, match=f"with one column .* takes {LEAST}; allow"):
        budget(LEAST - 1)
    assert budget(LEAST).ranks == [1, 1, 1]
