"""A round as a policy sees it: clients' turns, their votes, and how the agreed model moved."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.exchange.message import Places
from trainer.exchange.policies.policy import Policy
from trainer.turn import Server, Turn


def server(anchor: Tensor, number: int = 1) -> Server:
    """The agreed model (P,) in a round."""
    return Server(anchor, {}, torch.empty(0), number)


def turn(params: Tensor, anchor: Tensor, number: int = 1) -> Turn:
    """A client's turn that starts from `params` (P,)."""
    return Turn(0, server(anchor, number), params, torch.zeros_like(params), {})


def select(policy: Policy, ballots: Sequence[Tensor] = (), clients: int = 1) -> Places:
    """What travels after these clients have voted, of so many; the others' ballots are empty."""
    if not policy.voting:
        return policy.select(None)
    votes = torch.zeros(policy.labelled, dtype=torch.int32)
    for ballot in ballots:
        votes += ballot
    return policy.select(votes >= policy.quorum(max(clients, len(ballots))))
