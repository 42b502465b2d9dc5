"""Durations as ranks tell them each other in every round: four of them in one float64.

A duration travels as a level on a scale of logarithms, of 13 bits: right to an eighth of a percent
between 0.1 ms and 15 hours. Each rank has places of its own in the numbers, and the others have
zeros there, so a sum over ranks brings all durations together without loss.
"""

from collections.abc import Sequence
from math import log2

LEVELS = 2**13  # of a duration, so that four fit into the 53 bits of a float64
LEAST, OCTAVES = 1e-4, 29  # seconds of the shortest one but zero; doublings up to the longest


def level(seconds: float) -> int:
    """Return the level of a duration; 0: none."""
    if seconds < LEAST:
        return 0
    return min(1 + round((LEVELS - 2) / OCTAVES * log2(seconds / LEAST)), LEVELS - 1)


def duration(found: int) -> float:
    """Return the seconds of a level."""
    return LEAST * float(2 ** (OCTAVES * (found - 1) / (LEVELS - 2))) if found else 0.0


def packed(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Return two durations of each rank, those of two ranks in a number."""
    levels = [level(seconds) for pair in pairs for seconds in pair]
    return [
        float(sum(own * LEVELS**place for place, own in enumerate(levels[at : at + 4])))
        for at in range(0, len(levels), 4)
    ]


def unpacked(numbers: Sequence[float], ranks: int) -> list[tuple[float, float]]:
    """Return what `packed` was given for so many ranks, from the sums of its numbers."""
    found = [duration(round(n) // LEVELS**place % LEVELS) for n in numbers for place in range(4)]
    return list(zip(found[::2], found[1::2], strict=True))[:ranks]
