"""The plan of a round: its learning rates, and whether it is evaluated or saved.

No other module combines the schedule's phases with the settings that they override.
"""

from itertools import accumulate

from trainer.config.schedule import Place
from trainer.config.schema import Experiment


def place(experiment: Experiment, round_number: int) -> Place:
    """Return where a round is in the schedule."""
    return experiment.schedule.place(round_number, experiment.optimizer.lr)


def rates(experiment: Experiment, round_number: int, steps: int) -> list[float]:
    """Return eta at each of a client's local steps: warm-up, then the phase's rate.

    In the warm-up it rises linearly by local steps, like torch's LinearLR. A client that is slow
    takes fewer steps over the same stretch of the schedule.
    """
    settings, here = experiment.optimizer, place(experiment, round_number)
    found = []
    for share in (step / steps for step in range(steps)):
        rate = settings.lr * here.factor(share)
        done = round_number - 1 + share
        if done < settings.warmup_rounds:
            rate = settings.warmup_lr + (rate - settings.warmup_lr) * done / settings.warmup_rounds
        found.append(rate)
    return found


def lr(experiment: Experiment, round_number: int) -> float:
    """Return eta at the start of a round."""
    return rates(experiment, round_number, 1)[0]


def evaluated(experiment: Experiment, round_number: int) -> bool:
    """Return whether the model is evaluated after this round; after the last it always is."""
    if round_number == experiment.rounds:
        return True
    here = place(experiment, round_number)
    if here.phase.evaluate_every is not None:
        return here.number % here.phase.evaluate_every == 0
    return round_number % experiment.evaluation.every == 0


def boundaries(experiment: Experiment) -> set[int]:
    """Return the last round of each phase, whose checkpoints other runs may start from."""
    lengths = experiment.schedule.lengths(experiment.optimizer.lr)
    return set(accumulate(length or 0 for length in lengths)) - {0}


def saved(experiment: Experiment, round_number: int) -> bool:
    """Return whether the schedule saves a checkpoint after this round; the run's end is apart."""
    here = place(experiment, round_number)
    every, counted = here.phase.checkpoint_every, here.number
    if every is None:
        every, counted = experiment.checkpoint.every, round_number
    if every > 0 and counted % every == 0:
        return True
    # The end of a phase is where variants branch; a phase with checkpoint_every=0 asks for none.
    asked = every > 0 or (here.phase.checkpoint_every is None and experiment.checkpoint.at_end)
    return asked and round_number < experiment.rounds and round_number in boundaries(experiment)
