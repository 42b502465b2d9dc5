"""Hostile files and settings: a result or one line, for as long as FUZZ_SECONDS (`make fuzz`).

Without it a few examples of each target are tried, which is what `make test` does. What was found
once is in test_found.py.
"""

import os
import random
import tempfile
import time
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase

from tests.conftest import IN_CI
from tests.fuzz.found import FOUND
from tests.fuzz.law import holds
from tests.fuzz.targets import RUN, inputs_of

SECONDS = float(os.environ.get("FUZZ_SECONDS", 0)) / len(RUN)
FEW, BATCH = 25, 200  # examples


def settings(examples: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=examples,
        suppress_health_check=list(HealthCheck),
        phases=set(Phase) - {Phase.explain},
        database=None,
        derandomize=False,  # the seed decides
    )


@pytest.mark.filterwarnings("ignore")  # of libraries, about what they are given
@pytest.mark.timeout(SECONDS * 20 + 600)  # each example has a bound of its own
@pytest.mark.parametrize("name", RUN)
def test_a_result_or_one_line(name: str, tmp_path: Path) -> None:
    """For so many seconds, or a few examples; at least some of them must be refused."""
    until = time.monotonic() + SECONDS
    opened = tuple(found.open for found in FOUND if found.open and found.target == name)
    refused = tried = 0

    def example(case: object) -> None:
        nonlocal refused, tried
        tried += 1
        with tempfile.TemporaryDirectory(prefix="fedctl-fuzz-") as folder:
            try:
                refused += bool(holds(lambda: RUN[name](case, Path(folder))))
            except Exception as error:
                if not opened or not f"{type(error).__name__}: {error}".startswith(opened):
                    raise

    inputs = inputs_of(name, tmp_path)
    seed = 0 if IN_CI else random.randrange(2**32)  # in CI the same every time
    while True:
        batch = settings(BATCH if SECONDS else FEW)(hypothesis.given(inputs)(example))
        hypothesis.seed(seed)(batch)()
        seed += 1
        if time.monotonic() >= until:
            break
    print(f"{name}: {tried} inputs, {refused} of them refused")
    assert refused, "every input was taken: nothing was put to a test"
