"""Products of many choices: a part that uses each choice is quick, the rest of them is slow."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import combinations, product
from typing import Any

import pytest


def sampled(
    *choices: Iterable[Any],
    times: int = 1,
    fits: Callable[..., bool] = lambda *case: True,
    rest: pytest.MarkDecorator = pytest.mark.slow,
) -> list[Any]:
    """The product as parameters of a test, without what does not fit: most of it marked `rest`.

    Each choice is in at least `times` quick cases, or in all of its cases if it has fewer. They are
    as few as a greedy choice finds, bring as many new pairs as they can, and use choices evenly.
    """
    cases = [case for case in product(*map(list, choices)) if fits(*case)]
    used: Counter[tuple[int, str]] = Counter()
    beside: set[tuple[tuple[int, str], ...]] = set()
    quick: dict[int, None] = {}

    def brings(at: int, turn: int) -> tuple[int, int, int]:
        """How many choices that are missing in this turn, how many new pairs, how little used."""
        places = [*enumerate(map(str, cases[at]))]
        missing = sum(used[place] < turn for place in places)
        pairs = sum(pair not in beside for pair in combinations(places, 2))
        return missing, pairs, -sum(used[place] for place in places)

    for turn in range(1, times + 1):
        left = [at for at in range(len(cases)) if at not in quick]
        while left:
            best = max(left, key=lambda at, turn=turn: brings(at, turn))
            if not brings(best, turn)[0]:
                break
            left.remove(best)
            quick[best] = None
            places = [*enumerate(map(str, cases[best]))]
            used.update(places)
            beside.update(combinations(places, 2))
    return [pytest.param(*case, marks=() if at in quick else rest) for at, case in enumerate(cases)]
