"""Products of many choices: a part that uses each choice is quick, the rest of them is slow."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest


def sampled(*choices: Iterable[Any], times: int = 1) -> list[Any]:
    """The product as parameters of a test: those off some diagonals are marked slow.

    Each choice is in at least `times` quick cases, beside others each time as far as there are any.
    """
    lists = [list(values) for values in choices]
    longest = max(map(len, lists))
    quick = {
        tuple(values[(i + turn * k) % len(values)] for k, values in enumerate(lists))
        for turn in range(times)
        for i in range(longest)
    }
    return [
        pytest.param(*case, marks=() if case in quick else pytest.mark.slow)
        for case in product(*lists)
    ]
