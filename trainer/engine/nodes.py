"""Averages of the clients of a node, between local steps: hierarchical local SGD.

Lin, Stich, Patel, Jaggi: Don't Use Large Mini-Batches, Use Local SGD (ICLR 2020). Symbols: H =
schedule.nodes.every, local steps between two averages; H^b, block steps, so that a round has H H^b
local steps; w = a client's weight, y = its model. After every H of them, at the clients of a node

    y_i <- sum_j w_j y_j / sum_j w_j

except after the last, since the round's exchange averages all clients then. So nodes have models of
their own only within a round, and at its end all ranks agree on one anchor, as ever. Momentum and
BatchNorm's statistics stay each client's.
"""

from collections.abc import Sequence

from torch import Tensor

from trainer.config.schema import Experiment
from trainer.engine.parts import RankState
from trainer.exchange.mesh import Mesh, Node, within
from trainer.metrics.catalog import NODE


def node(experiment: Experiment, mesh: Mesh, weights: Sequence[float]) -> Node | None:
    """Create this rank's node, if the experiment has any; weights: of all clients.

    Client c is on replica c, since each has a rank and none moves.
    """
    settings = experiment.schedule.nodes
    if settings.clients == 1:
        return None
    group, own = within(mesh, settings.clients, experiment.cluster.timeout), mesh.group.rank
    first = own - group.rank
    share = weights[own] / sum(weights[first : first + settings.clients])
    return Node(group, settings.every, share)


def stepped(rank: RankState, own: Tensor, taken: int, *, last: bool) -> None:
    """React to a client's local step, the `taken`-th of its turn; own: its model (P,)."""
    node = rank.node
    if node is None or last or taken % node.every:
        return
    with rank.clock.phase("reduce"):
        own.mul_(node.share)
        node.group.all_reduce(own, {NODE: own.numel()}).wait()
