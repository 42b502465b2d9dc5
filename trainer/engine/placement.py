"""Who trains whom: the deal of a round's clients to ranks."""

from collections.abc import Mapping

SLACK = 0.05  # a record is not moved for less than that


def deal(
    costs: Mapping[int, float], ranks: int, home: Mapping[int, int], slack: float = SLACK
) -> dict[int, int]:
    """Each sampled client's rank, by the work that the client takes; the same on every rank.

    Longest first, each to the rank that holds what it keeps if that one has room, else to the rank
    with the least to do (Graham's LPT rule: at most 4/3 of the best possible longest rank). A rank
    has room up to its fair share, or one longest client's length; slack: how much longer, as a
    share, a rank may work so that a client's memory need not move.
    """
    load = [0.0] * ranks
    fair = sum(costs.values()) / ranks
    room = max(fair, max(costs.values(), default=0.0)) * (1 + slack)
    placed: dict[int, int] = {}
    for client in sorted(costs, key=lambda client: (-costs[client], client)):
        rank = home.get(client, -1)
        if rank < 0 or load[rank] + costs[client] > room:
            rank = min(range(ranks), key=lambda rank: (load[rank], rank))
        load[rank] += costs[client]
        placed[client] = rank
    return placed


def fixed(clients: Mapping[int, float], ranks: int) -> dict[int, int]:
    """Client c on rank c mod W, always: for data that must not move."""
    return {client: client % ranks for client in clients}
