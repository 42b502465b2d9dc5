"""The plan of a round: its learning rates, and whether it is evaluated or saved.

No other module combines the schedule's phases with the settings that they override.
"""

from itertools import accumulate

from trainer.config.schema import Experiment


def lr_scale(experiment: Experiment, round_number: int) -> float:
    """Return the factor on learning rates in the round's phase."""
    return experiment.schedule.phase(round_number).lr_scale


def lr(experiment: Experiment, round_number: int, step: int = 0, steps: int = 1) -> float:
    """Return eta at local step `step` (from 0) of `steps`: warm-up, then the phase's constant.

    In the warm-up it rises linearly by local steps, like torch's LinearLR.
    """
    settings = experiment.optimizer
    constant = settings.lr * lr_scale(experiment, round_number)
    done = round_number - 1 + step / steps
    if done >= settings.warmup_rounds:
        return constant
    return settings.warmup_lr + (constant - settings.warmup_lr) * done / settings.warmup_rounds


def rates(experiment: Experiment, round_number: int, steps: int) -> list[float]:
    """Return eta at each of a client's local steps."""
    return [lr(experiment, round_number, step, steps) for step in range(steps)]


def evaluated(experiment: Experiment, round_number: int) -> bool:
    """Return whether the model is evaluated after this round; after the last it always is."""
    phase, place = experiment.schedule.place(round_number)
    if round_number == experiment.rounds:
        return True
    if phase.evaluate_every is not None:
        return place % phase.evaluate_every == 0
    return round_number % experiment.evaluation.every == 0


def boundaries(experiment: Experiment) -> set[int]:
    """Return the last round of each phase, whose checkpoints other runs may start from."""
    lengths = [phase.rounds or 0 for phase in experiment.schedule.phases]
    return set(accumulate(lengths)) - {0}


def saved(experiment: Experiment, round_number: int) -> bool:
    """Return whether the schedule saves a checkpoint after this round; the run's end is apart."""
    phase, place = experiment.schedule.place(round_number)
    every, counted = phase.checkpoint_every, place
    if every is None:
        every, counted = experiment.checkpoint.every, round_number
    if every > 0 and counted % every == 0:
        return True
    # The end of a phase is where variants branch; a phase with checkpoint_every=0 asks for none.
    asked = every > 0 or (phase.checkpoint_every is None and experiment.checkpoint.at_end)
    return asked and round_number < experiment.rounds and round_number in boundaries(experiment)
