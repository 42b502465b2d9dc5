"""An exchange that is under way from one round into the next; at most one at a time.

When it is over depends on the network. Its mean is handed out when it is due, so that nothing that
is computed depends on that. Its collectives have a group of their own: those between the rounds
neither wait for it nor hold it up.
"""

import time
from collections.abc import Mapping
from typing import Any

from trainer.exchange.group import Group
from trainer.exchange.message import Delivery, Places
from trainer.exchange.reductions.reduction import Handle


class Overlap:
    """The exchange of this rank that is under way, or over and not due yet; steps: tau."""

    def __init__(self, steps: int, group: Group) -> None:
        self.steps, self.group = steps, group
        self.handle: Handle | None = None
        self.delivery: Delivery | None = None  # if the exchange is over
        self.since = 0.0  # when it was last known to be under way
        self.stop = False  # of the last exchange that arrived: was any rank asked to stop?

    @property
    def pending(self) -> bool:
        """Whether a mean is under way, or waits to be applied."""
        return self.handle is not None or self.delivery is not None

    def depart(self, handle: Handle) -> bool:
        """Take over an exchange that has begun; return what the last one said of stopping."""
        assert not self.pending, "one exchange is under way at a time"
        self.handle = handle
        return self.stop

    def resumes(self) -> None:
        """Note that a client begins to train; what is over by now, training has not hidden."""
        self.since = time.perf_counter()
        self.poll()

    def poll(self) -> float:
        """Go on with the exchange; return for how many seconds clients have trained meanwhile."""
        if self.handle is None:
            return 0.0
        before, self.since = self.since, time.perf_counter()
        if self.handle.poll():
            self.settle()
        return self.since - before

    def settle(self) -> None:
        """Wait until the exchange is over; every rank calls it at the same place of its program."""
        if self.handle is not None:
            self.delivery, self.handle = self.handle.wait(), None

    def land(self) -> Delivery:
        """Return what has arrived; nothing is pending afterwards."""
        self.settle()
        assert self.delivery is not None
        delivery, self.delivery = self.delivery, None
        self.stop = delivery.stop
        return delivery

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of an exchange, which is over."""
        assert self.handle is None
        if self.delivery is None:
            return {}
        places = self.delivery.places
        return {"mean": self.delivery.mean, "mask": places.mask, "size": places.size}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""
        if state:
            places = Places(state["size"], state["mask"])
            self.delivery = Delivery(dict(state["mean"]), places)
