"""Owns Linux namespaces: disks, networks and names that only some processes have.

For benchmarks, and for the tests that take such things away.
"""

import os
import shutil
import subprocess
import sys

KINDS = {"--mount": "-m", "--net": "-n", "--uts": "-u"}  # nsenter's names of unshare's options


class NoNamespaces(Exception):
    """They can't be had here; its text says why."""


class Namespace:
    """A process in namespaces of its own (unshare's options); `enter` starts commands in them."""

    def __init__(self, *options: str) -> None:
        if sys.platform != "linux" or os.geteuid() != 0:
            raise NoNamespaces("this needs Linux, and root")
        if not shutil.which("unshare"):
            raise NoNamespaces("unshare of util-linux is not installed")
        self._holder = subprocess.Popen(
            ["unshare", *options, "sh", "-c", "echo ready; exec sleep 3600"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout and self._holder.stderr
        if self._holder.stdout.readline() != "ready\n":
            raise NoNamespaces(self._holder.stderr.read().strip())
        self.pid = self._holder.pid
        self.enter = ["nsenter", "-t", str(self.pid), *(KINDS[option] for option in options)]

    def do(self, *words: object) -> None:
        """Run a command there."""
        done = subprocess.run(
            [*self.enter, *map(str, words)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stderr)

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()
