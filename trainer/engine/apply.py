"""The server's step: what the means of an exchange do to the agreed state, on every rank alike."""

import torch
from torch import Tensor

from trainer.engine.parts import RankState
from trainer.exchange.masks import choose, chunks
from trainer.exchange.message import BUFFERS, Delivery
from trainer.turn import Server


def apply(rank: RankState, delivery: Delivery, *, sent: bool = True) -> None:
    """Apply the means to the agreed state; sent: whether any client sent something.

    It goes chunk by chunk, since several things are done to each coordinate. So the only vector as
    long as the model is the change, which takes the place of the first mean.
    """
    server, parts = rank.server, rank.parts
    watched = [transform for transform in parts.chain if transform.watches]
    change = None
    if parts.policy.watches or watched:
        change = delivery.mean[parts.algorithm.vectors[0].name]
    if sent and BUFFERS.name in delivery.mean:  # absent if clients keep their own
        server.buffers -= delivery.mean.pop(BUFFERS.name)
    if parts.algorithm.whole:
        _step(rank, server, slice(None), delivery, change, sent)
    else:
        for place in chunks(len(server.anchor), server.anchor.device):
            _step(rank, server.part(place), place, delivery, change, sent)
    if change is not None:
        for transform in watched:
            transform.applied(change, parts.worker.total)
        if delivery.decided is not None:
            parts.policy.decided(delivery.decided)
        parts.policy.applied(change, server, delivery.places)


def _step(
    rank: RankState,
    server: Server,
    place: slice,
    delivery: Delivery,
    change: Tensor | None,
    sent: bool,
) -> None:
    """Step the part of the agreed state at `place`, and write minus its change to `change` (P,)."""
    algorithm, mask = rank.parts.algorithm, delivery.places.mask
    before, paused = server.anchor, {}
    if mask is not None or change is not None:
        before = server.anchor.clone()
    if mask is not None and rank.parts.policy.pauses:
        paused = {name: v.clone() for name, v in server.state.items() if v.dim()}
    if sent:
        algorithm.apply(server, {v.name: delivery.mean[v.name][place] for v in algorithm.vectors})
    if mask is not None:  # a momentum must not move coordinates that were not exchanged
        choose(mask[place], server.anchor, before, out=server.anchor)
        for name, was in paused.items():
            choose(mask[place], server.state[name], was, out=server.state[name])
    if change is not None:
        torch.sub(before, server.anchor, out=change[place])
