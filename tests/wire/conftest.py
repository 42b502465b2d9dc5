"""What the tests of the wire share: the pods, and what their start sends.

make test-wire
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.pods import Pods
from bench.spaces import NoNamespaces
from tests import patience
from tests.wire.runs import RANKS, SMALL, Run, run

NOT_TESTED = "NOT TESTED, the bytes on the wire: ranks need network namespaces and a bridge"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.wire)
            item.add_marker(pytest.mark.timeout(patience.seconds(300)))


@pytest.fixture(scope="session")
def pods() -> Iterator[Pods]:
    """Namespaces for RANKS ranks; under CI the skip where there are none is a failure."""
    try:
        made = Pods(RANKS)
    except NoNamespaces as error:
        pytest.skip(f"{NOT_TESTED}: {error}")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def start_up(pods: Pods, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Bytes by which ranks find each other: what a run that sends next to nothing sends besides.

    That is what it asks rank 0's store, and the connections of each rank to each other one. They
    are the same for every experiment.
    """
    small: Run = run(pods, SMALL, tmp_path_factory.mktemp("start"))
    assert small.stream > small.wire > 0
    return small.stream - small.wire
