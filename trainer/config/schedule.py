"""Settings of when clients work and synchronise: phases, and stragglers.

Learning rates and due dates that follow from them are computed in trainer/engine/plan.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from pydantic import model_validator

from trainer.config.base import LARGE, MANY, Only, Section, setting
from trainer.config.nodes import Nodes

# The lowest learning rate that a number of steps is computed from: with the largest alpha, too, the
# square of their ratio is a float.
LEAST = 1e-30


class Phase(Section):
    """A stretch of rounds with the same amount of local work, or with one that the rate decides.

    With `alpha` it is that of the Quadratic Synchronization Rule (QSR; Gu et al., ICLR 2024): a
    round that begins with the learning rate eta takes H = max(H_base, floor((alpha / eta)^2)) local
    steps, so rounds are few where the rate has decayed. Symbols: H_base = steps; eta = optimizer.lr
    times the factor of `decay`, without warm-up.
    """

    effects: ClassVar[dict[str, Only]] = {"lr_end": Only("decay", ("cosine", "linear"))}
    rounds: int | None = setting(
        None,
        help="length of the phase; empty in the last: until the end",
        unit="rounds",
        ge=1,
        le=MANY,
    )
    total_steps: int | None = setting(
        None,
        help="length of the phase in local steps, instead of rounds; its last round takes those "
        "that are left",
        unit="steps",
        ge=1,
        le=10**6,
    )
    steps: int | None = setting(
        None,
        help="local steps per round (H); with alpha: at least so many (H_base)",
        unit="steps",
        ge=1,
        le=MANY,
    )
    alpha: float | None = setting(
        None,
        help="alpha of the Quadratic Synchronization Rule: a round takes (alpha / eta)^2 local "
        "steps, rounded down, where that is more than steps; empty: always steps",
        gt=0,
        le=LARGE,
    )
    epochs: int | None = setting(
        None,
        help="passes over the client's data per round, instead of steps",
        unit="passes",
        ge=1,
        le=MANY,
    )

    lr_scale: float = setting(
        1.0,
        help="factor on optimizer.lr in this phase, with decay at its start: 0.1 is a decay by ten",
        gt=0,
        le=LARGE,
    )
    decay: Literal["cosine", "linear"] | None = setting(
        None,
        help="how the factor changes over the phase, step by step, from lr_scale to lr_end; "
        "empty: not at all",
    )
    lr_end: float | None = setting(
        None,
        help="factor on optimizer.lr that a decay ends at, after the last step; empty: 0",
        ge=0,
        le=LARGE,
    )
    evaluate_every: int | None = setting(
        None,
        help="replaces evaluation.every in this phase",
        unit="rounds",
        ge=1,
        le=MANY,
        learned=False,
    )
    checkpoint_every: int | None = setting(
        None,
        help="replaces checkpoint.every in this phase; 0: none in it, nor after its last round",
        unit="rounds",
        ge=0,
        le=MANY,
        learned=False,
    )

    @model_validator(mode="after")
    def _one_measure_of_work(self) -> "Phase":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("set either steps or epochs, and leave the other empty (steps=)")
        return self

    @model_validator(mode="after")
    def _its_length_is_known(self) -> "Phase":
        if self.rounds is not None and self.total_steps is not None:
            raise ValueError("set either rounds or total_steps, and leave the other empty")
        if self.epochs is not None and (self.alpha is not None or self.total_steps is not None):
            raise ValueError("alpha and total_steps count local steps; set steps instead of epochs")
        if self.decay is not None and self.rounds is None and self.total_steps is None:
            raise ValueError("a decay ends with its phase; set total_steps, or rounds")
        if self.decay is not None and self.alpha is not None and self.total_steps is None:
            raise ValueError("with alpha and a decay, the phase's length is in total_steps; set it")
        return self

    @property
    def ends(self) -> bool:
        """Whether no round may come after the phase if it is the last one."""
        return self.decay is not None or self.total_steps is not None

    def factor(self, share: float) -> float:
        """Return the factor on optimizer.lr when this share of the phase is over."""
        if self.decay is None:
            return self.lr_scale
        left = 1 - share if self.decay == "linear" else (1 + math.cos(math.pi * share)) / 2
        end = self.lr_end or 0.0
        return end + (self.lr_scale - end) * left

    def local_steps(self, share: float, lr: float) -> int:
        """Return H of a round that begins when this share of the phase is over; lr: optimizer.lr.

        It is rounded down with some room: 0.3 / 0.1 is just below 3, and the last bit of a cosine
        may differ between the machines of two ranks.
        """
        assert self.steps is not None
        if self.alpha is None:
            return self.steps
        ratio = self.alpha / max(lr * self.factor(share), LEAST)
        return max(self.steps, int(min(ratio * ratio * (1 + 1e-9), MANY)))


@lru_cache(maxsize=16)
def _starts(phase: Phase, lr: float) -> Sequence[int]:
    """Return the local steps of a phase before each of its rounds, and at last all: (rounds + 1,).

    The phase has total_steps; lr: optimizer.lr.
    """
    assert phase.total_steps is not None
    starts = [0]
    while (done := starts[-1]) < phase.total_steps:
        steps = phase.local_steps(done / phase.total_steps, lr)
        starts.append(min(done + steps, phase.total_steps))
    return starts


@dataclass(frozen=True)
class Place:
    """Where a round is in the schedule.

    number: of the round in its phase, from 1; steps: H, the local steps of a client that is not
    slow (None: they are counted in passes); begin, end: the share of the phase that is over before
    and after it, 0 if the phase is as long as the run.
    """

    phase: Phase
    number: int
    steps: int | None
    begin: float
    end: float

    def factor(self, share: float) -> float:
        """Return the factor on optimizer.lr when this share of the round is over."""
        return self.phase.factor(self.begin + (self.end - self.begin) * share)


class Schedule(Section):
    """The phases of a run: Local SGD is one phase, post-local SGD is two."""

    batch_size: int | None = setting(
        32,
        help="samples per local step; empty: all samples of the client",
        unit="samples",
        ge=1,
        le=MANY,
    )
    phases: tuple[Phase, ...] = setting(
        (Phase(steps=5),), help="phases in order; the last may be open-ended", min_length=1
    )
    nodes: Nodes = setting(Nodes(), help="averages within nodes, between those of all clients")

    @model_validator(mode="after")
    def _only_the_last_is_open(self) -> "Schedule":
        if any(phase.rounds is None and phase.total_steps is None for phase in self.phases[:-1]):
            raise ValueError("phases: every phase but the last needs rounds or total_steps")
        return self

    def lengths(self, lr: float) -> list[int | None]:
        """Return the rounds of each phase, None if it has no end; lr: optimizer.lr."""
        return [
            phase.rounds if phase.total_steps is None else len(_starts(phase, lr)) - 1
            for phase in self.phases
        ]

    def steps_until(self, rounds: int, lr: float) -> int | None:
        """Return a client's local steps in the first rounds; None if passes count some of them.

        lr: optimizer.lr; a client that is slow takes fewer.
        """
        steps = 0
        for phase, length in zip(self.phases, [*self.lengths(lr)[:-1], None], strict=True):
            if phase.steps is None:
                return None
            own = rounds if length is None else min(rounds, length)
            if phase.total_steps is not None:
                steps += _starts(phase, lr)[own]
            else:
                steps += own * phase.local_steps(0.0, lr)
            rounds -= own
        return steps

    def place(self, round_number: int, lr: float) -> Place:
        """Return where round `round_number` (from 1) is; lr: optimizer.lr.

        A last phase that does not end (Phase.ends) goes on beyond its rounds.
        """
        at = 0
        for length in self.lengths(lr)[:-1]:
            assert length is not None
            if round_number <= length:
                break
            at, round_number = at + 1, round_number - length
        phase = self.phases[at]
        if phase.total_steps is not None:
            starts = _starts(phase, lr)
            assert round_number < len(starts)
            before, after = starts[round_number - 1 : round_number + 1]
            share = before / phase.total_steps, after / phase.total_steps
            return Place(phase, round_number, after - before, *share)
        steps = None if phase.steps is None else phase.local_steps(0.0, lr)
        rounds = phase.rounds or math.inf
        share = (round_number - 1) / rounds, round_number / rounds
        return Place(phase, round_number, steps, *share)


class Stragglers(Section):
    """Clients that fail a round: some are unreachable, some finish only part of their steps."""

    effects: ClassVar[dict[str, Only]] = {"least": Only("slow", remedy="0.5")}
    unreachable: float = setting(
        0.0,
        help="share of a round's clients that never answer; drawn again each round, and at least "
        "one client remains",
        ge=0,
        lt=1,
    )
    slow: float = setting(
        0.0,
        help="probability that a reachable client finishes only part of its local steps",
        ge=0,
        le=1,
    )
    least: float = setting(
        0.1,
        help="smallest share of its steps that a slow client finishes; drawn between this and 1",
        gt=0,
        le=1,
    )
