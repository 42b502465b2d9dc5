"""The S3 server that the tests of this folder share, and a place in it for each of them."""

from collections.abc import Iterator

import pytest

from tests.engine.test_resume import free_port
from tests.objectstore import Server, server


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("store"), free_port()) as made:
        yield made


@pytest.fixture(autouse=True)
def _known(store: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def name(request: pytest.FixtureRequest, tmp_path) -> str:
    """A name below which nothing is stored yet."""
    return tmp_path.name
