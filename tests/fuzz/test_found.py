"""What fuzzing has found, as tests of their own; those that are still open are told."""

from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import targets
from tests.fuzz.found import FOUND, Found
from tests.fuzz.law import holds


def marked(found: Found) -> Any:
    marks = [pytest.mark.xfail(reason=f"{found.what}: {found.open}", strict=True)]
    name = f"{found.target}: {found.what}"
    return pytest.param(found, id=name, marks=marks if found.open else [])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("found", [marked(found) for found in FOUND])
def test_it_is_one_line_now(found: Found, tmp_path: Path) -> None:
    run = targets.RUN[found.target]
    holds(lambda: run(found.case, tmp_path))
