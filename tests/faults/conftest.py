"""What the tests of faults share: a stage, and the run that nothing disturbs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import patience
from tests.faults.scene import Scene, bits
from tests.fedctl.processes import ended, starting_in

ROUNDS = 60  # more than a fast machine does before a test looks again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(patience.seconds(300)))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with starting_in(tmp_path) as start:
        yield Scene(start, tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Model and rows of the small run of ROUNDS rounds that nothing has happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with starting_in(folder) as start:
        scene = Scene(start, folder)
        code, _, stderr = ended(scene.run(rounds=ROUNDS))
        assert code == 0, stderr
        return bits(scene.out)
