"""The server's step: what the means of an exchange do to the agreed state, on every rank alike."""

import torch

from trainer.engine.parts import RankState
from trainer.exchange.message import BUFFERS, Delivery


def apply(rank: RankState, delivery: Delivery, *, sent: bool = True) -> None:
    """Apply the means to the agreed state; sent: whether any client sent something."""
    server, parts, mask = rank.server, rank.parts, delivery.places.mask
    watched = [transform for transform in parts.chain if transform.watches]
    before = server.anchor
    if mask is not None or parts.policy.watches or watched:
        before = server.anchor.clone()
    paused = {}
    if mask is not None and parts.policy.pauses:
        paused = {name: v.clone() for name, v in server.state.items() if v.dim()}
    if sent:
        parts.algorithm.apply(server, delivery.mean)
        if BUFFERS.name in delivery.mean:  # absent if clients keep their own
            server.buffers -= delivery.mean[BUFFERS.name]
    if mask is not None:  # a momentum must not move coordinates that were not exchanged
        torch.where(mask, server.anchor, before, out=server.anchor)
        for name, was in paused.items():
            torch.where(mask, server.state[name], was, out=server.state[name])
    if before is not server.anchor:
        change = before.sub_(server.anchor)
        for transform in watched:
            transform.applied(change, parts.worker.total)
        if delivery.decided is not None:
            parts.policy.decided(delivery.decided)
        parts.policy.applied(change, server, delivery.places)
