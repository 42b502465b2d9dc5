"""Products of many choices: a part that uses each choice is quick, the rest of them is slow."""

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import pytest


def sampled(
    *choices: Iterable[Any],
    times: int = 1,
    fits: Callable[..., bool] = lambda *case: True,
    rest: pytest.MarkDecorator = pytest.mark.slow,
) -> list[Any]:
    """The product as parameters of a test, without what does not fit: most of it marked `rest`.

    Each choice is in at least `times` quick cases, beside others each time as far as there are any.
    """
    lists = [list(values) for values in choices]
    cases = [case for case in product(*lists) if fits(*case)]
    quick: set[tuple[Any, ...]] = set()
    for turn in range(times):
        missing = {(k, str(value)) for k, values in enumerate(lists) for value in values}
        longest = max(map(len, lists))
        diagonal = [
            tuple(values[(i + turn * k) % len(values)] for k, values in enumerate(lists))
            for i in range(longest)
        ]
        for case in [
            *diagonal,
            *cases,
        ]:  # of what does not fit on the diagonal, the first that does
            new = {(k, str(value)) for k, value in enumerate(case)} & missing
            if new and fits(*case):
                missing -= new
                quick.add(case)
    return [pytest.param(*case, marks=() if case in quick else rest) for case in cases]
