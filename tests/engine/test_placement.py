"""The deal of a round's clients to ranks: laws for any costs, any ranks, any homes."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.engine.placement import SLACK, deal, fixed

COSTS = st.dictionaries(st.integers(0, 99), st.integers(1, 1000), min_size=1, max_size=30)
RANKS = st.integers(1, 8)
DEAL = st.tuples(COSTS, RANKS).flatmap(
    lambda drawn: st.tuples(
        st.just(drawn[0]),
        st.just(drawn[1]),
        st.dictionaries(st.integers(0, 99), st.integers(0, drawn[1] - 1), max_size=60),
    )
)


def loads(placed: dict[int, int], costs: dict[int, int], ranks: int) -> list[int]:
    """The work of each rank."""
    return [sum(costs[c] for c, rank in placed.items() if rank == r) for r in range(ranks)]


def room(costs: dict[int, int], ranks: int, slack: float = SLACK) -> float:
    """How long a rank may work so that a client stays at home."""
    return max(sum(costs.values()) / ranks, max(costs.values())) * (1 + slack)


@given(DEAL)
def test_every_client_is_placed_once_on_a_rank_that_exists(drawn):
    costs, ranks, home = drawn
    placed = deal(costs, ranks, home)
    assert placed.keys() == costs.keys()
    assert set(placed.values()) <= set(range(ranks))


@given(COSTS, RANKS)
def test_no_rank_works_longer_than_its_share_and_one_client(costs, ranks):
    fair, longest = sum(costs.values()) / ranks, max(costs.values())
    most = fair + longest * (1 - 1 / ranks)
    assert max(loads(deal(costs, ranks, {}), costs, ranks)) <= most + 1e-9


@given(DEAL)
def test_homes_lengthen_no_rank_by_more_than_the_slack(drawn):
    costs, ranks, home = drawn
    most = max(sum(costs.values()) / ranks + max(costs.values()), room(costs, ranks))
    assert max(loads(deal(costs, ranks, home), costs, ranks)) <= most + 1e-9


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 3))
def test_the_longest_rank_is_within_four_thirds_of_the_best_possible(costs, ranks):
    """Graham's bound, against all deals there are."""
    costs = dict(enumerate(costs))
    best = min(
        max(loads(dict(zip(costs, choice, strict=True)), costs, ranks))
        for choice in product(range(ranks), repeat=len(costs))
    )
    longest = max(loads(deal(costs, ranks, {}), costs, ranks))
    assert longest <= (4 / 3 - 1 / (3 * ranks)) * best + 1e-9


@given(st.lists(COSTS, max_size=5))
def test_with_a_rank_for_each_client_nobody_moves(rounds):
    """Whoever takes part in each round, and whatever it costs."""
    home: dict[int, int] = {}
    for costs in rounds:
        placed = deal(costs, 100, home)
        assert all(rank == client for client, rank in placed.items())
        home |= placed


@given(DEAL, st.randoms())
def test_the_deal_depends_on_nothing_but_its_arguments(drawn, random):
    """Every rank computes it for itself; the order in which clients are listed is no argument."""
    costs, ranks, home = drawn
    clients = list(costs)
    random.shuffle(clients)
    shuffled = {client: costs[client] for client in clients}
    assert deal(shuffled, ranks, dict(reversed(home.items()))) == deal(costs, ranks, home)


@given(DEAL)
def test_a_client_stays_at_home_if_there_is_room(drawn):
    """Who moved would have made its home work for too long, with those that were placed before."""
    costs, ranks, home = drawn
    placed = deal(costs, ranks, home)
    order = sorted(costs, key=lambda client: (-costs[client], client))
    for at, client in enumerate(order):
        if client in home and placed[client] != home[client]:
            before = [c for c in order[:at] if placed[c] == home[client]]
            assert sum(costs[c] for c in before) + costs[client] > room(costs, ranks)


@given(DEAL)
def test_with_room_for_all_nobody_moves(drawn):
    costs, ranks, home = drawn
    placed = deal(costs, ranks, home, slack=float(ranks))
    assert all(placed[client] == home[client] for client in costs if client in home)


@given(st.integers(1, 40), RANKS, st.integers(1, 100))
def test_equal_clients_that_all_take_part_are_dealt_in_turn_and_stay(clients, ranks, cost):
    costs = dict.fromkeys(range(clients), cost)
    placed = deal(costs, ranks, {})
    assert placed == fixed(costs, ranks) == {client: client % ranks for client in range(clients)}
    assert deal(costs, ranks, placed) == placed


@given(DEAL)
def test_a_fixed_client_is_always_on_the_same_rank(drawn):
    costs, ranks, _ = drawn
    assert fixed(costs, ranks) == {client: client % ranks for client in costs}


@pytest.mark.parametrize("slack,rank", [(0.0, 1), (0.05, 0), (0.5, 0)])
def test_a_record_is_not_moved_for_less_than_the_slack(slack, rank):
    """Two ranks; the last client makes its home work 103 for a fair 100."""
    costs, home = {0: 50, 1: 50, 2: 47, 3: 53}, {0: 0, 3: 0, 1: 1, 2: 1}
    assert deal(costs, 2, home, slack)[0] == rank


def test_nobody_to_place():
    assert deal({}, 3, {}) == {}
