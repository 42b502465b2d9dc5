"""The bounds on rounding hold for sums in any order, and let no other difference through."""

import numpy as np
import pytest

from tests import bounds
from tests.jobs import history
from tests.ranks import ranks

BASE = {
    "seed": 2,
    "clients": 4,
    "data": {"partition": {"name": "dirichlet", "alpha": 1.0}},
    **bounds.SMOOTH,
    "schedule": {"batch_size": 16, "phases": [{"steps": 2}]},
}


@pytest.mark.parametrize("count", [2, 100, 10_000])
def test_a_sum_in_any_order_is_within_its_bound(count):
    terms = np.random.RandomState(count).rand(count).astype(np.float32)
    one_by_one = [float(np.cumsum(order)[-1]) for order in (terms, terms[::-1], np.sort(terms))]
    apart = max(one_by_one) - min(one_by_one)
    assert apart < bounds.of_sums(count, terms.sum())


@pytest.mark.parametrize(
    "change",
    [{"optimizer": {"lr": 0.0505}}, {"algorithm": {"weighting": "uniform"}}],
    ids=["a-hundredth-of-the-learning-rate", "equal-weights"],
)
def test_a_run_that_computes_something_else_is_beyond_the_bound(change):
    run, other = (ranks(1).run(history, BASE | more, 5)[0] for more in ({}, change))
    assert bounds.apart(run, other) > 10 * bounds.of_runs(run)
