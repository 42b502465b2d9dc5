"""What is due in a round: learning rate, evaluation, checkpoint; by phases and warm-up."""

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
        for step in range(steps):
            ours = plan.lr(chosen, number, step, steps)
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
