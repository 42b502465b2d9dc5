"""What the owners of shares keep of means: the error feedback of the way back to all ranks.

Symbols: u_t = the mean of what arrived in round t, C = coding, e = residual. The owner of a share
codes p = u_t + e instead of u_t and keeps e <- p - C(p), so all means delivered and the residual
add up to the sum of all u_t, as with a client's residual (transforms/error_feedback.py).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trainer.exchange.encoders import as_type
from trainer.exchange.group import Group


class Residuals:
    """A residual (P,) for each vector, by position in it: a rank changes only the share it owns.

    `gather` makes all shares known to all ranks. So a checkpoint holds them in one vector, which is
    divided anew by whatever ranks resume from it.
    """

    def __init__(self) -> None:
        self.vectors: dict[str, Tensor] = {}
        self.cuts: dict[str, tuple[int, ...]] = {}  # where shares begin and end, since the start

    def share(self, name: str, cuts: tuple[int, ...], rank: int, like: Tensor) -> Tensor:
        """Return a rank's share of a vector's residual, to be changed; zero at first."""
        whole = self.vectors.setdefault(name, like.new_zeros(cuts[-1]))
        self.cuts[name] = cuts
        return whole[cuts[rank] : cuts[rank + 1]]

    def gather(self, group: Group) -> None:
        """Exchange all shares; every rank calls it."""
        for name, cuts in self.cuts.items():
            whole = self.vectors[name]
            own = whole[cuts[group.rank] : cuts[group.rank + 1]].view(torch.uint8)
            width = whole.element_size()
            sizes = [width * (cuts[rank + 1] - cuts[rank]) for rank in range(group.size)]
            work, received = group.gather(own, sizes, {"control": len(own)})
            work.wait()
            whole.copy_(as_type(torch.cat(received), whole.dtype))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, after `gather`."""
        return {"residuals": self.vectors}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`, on any number of ranks."""
        self.vectors, self.cuts = dict(state["residuals"]), {}
