"""The order in which clients draw their samples: a function of (seed, client, batch number).

A sampler has no state that must move, so any rank can train any client. It also computes how many
steps a pass has and how many samples a number of steps takes, so counters need no exchange.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from trainer.keys import Purpose, stream


def order(seed: int, client: int, epoch: int, n: int) -> Tensor:
    """Return the order of a client's n samples in one pass: a permutation, (n,), on the CPU."""
    return torch.randperm(n, generator=stream(seed, Purpose.ORDER, client, epoch))


@lru_cache(maxsize=2)  # a client may end one pass and begin the next, as the next client will too
def shared_order(seed: int, epoch: int, n: int) -> Tensor:
    """Return the order of n samples that all clients share, in one pass: (n,)."""
    return torch.randperm(n, generator=stream(seed, Purpose.DEAL, epoch))


class Sampler:
    """The samples of each client, pass after pass; the last batch of a pass may be smaller.

    Symbols: n, samples of a client (its share of a pass, if clients share all samples); B, samples
    of a full batch; k, the number of a batch since the run began.
    """

    def __init__(
        self,
        parts: Sequence[Tensor],
        *,
        batch_size: int | None,
        seed: int,
        reshuffle: bool = True,
        shared: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """Take each client's samples, as places in the data set, (n,) int64 on the CPU.

        batch_size: B; None: all that the client holds. Without `reshuffle` every pass goes through
        the samples as they are, as GWPF's loader does: the partition has put them in random order
        already. shared: all clients hold the same samples, and a client's pass is its share of
        them. Places are handed out on `device`.
        """
        self.parts, self.seed, self.reshuffle, self.device = parts, seed, reshuffle, device
        self.sizes = [len(part) // len(parts) if shared else len(part) for part in parts]
        self._batch_size = batch_size
        self._pass: dict[tuple[int, int], Tensor] = {}  # the latest (client, pass) requested
        assert all(self.sizes) and batch_size != 0

    def size(self, client: int) -> int:
        """Return n, the number of samples in a pass."""
        return self.sizes[client]

    def batch_size(self, client: int) -> int:
        """Return B, the number of samples in a full batch."""
        return self.size(client) if self._batch_size is None else self._batch_size

    def steps_per_pass(self, client: int) -> int:
        """Return the number of local steps in a pass."""
        return -(-self.size(client) // self.batch_size(client))

    def samples(self, client: int, before: int, steps: int) -> int:
        """Return how many samples `steps` take, after `before` steps since the run began."""
        n, batch, per_pass = self.size(client), self.batch_size(client), self.steps_per_pass(client)

        def taken(steps: int) -> int:
            passes, rest = divmod(steps, per_pass)
            return passes * n + min(rest * batch, n)

        return taken(before + steps) - taken(before)

    def places(self, client: int, k: int) -> Tensor:
        """Batch number k of a client, as places in the data set: (B,), or fewer at a pass's end."""
        epoch, at = divmod(k, self._steps(client))
        batch = self.batch_size(client)
        if (client, epoch) not in self._pass:
            self._pass = {(client, epoch): self._order(client, epoch).to(self.device)}
        return self._pass[client, epoch][at * batch : (at + 1) * batch]

    def every(self, client: int) -> Tensor:
        """Return all samples of a client, (n,), in a fixed order."""
        return self.parts[client].to(self.device)

    def _steps(self, client: int) -> int:
        """Batches that are drawn at a time."""
        return self.steps_per_pass(client)

    def _order(self, client: int, epoch: int) -> Tensor:
        part = self.parts[client]
        return part[order(self.seed, client, epoch, len(part))] if self.reshuffle else part


class WithReplacement(Sampler):
    """Samples drawn independently, with replacement; each batch is full."""

    def samples(self, client: int, before: int, steps: int) -> int:
        return steps * self.batch_size(client)

    def _steps(self, client: int) -> int:
        return -(-len(self.parts[client]) // self.batch_size(client))

    def _order(self, client: int, epoch: int) -> Tensor:
        part = self.parts[client]
        count = self._steps(client) * self.batch_size(client)
        draws = stream(self.seed, Purpose.ORDER, client, epoch)
        return part[torch.randint(len(part), (count,), generator=draws)]


class SharedSampler(Sampler):
    """Samples that all N clients share: in a pass, step t of client c takes batch t N + c.

    One step of all clients therefore consumes one batch of N B samples of the whole set, whichever
    rank computes it. Samples that do not fill a step of all clients are dropped from the pass.
    """

    def steps_per_pass(self, client: int) -> int:
        return self.size(client) // self.batch_size(client)

    def samples(self, client: int, before: int, steps: int) -> int:
        return steps * self.batch_size(client)

    def places(self, client: int, k: int) -> Tensor:
        epoch, at = divmod(k, self.steps_per_pass(client))
        batch, every = self.batch_size(client), self.parts[client]
        first = (at * len(self.parts) + client) * batch
        chosen = slice(first, first + batch)
        # only the batch's places go to the device, not those of the whole pass
        if self.reshuffle:
            return every[shared_order(self.seed, epoch, len(every))[chosen]].to(self.device)
        return every[chosen].to(self.device)
