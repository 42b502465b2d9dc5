"""What is due in a round: learning rate, evaluation, checkpoint; by phases, decays and warm-up."""

import math

import pytest
import torch

from tests import bounds
from trainer.config.load import load
from trainer.engine import plan


def experiment(**settings):
    return load(settings)[0]


def test_warm_up_is_torchs_linear_lr_by_local_steps():
    steps, rounds = 4, 5
    chosen = experiment(
        rounds=8,
        optimizer={"lr": 0.4, "warmup_rounds": rounds, "warmup_lr": 0.1},
        schedule={"phases": [{"steps": steps}]},
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    theirs = torch.optim.lr_scheduler.LinearLR(optimizer, 0.25, 1.0, total_iters=steps * rounds)
    rounding = bounds.of_sums(steps * rounds, unit=bounds.FP64)  # theirs adds step by step
    for number in range(1, 9):
        for ours in plan.rates(chosen, number, steps):
            assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=rounding)
            optimizer.step()
            theirs.step()


def test_phases_decay_the_learning_rate():
    phases = [
        {"rounds": 2, "steps": 1},
        {"rounds": 3, "steps": 2, "lr_scale": 0.1},
        {"steps": 3, "lr_scale": 0.01},
    ]
    chosen = experiment(rounds=8, optimizer={"lr": 2.0}, schedule={"phases": phases})
    rates = [plan.lr(chosen, number) for number in range(1, 9)]
    assert rates == pytest.approx([2, 2, 0.2, 0.2, 0.2, 0.02, 0.02, 0.02])


def test_a_phase_counts_its_own_rounds_to_the_next_evaluation_and_checkpoint():
    phases = [
        {"rounds": 3, "steps": 1, "evaluate_every": 2},
        {"rounds": 4, "steps": 1, "evaluate_every": 3, "checkpoint_every": 2},
        {"steps": 1},
    ]
    chosen = experiment(
        rounds=11,
        schedule={"phases": phases},
        evaluation={"every": 4},
        checkpoint={"every": 5},
    )
    rounds = range(1, 12)
    assert [n for n in rounds if plan.evaluated(chosen, n)] == [2, 6, 8, 11]
    assert [n for n in rounds if plan.saved(chosen, n)] == [3, 5, 7, 10]


@pytest.mark.parametrize(
    ("checkpoint", "of_the_second", "due"),
    [
        ({}, None, [2, 4]),
        ({"every": 3}, None, [2, 3, 4, 6]),
        ({"every": 3, "at_end": False}, None, [2, 3, 4, 6]),
        ({"at_end": False}, None, []),
        ({}, 0, [2]),
        ({"at_end": False}, 2, [4]),
    ],
)
def test_a_checkpoint_is_due_after_the_last_round_of_a_phase(checkpoint, of_the_second, due):
    """Except after the run's last round, which at_end alone decides."""
    phases = [
        {"rounds": 2, "steps": 1},
        {"rounds": 2, "steps": 1, "checkpoint_every": of_the_second},
        {"rounds": 3, "steps": 1},
    ]
    chosen = experiment(rounds=7, schedule={"phases": phases}, checkpoint=checkpoint)
    assert [n for n in range(1, 8) if plan.saved(chosen, n)] == due


GROWING = {"steps": 2, "alpha": 0.06, "total_steps": 60}


def planned(phases, rounds, lr=0.05, **settings):
    """The local steps of each round."""
    chosen = experiment(rounds=rounds, optimizer={"lr": lr} | settings, schedule={"phases": phases})
    return chosen, [plan.place(chosen, number).steps for number in range(1, rounds + 1)]


@pytest.mark.parametrize("alpha", [None, 0.06])
@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_a_decay_is_torchs_step_by_step_whatever_the_rounds(decay, alpha):
    lr, total = 0.05, 60
    phase = {"steps": 4, "alpha": alpha, "total_steps": total, "decay": decay, "lr_end": 0.1}
    (rounds,) = experiment(schedule={"phases": [phase]}, rounds=1).schedule.lengths(lr)
    chosen, steps = planned([phase], rounds, lr)
    assert sum(steps) == total
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    if decay == "cosine":
        theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total, 0.1 * lr)
    else:
        theirs = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total)
    rounding = bounds.of_sums(total, lr, unit=bounds.FP64)  # theirs goes from step to step
    for number, own in enumerate(steps, 1):
        for ours in plan.rates(chosen, number, own):
            assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=rounding)
            optimizer.step()
            theirs.step()


@pytest.mark.parametrize("decay,rounds", [("cosine", 17), ("linear", 16)])
def test_a_round_takes_the_square_of_alpha_over_its_first_rate_in_steps(decay, rounds):
    """max(H_base, floor((alpha / eta)^2)), and the last round what is left of the phase."""
    chosen, steps = planned([GROWING | {"decay": decay}], rounds)
    rates = [plan.lr(chosen, number) for number in range(1, rounds + 1)]
    ours = [max(2, math.floor((0.06 / eta) ** 2)) for eta in rates]
    assert steps[:-1] == ours[:-1] and steps[-1] == 60 - sum(ours[:-1]) <= ours[-1]
    assert steps[:-1] == sorted(steps[:-1]) and steps[0] == 2 < steps[-2]


def test_the_square_is_rounded_down_where_the_division_is_not_exact():
    assert 0.3 / 0.1 < 3
    assert planned([{"steps": 1, "alpha": 0.3}], 1, lr=0.1)[1] == [9]


def test_a_lower_factor_of_a_phase_means_more_steps_and_a_warm_up_does_not():
    phases = [
        {"rounds": 2, "steps": 1, "alpha": 0.1},
        {"rounds": 2, "steps": 1, "alpha": 0.1, "lr_scale": 0.1},
        {"steps": 3},
    ]
    assert planned(phases, 6)[1] == [4, 4, 400, 400, 3, 3]
    assert planned(phases, 6, warmup_rounds=3, warmup_lr=0.001)[1] == [4, 4, 400, 400, 3, 3]


def test_a_slow_client_takes_its_steps_over_the_same_stretch_of_the_decay():
    chosen, _ = planned([{"steps": 4, "total_steps": 8, "decay": "linear"}], 2, lr=0.8)
    assert plan.rates(chosen, 2, 4) == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert plan.rates(chosen, 2, 2) == pytest.approx([0.4, 0.2])


def test_a_decay_over_rounds_is_one_over_their_steps():
    over_rounds, _ = planned([{"epochs": 1, "rounds": 4, "decay": "linear"}], 4, lr=0.8)
    rates = [rate for number in range(1, 5) for rate in plan.rates(over_rounds, number, 2)]
    assert rates == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_a_phase_of_a_number_of_steps_ends_like_any_other():
    phases = [
        GROWING | {"decay": "cosine", "checkpoint_every": 10},
        {"steps": 1, "evaluate_every": 2},
    ]
    chosen, _ = planned(phases, 23)
    assert chosen.schedule.lengths(0.05) == [17, None]
    assert plan.boundaries(chosen) == {17}
    assert [n for n in range(1, 24) if plan.saved(chosen, n)] == [10, 17]
    assert [n for n in range(18, 24) if plan.evaluated(chosen, n)] == [19, 21, 23]
