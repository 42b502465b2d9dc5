"""The state that clients keep between rounds, wherever they are trained next.

What is in a client's record is the business of the parts that keep it: for each of them a few
tensors by name. The record is in the memory of the rank that trained the client last or, beyond a
budget, in a file there. It is sent on if another rank is to train the client. Only the records of
the sampled clients are needed at a time.
"""

import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from trainer.exchange.group import Group
from trainer.exchange.message import Cohort
from trainer.turn import Memory

Record = dict[str, Memory]  # the state that each part keeps of one client, by the part's name
SEPARATOR = "/"  # between a part's name and a tensor's, in files and on the wire


class Store:
    """The records on this rank; every rank also knows which rank has each of the others."""

    def __init__(
        self, group: Group, folder: Path | None, budget: int | None, *, empty: bool = False
    ) -> None:
        """Start without records.

        budget: bytes of memory, None: no limit; folder: this rank's, for records beyond the budget;
        empty: no part of the run keeps anything, so there will be no records.
        """
        assert budget is None or folder is not None, "records beyond the budget need a folder"
        self.group, self.budget, self.empty = group, budget, empty
        self.folder = folder or Path()
        if budget is not None:  # of an earlier start of this run: its checkpoint has what counts
            shutil.rmtree(self.folder, ignore_errors=True)
        self.home: dict[int, int] = {}  # client -> the rank that has its record
        self.records: OrderedDict[int, Record] = OrderedDict()  # in memory, least recent first
        self.filed: set[int] = set()  # clients whose records are in files
        self.touched: set[int] = set()  # clients whose records may have grown since `trim`
        self.sizes: dict[int, int] = {}  # bytes in memory, as of `trim`
        self.used = 0  # the sum of these

    # ------------------------------------------------------------------ one client

    def record(self, client: int) -> Record:
        """Return a client's record, to be changed in place; empty until a part keeps something."""
        if client not in self.records:
            self.records[client] = self._read(client) if client in self.filed else {}
            self.filed.discard(client)
        self.records.move_to_end(client)
        self.touched.add(client)
        return self.records[client]

    def memory(self, client: int, part: str) -> Memory:
        """Return the state that one part keeps of a client, to be changed in place."""
        return self.record(client).setdefault(part, {})

    @property
    def clients(self) -> list[int]:
        """Those whose records are here, by number."""
        return sorted({*self.records, *self.filed})

    def mine(self) -> Iterator[tuple[int, Record]]:
        """Each client whose record is here, by number; one at a time, and only to be read."""
        for client in self.clients:
            yield client, self._peek(client)

    # ------------------------------------------------------------------ a round

    def fetch(self, cohort: Cohort) -> None:
        """Bring the records of this rank's members here; every rank calls it.

        Senders announce lengths first, since records grow with the number of frozen parameters.
        Homes are noted even if there are no records, so that the clients of two runs that differ
        only in what they keep are assigned to the same ranks.
        """
        moving = [m for m in cohort.members if self.home.get(m.client, m.rank) != m.rank]
        homes = {member.client: self.home.get(member.client) for member in moving}
        self.home.update((member.client, member.rank) for member in cohort.members)
        if self.empty or not moving:
            return
        rank = self.group.rank
        packed = {m.client: self._pack(m.client) for m in moving if homes[m.client] == rank}
        told = [len(packed[m.client]) if m.client in packed else 0 for m in moving]
        sizes = torch.tensor(told, dtype=torch.int64, device=self.group.device)
        self.group.all_reduce(sizes, {"moves": len(told)}).wait()
        arriving = {
            m.client: torch.empty(size, dtype=torch.uint8, device=self.group.device)
            for m, size in zip(moving, sizes.tolist(), strict=True)
            if m.rank == rank
        }
        self.group.swap(
            [(packed[m.client], m.rank) for m in moving if m.client in packed],
            [(data, homes[client] or 0) for client, data in arriving.items()],
        ).wait()
        for client, data in arriving.items():
            tensors = load(data.cpu().numpy().tobytes())
            self.record(client).update(_nested(tensors, self.group.device))
            self.trim()

    def trim(self) -> None:
        """Move the least recently used records into files, until the others fit the budget."""
        if self.budget is None:
            return
        for client in self.touched & self.records.keys():
            size = _size(self.records[client])
            self.used += size - self.sizes.get(client, 0)
            self.sizes[client] = size
        self.touched.clear()
        while self.records and self.used > self.budget:
            client, record = self.records.popitem(last=False)
            self.used -= self.sizes.pop(client)
            self.folder.mkdir(parents=True, exist_ok=True)
            # never in place: a checkpoint may have a hard link to the old file
            partial = self.folder / "partial"
            partial.write_bytes(save(_flattened(record)))
            partial.replace(self._path(client))
            self.filed.add(client)

    # ------------------------------------------------------------------ files

    def close(self) -> None:
        """Delete the files of this rank at the end of the run."""
        if self.budget is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # other ranks may not have ended
                self.folder.parent.rmdir()

    def write(self, client: int, path: Path) -> None:
        """Write a record to a safetensors file of a checkpoint, on the disk when this returns."""
        if client in self.filed:
            with suppress(OSError):  # the checkpoint is on another file system
                os.link(self._path(client), path)
        if not path.exists():
            path.write_bytes(save(_flattened(self._peek(client))))
        with path.open("rb") as file:
            os.fsync(file.fileno())

    def read(self, client: int, path: Path) -> None:
        """Take over a record that `write` wrote."""
        data = path.read_bytes()  # not mapped: the checkpoint is removed before the run ends
        self.record(client).update(_nested(load(data), self.group.device))

    def _peek(self, client: int) -> Record:
        held = self.records.get(client)
        if held is None:
            return self._read(client) if client in self.filed else {}
        return held

    def _read(self, client: int) -> Record:
        # Not load_file: in safetensors 0.8 it leaks a number for each tensor that it reads.
        return _nested(load(self._path(client).read_bytes()), self.group.device)

    def _pack(self, client: int) -> Tensor:
        """Return a record as bytes, and remove it from this rank."""
        data = save(_flattened(self._peek(client)))
        self.records.pop(client, None)
        self.used -= self.sizes.pop(client, 0)
        self.filed.discard(client)
        if self.budget is not None:
            self._path(client).unlink(missing_ok=True)
        return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(self.group.device)

    def _path(self, client: int) -> Path:
        return self.folder / f"client-{client}.safetensors"


def _flattened(record: Mapping[str, Memory]) -> Memory:
    return {
        f"{part}{SEPARATOR}{name}": tensor.contiguous()
        for part, memory in record.items()
        for name, tensor in memory.items()
    }


def _nested(tensors: Memory, device: torch.device) -> Record:
    record: Record = {}
    for key, tensor in tensors.items():
        part, _, name = key.partition(SEPARATOR)
        # single numbers stay on the CPU, so that reading them does not wait for a device
        record.setdefault(part, {})[name] = tensor.to(device) if tensor.dim() else tensor
    return record


def _size(record: Record) -> int:
    return sum(t.numel() * t.element_size() for memory in record.values() for t in memory.values())
