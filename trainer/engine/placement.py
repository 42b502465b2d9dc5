"""Assignment of a round's clients to ranks.

It decides only who trains a client: the result of a round does not depend on it, up to rounding.
"""

from collections.abc import Mapping

SLACK = 0.05  # a client's record is not moved for a smaller share of a rank's work


def deal(
    costs: Mapping[int, float], ranks: int, home: Mapping[int, int], slack: float = SLACK
) -> dict[int, int]:
    """Return each sampled client's rank, by its cost (work); the result is the same on every rank.

    Clients are placed in order of decreasing cost: each on the rank that holds its memory if there
    is room, else on the rank with the least work. The latter is Graham's LPT rule (1969), whose
    longest rank takes at most 4/3 - 1/(3 W) times the best possible. Of several with as little work
    it is the first from rank c mod W on: where ranks are as many as clients, nobody ever moves. A
    rank has room up to its fair share of the work or the cost of the longest client, whichever is
    more; slack: the share by which a rank may exceed that, so that a client's memory need not move.
    """
    load = [0.0] * ranks
    fair = sum(costs.values()) / ranks
    room = max(fair, max(costs.values(), default=0.0)) * (1 + slack)
    placed: dict[int, int] = {}
    for client in sorted(costs, key=lambda client: (-costs[client], client)):
        rank = home.get(client, -1)
        if rank < 0 or load[rank] + costs[client] > room:
            rank = min(range(ranks), key=lambda rank: (load[rank], (rank - client) % ranks))
        load[rank] += costs[client]
        placed[client] = rank
    return placed


def fixed(clients: Mapping[int, float], ranks: int) -> dict[int, int]:
    """Put client c on rank c mod W in every round, for data that must not move."""
    return {client: client % ranks for client in clients}
