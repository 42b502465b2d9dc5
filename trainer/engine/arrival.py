"""The arrival of an exchange in the round after its own, while a client trains.

As in Streaming DiLoCo (Douillard et al. 2025), for one client on each rank, which all take part.
Symbols: tau = overlap.steps, alpha = the policy's; x = anchor, y = the client's model. The exchange
of round t departs at its end, and the client goes on from y. After tau local steps of round t + 1
the mean is applied to x, and at the places that travelled

    y <- alpha y + (1 - alpha) x

So a round ends while its exchange is under way: a checkpoint waits for it and holds the mean, which
is applied when it is due.
"""

from torch import Tensor

from trainer.engine.apply import apply
from trainer.engine.parts import RankState


def begins(rank: RankState) -> None:
    """Note that a client of this rank begins to train."""
    if rank.overlap is not None:
        rank.overlap.resumes()


def stepped(rank: RankState, own: Tensor, taken: int, *, last: bool) -> None:
    """React to a client's local step, the `taken`-th of its turn; own: its model (P,)."""
    overlap = rank.overlap
    if overlap is not None and overlap.pending:
        rank.clock.hidden += overlap.poll()
        if taken == overlap.steps or last:
            arrive(rank, own)


def arrive(rank: RankState, own: Tensor) -> None:
    """Wait for what is under way, apply it to the agreed model, and mix it into a client's own."""
    overlap = rank.overlap
    assert overlap is not None
    with rank.clock.phase("reduce"):
        delivery = overlap.land()
    with rank.clock.phase("apply"):
        apply(rank, delivery)
        rank.parts.policy.mix(own, rank.server.anchor, delivery.places)


def finish(rank: RankState) -> bool:
    """Have the last exchange arrive after the last round; return whether there was one."""
    if rank.overlap is None or not rank.overlap.pending:
        return False
    (client,) = rank.store.clients
    arrive(rank, rank.store.memory(client, "policy")["local"])
    rank.store.trim()
    return True
