"""The interface of a reduction, from the messages of a group's clients to means on all ranks.

What is done with the means is the algorithm's business. An exchange is a generator: it yields each
collective that it has started, and continues once that has ended. So reductions nest by `yield
from`, and several can be under way at once (`Handle`).
"""

import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from trainer.exchange.group import Group, Work
from trainer.exchange.lanes import Poll
from trainer.exchange.message import Delivery, Message, Places, Terms

Steps = Generator[Work, None, Delivery]


class Exchange:
    """One exchange: `add` each message of this rank, then `finish`."""

    def add(self, message: Message) -> Mapping[str, Tensor] | None:
        """Take a message; its vectors must not change any more.

        If the terms require a report, return what the others receive of it, dense like the message
        itself, or None if only the delivery can tell; otherwise nothing. Messages are added in the
        order of clients.
        """
        raise NotImplementedError

    def finish(self, places: Places, stop: bool, poll: Poll | None = None) -> Steps:
        """Exchange the messages; `places`: the round's, even if the terms contained them.

        `stop`: whether this rank was asked to stop; `poll`: votes that travel with the values. All
        ranks send both, also without participants.
        """
        raise NotImplementedError


class Reduction:
    """Base of all reductions. The attributes declare what it fits."""

    masks: bool = True  # may any places be left out of messages? else only whole rows
    linear: ClassVar[bool] = True  # is the mean the weighted sum of what was sent?
    trips: ClassVar[int] = 1  # messages of a client to the owners and back, in one exchange
    folds: ClassVar[bool] = False  # can it take messages before it is known which places travel?

    def begin(self, group: Group, terms: Terms) -> Exchange:
        """Start an exchange on these terms; called on every rank, also without participants."""
        raise NotImplementedError

    def gather(self, group: Group) -> None:
        """Have all ranks agree on state that each has a share of; all call it before a checkpoint.

        Between two calls such state may differ, and `state` with it.
        """

    def decisive(self) -> Sequence[Tensor] | None:
        """Return what decides how messages are read next, which ranks compare; None: nothing."""
        return None

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of the state that all ranks agree on."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""


class Handle:
    """An exchange under way: its first collective has been started.

    working, waiting: the seconds of its own steps, and those in which it waited for collectives.
    """

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.working = self.waiting = 0.0
        self.work: Work | None = None
        self.delivery: Delivery | None = None
        self._proceed()

    def _proceed(self) -> None:
        start = time.perf_counter()
        try:
            self.work = next(self.steps)
        except StopIteration as end:
            self.work, self.delivery = None, end.value
        self.working += time.perf_counter() - start

    def poll(self) -> bool:
        """Go on as far as nothing has to be waited for; return whether the exchange is over."""
        while self.work is not None and self.work.over():
            self.work.wait()
            self._proceed()
        return self.work is None

    def wait(self) -> Delivery:
        """Wait for the last collective, and return the delivery."""
        while self.work is not None:
            start = time.perf_counter()
            self.work.wait()
            self.waiting += time.perf_counter() - start
            self._proceed()
        assert self.delivery is not None
        return self.delivery
