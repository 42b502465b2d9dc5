"""The ranks that exchange; each collective is counted from its tensors.

No other module calls a collective; torch's pipelines send by themselves, and the worker that runs
them counts that (trainer/workers/pipeline.py). A group of one exchanges nothing. Bytes that one of
W ranks sends:

    all-reduce (ring)    2 (W - 1) / W B    of a tensor of B bytes
    all-to-all           its pieces for the other ranks
    gather               (W - 1) b          of a piece of b bytes
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.config.errors import EnvironmentFault
from trainer.exchange.books import Books
from trainer.exchange.lanes import Poll


class PeerLost(EnvironmentFault):
    """A collective failed: another rank, or the network to it, was lost."""


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # gloo's and NCCL's own errors, timeouts among them
        raise PeerLost(f"lost another rank: {first_sentence(error)}") from error


def first_sentence(error: Exception) -> str:
    """Return the text of a collective's error, without the place in its source code."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.split(r"\. | \(this is", re.sub(r"^(\[[^\]]*\] )+", "", line))[0].rstrip(".")


class Waitable(Protocol):
    """A collective under way, as torch.distributed returns it."""

    def wait(self) -> object: ...

    def is_completed(self) -> bool: ...


class Work:
    """Collectives under way; `wait` ends when they have, or raises PeerLost."""

    def __init__(self, *parts: Waitable | None) -> None:
        self.parts = parts

    def wait(self) -> None:
        """Wait until the tensors hold the result."""
        with _together():
            for part in self.parts:
                if part is not None:
                    part.wait()

    def over(self) -> bool:
        """Return whether `wait` would return, or raise, at once."""
        return all(part is None or part.is_completed() for part in self.parts)


