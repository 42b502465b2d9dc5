"""Bounds on rounding, derived from the arithmetic and never from what one machine showed.

A sum of n terms is off by at most n u times the sum of their magnitudes, in any order and by any
kernel; u is the format's unit roundoff (Higham, "Accuracy and Stability of Numerical Algorithms",
section 4.2). Rounding mostly cancels, so a bound of this kind has room by itself.

Two trainings stay that close only while no value is so near to a kink (of a ReLU, a maximum) that
rounding moves it across: a sample's gradient then changes at once. In float32 one in ten million
values is that near, and a short training computes as many. So runs are compared in `DOUBLE`, or in
`SMOOTH`, a model without kinks in single precision.
"""

from itertools import pairwise
from typing import Any

import numpy as np

BF16, FP32, FP64 = 2.0**-8, 2.0**-24, 2.0**-53
DOUBLE = {"model": {"precision": "fp64"}, "codec": {"name": "fp64"}}
SMOOTH = {"model": {"name": "softmax"}}
ROOM = 4  # both results are off, and terms may be twice as large as what they add up to


def of_sums(additions: float, magnitude: float = 1.0, unit: float = FP32) -> float:
    """How far apart two results of one sum may be; `magnitude`: of what it adds up to."""
    return ROOM * additions * unit * float(magnitude)


def of_share(share: float, draws: int) -> float:
    """How far the share of so many independent draws may be from its expectation: five of its
    standard errors."""
    return 5 * (share * (1 - share) / draws) ** 0.5


def of_deviation(draws: int) -> float:
    """The same of a normal distribution's standard deviation, relative to it."""
    return 5 / (2 * draws) ** 0.5


def of_runs(rows: list[dict[str, Any]]) -> float:
    """How far apart the models of two runs may be that add the same numbers in another order.

    `rows`: one of the two, as jobs.history returns it; of a training that meets no kink. In each
    round a weight moves by a mean over clients of sums over their samples, and is itself rounded
    at each local step, when the client subtracts it from its start, and when the mean is applied.
    """
    bound, unit = 0.0, {"float32": FP32, "float64": FP64}[rows[0]["anchor"].dtype.name]
    for before, after in pairwise(rows):
        samples, steps = (after[name] / after["clients"] for name in ("samples", "steps"))
        moved = np.abs(after["anchor"] - before["anchor"]).max()
        bound += of_sums(samples + after["clients"], moved, unit)
        bound += of_sums(steps + 2, np.abs(after["anchor"]).max(), unit)
    return bound


def apart(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> float:
    """The largest difference of two runs' models, over all rounds."""
    pairs = zip(rows, others, strict=True)
    return max(float(np.abs(a["anchor"] - b["anchor"]).max()) for a, b in pairs)
