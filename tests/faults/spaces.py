"""Linux namespaces for tests: disks, networks and names that only some processes have."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NOT_TESTED = "NOT TESTED: disks, networks and names are taken away in namespaces, on Linux, by root"


class Namespace:
    """A process in namespaces of its own (unshare's options); `enter` starts commands in them."""

    def __init__(self, *options: str) -> None:
        if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("unshare"):
            pytest.skip(NOT_TESTED)
        self._holder = subprocess.Popen(
            ["unshare", *options, "sh", "-c", "echo ready; exec sleep 3600"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout and self._holder.stderr
        if self._holder.stdout.readline() != "ready\n":
            pytest.skip(f"{NOT_TESTED}: {self._holder.stderr.read().strip()}")
        kinds = {"--mount": "-m", "--net": "-n", "--uts": "-u"}
        self.pid = self._holder.pid
        self.enter = ["nsenter", "-t", str(self.pid), *(kinds[option] for option in options)]

    def do(self, *words: object) -> None:
        """Run a command there."""
        done = subprocess.run(
            [*self.enter, *map(str, words)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stderr)

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()


@contextmanager
def namespace(*options: str) -> Iterator[Namespace]:
    made = Namespace(*options)
    try:
        yield made
    finally:
        made.close()
