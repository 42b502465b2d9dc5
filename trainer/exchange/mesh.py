"""The ranks as a mesh of replicas x stages: which of them exchange what with each other.

A replica is S ranks that hold one model, a stage each; rank r is stage r mod S of replica r div S.
With S = 1 every rank is a replica, and no further process group exists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from trainer.exchange.books import Books
from trainer.exchange.group import Group
from trainer.metrics.catalog import NODE, PIPELINE


@dataclass(frozen=True)
class Mesh:
    """This rank's groups, which count into the same books.

    world: all ranks; group: those that hold the same stage, one of each replica, which exchange
    what clients send; line: the stages of this rank's replica, in order. Every rank runs the same
    program, so all members of a group come to its next collective after the same earlier ones.
    """

    world: Group
    group: Group
    line: Group

    @property
    def pipelined(self) -> bool:
        """Whether a model is spread over several ranks."""
        return self.line.size > 1


@dataclass(frozen=True)
class Node:
    """Neighbours in `Mesh.group` whose clients also average within a round (trainer/engine/nodes).

    every: local steps between two averages; share: of the node's weight, this rank's client's.
    """

    group: Group
    every: int
    share: float


def mesh(device: torch.device, stages: int, timeout: float) -> Mesh:
    """Create this rank's groups; timeout: of a collective, in seconds."""
    world = Group(Books(), device)
    if stages == 1:
        return Mesh(world, world, Group(world.books, device, alone=True))
    world.books.wire[PIPELINE] = 0
    numbers = torch.arange(world.size).view(-1, stages)  # (replicas, stages)
    group, line = (
        Group(world.books, device, _own(rows, world.rank, timeout))
        for rows in (numbers.T.tolist(), numbers.tolist())
    )
    return Mesh(world, group, line)


def aside(mesh: Mesh, timeout: float) -> Group:
    """Create a second group of the ranks of `mesh.group`, in which nothing waits for the first."""
    if mesh.group.size == 1:
        return mesh.group
    numbers = torch.arange(mesh.world.size).view(-1, mesh.line.size)  # (replicas, stages)
    own = _own(numbers.T.tolist(), mesh.world.rank, timeout)
    return Group(mesh.world.books, mesh.world.device, own)


def within(mesh: Mesh, members: int, timeout: float) -> Group:
    """Create the groups of nodes, so many neighbours of `mesh.group` each; return this rank's."""
    mesh.world.books.wire[NODE] = 0
    numbers = torch.arange(mesh.world.size).view(-1, members, mesh.line.size)
    nodes = numbers.transpose(1, 2).reshape(-1, members)  # (nodes x stages, members)
    own = _own(nodes.tolist(), mesh.world.rank, timeout)
    return Group(mesh.world.books, mesh.world.device, own)


def _own(groups: Sequence[Sequence[int]], rank: int, timeout: float) -> dist.ProcessGroup:
    """Create all groups of an axis, as every rank must in the same order; return this rank's."""
    created: list[dist.ProcessGroup] = [
        dist.new_group(ranks, timeout=timedelta(seconds=timeout)) for ranks in groups
    ]
    return next(own for own, ranks in zip(created, groups, strict=True) if rank in ranks)