class Group:
    """Ranks that exchange: those of a process group; `rank` is this one's place among `size`."""

    def __init__(
        self,
        books: Books,
        device: torch.device,
        ranks: dist.ProcessGroup | None = None,
        *,
        alone: bool = False,
    ) -> None:
        """Take `ranks`, None: all there are; alone: only this one."""
        self.books, self.device, self.ranks = books, device, ranks
        alone = alone or not dist.is_initialized()
        self.rank = 0 if alone else dist.get_rank(ranks)
        self.size = 1 if alone else dist.get_world_size(ranks)

    # ------------------------------------------------------------------ tensors, under way

    def all_reduce(self, tensor: Tensor, kinds: Mapping[str, int] | None) -> Work:
        """Start to replace `tensor` by its sum over the ranks, bit-identical on each.

        kinds: its values, as {kind of traffic: number of values}; None: the caller has counted
        them, because the count itself travels.
        """
        if kinds is not None:
            assert sum(kinds.values()) == tensor.numel(), "every value that is sent has a kind"
            self.count_ring({kind: n * tensor.element_size() for kind, n in kinds.items()})
        if self.size == 1:
            return Work()
        with _together():
            return Work(dist.all_reduce(tensor, group=self.ranks, async_op=True))

    def all_to_all(
        self, boxes: Sequence[Sequence[Tensor]], sizes: Sequence[int], kinds: Mapping[str, int]
    ) -> tuple[Work, list[Tensor]]:
        """Start to send all of boxes[r] (bytes) to rank r; from rank r come sizes[r] bytes.

        kinds: the bytes for the other ranks, as {kind of traffic: number of bytes}.
        """
        sent = torch.cat([piece for box in boxes for piece in box])
        if self.size == 1:
            return Work(), [sent]
        lengths = [sum(piece.numel() for piece in box) for box in boxes]
        leaving = sum(lengths) - lengths[self.rank]
        assert sum(kinds.values()) == leaving, "every byte that is sent has a kind"
        for kind, count in kinds.items():
            self.books.wire[kind] += count
        received = torch.empty(sum(sizes), dtype=torch.uint8, device=self.device)
        with _together():
            work = dist.all_to_all_single(
                received, sent, list(sizes), lengths, group=self.ranks, async_op=True
            )
        return Work(work), list(received.split(list(sizes)))

    def gather(
        self, piece: Tensor, sizes: Sequence[int], kinds: Mapping[str, int]
    ) -> tuple[Work, list[Tensor]]:
        """Start to send every rank's piece (bytes, of any length) to every rank.

        kinds: this rank's piece, as {kind of traffic: number of bytes}.
        """
        leaving = {kind: (self.size - 1) * count for kind, count in kinds.items()}
        return self.all_to_all([[piece]] * self.size, sizes, leaving)

    def swap(
        self, outgoing: Sequence[tuple[Tensor, int]], incoming: Sequence[tuple[Tensor, int]]
    ) -> Work:
        """Start to send tensors to ranks and to receive others: the records of clients."""
        for tensor, _ in outgoing:
            self.books.wire["moves"] += tensor.numel() * tensor.element_size()
        ops = [self._between(dist.isend, tensor, rank) for tensor, rank in outgoing]
        ops += [self._between(dist.irecv, tensor, rank) for tensor, rank in incoming]
        with _together():
            return Work(*(dist.batch_isend_irecv(ops) if ops else ()))

    def passed(self, kind: str, count: int) -> None:
        """Count bytes that this rank has handed to torch's pipelines, which call no group."""
        self.books.wire[kind] += count

    def together(self) -> AbstractContextManager[None]:
        """Raise PeerLost for a failure inside the `with` block.

        The block must contain nothing of this rank's own that can fail.
        """
        return _together()

    def _between(self, way: Callable[..., object], tensor: Tensor, rank: int) -> dist.P2POp:
        return dist.P2POp(way, tensor, group=self.ranks, group_peer=rank)

    def count_ring(self, kinds: Mapping[str, int]) -> None:
        """Count this rank's part of what a ring all-reduce of these bytes by kind sends.

        Counts are whole bytes: the first ranks send the remainder of the division, so that all
        ranks together send each byte 2 (W - 1) times.
        """
        start = end = 0
        for kind, size in kinds.items():
            end += size
            self.books.wire[kind] += self._ring(end) - self._ring(start)
            start = end

    def _ring(self, size: int) -> int:
        whole, rest = divmod(2 * (self.size - 1) * size, self.size)
        return whole + (self.rank < rest)

    # ------------------------------------------------------------------ small agreements

    def vote(self, poll: Poll) -> Tensor:
        """Return which items of a poll have a quorum, of all ranks' votes: bool (n,)."""
        if self.size == 1:
            return poll.votes >= poll.quorum
        ballots = poll.ballots(self.size)
        length = ballots[0].numel()
        work, received = self.all_to_all(
            [[ballot] for ballot in ballots],
            [length] * self.size,
            {"votes": (self.size - 1) * length},
        )
        work.wait()
        decided = poll.decide(received)
        length = decided.numel()
        work, pieces = self.gather(decided, [length] * self.size, {"votes": length})
        work.wait()
        return poll.outcome(pieces)

    def sum_numbers(self, numbers: list[float], kind: str | None) -> list[float]:
        """Return the sums of a few float64 numbers over the ranks; kind None: counted elsewhere."""
        if self.size == 1:
            return numbers
        vector = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        self.all_reduce(vector, None if kind is None else {kind: len(numbers)}).wait()
        return [float(value) for value in vector.tolist()]

    def to_first(self, data: bytes, kind: str) -> list[bytes]:
        """Return every rank's bytes on rank 0, and nothing on the others."""
        return self._brought(data, kind, [0])

    def to_all(self, data: bytes, kind: str) -> list[bytes]:
        """Return every rank's bytes on every rank."""
        return self._brought(data, kind, range(self.size))

    def _brought(self, data: bytes, kind: str, readers: Sequence[int]) -> list[bytes]:
        if self.size == 1:
            return [data]
        lengths = [0.0] * self.size
        lengths[self.rank] = len(data)
        told = [round(length) for length in self.sum_numbers(lengths, kind)]
        piece = torch.empty(len(data), dtype=torch.uint8)
        if data:  # torch takes no empty buffer
            piece = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        piece = piece.to(self.device)
        boxes = [[piece if rank in readers else piece[:0]] for rank in range(self.size)]
        sizes = told if self.rank in readers else [0] * self.size
        others = len(readers) - (self.rank in readers)
        work, pieces = self.all_to_all(boxes, sizes, {kind: others * len(data)})
        work.wait()
        return [bytes(piece.cpu().numpy()) for piece in pieces] if self.rank in readers else []

    def all_equal(self, *vectors: Tensor) -> bool:
        """Return whether these vectors are bit-identical on every rank (by a 62-bit digest)."""
        if self.size == 1:
            return True
        digest = hashlib.sha256()
        for vector in vectors:
            digest.update(vector.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        mine = int.from_bytes(digest.digest()[:8], "big") >> 2
        extremes = torch.tensor([mine, -mine], device=self.device)
        self.count_ring({"control": extremes.numel() * extremes.element_size()})
        with _together():
            dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=self.ranks)
        return bool(extremes[0] == -extremes[1])

    def barrier(self, patience: timedelta | None = None) -> None:
        """Wait until every rank is here; `patience`: a time limit longer than a collective's."""
        if self.size == 1:
            return
        with _together():
            if patience is None:
                dist.barrier(group=self.ranks)
                return
            assert self.ranks is None, "only all ranks together wait for longer"
            group = dist.new_group(backend="gloo", timeout=patience)
            dist.barrier(group=group)
            dist.destroy_process_group(group)
