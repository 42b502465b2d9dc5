"""Namespaces for tests of faults: a skip says why there are none."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench import spaces

NOT_TESTED = "NOT TESTED: disks, networks and names are taken away in namespaces, on Linux, by root"


class Namespace(spaces.Namespace):
    """As a benchmark has it; under CI the skip of a test that can't have it is a failure."""

    def __init__(self, *options: str) -> None:
        try:
            super().__init__(*options)
        except spaces.NoNamespaces as error:
            pytest.skip(f"{NOT_TESTED}: {error}")


@contextmanager
def namespace(*options: str) -> Iterator[Namespace]:
    made = Namespace(*options)
    try:
        yield made
    finally:
        made.close()
