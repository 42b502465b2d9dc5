"""A run over time: a new snapshot whenever its job or a pod changes."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedctl.cluster.api import errors
from fedctl.cluster.status import job, snapshot
from fedctl.cluster.status.snapshot import Snapshot
from fedctl.errors import FedctlError

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

SETTLE_SECONDS = 0.5  # changes come in bursts; one snapshot covers a burst
# Some problems change no object, such as an operator that does not react.
POLL_SECONDS = 15.0


def snapshots(cluster: "Cluster", run: str, timeout: float | None = None) -> Iterator[Snapshot]:
    """Yield the run now and after each change, for `timeout` seconds; 0 yields one snapshot."""
    ends = None if timeout is None else time.monotonic() + timeout
    watches = _Watches(cluster, run, ends)
    heard: float | None = (
        None  # the last answer; a server that has never answered gets no second chance
    )
    polled = False
    try:
        while not polled or ends is None or time.monotonic() < ends:
            polled = True
            try:
                seen = snapshot.read(cluster, run)
            except FedctlError as error:
                tolerated = heard is not None and time.monotonic() - heard <= errors.TIMEOUT_SECONDS
                if not tolerated or not errors.passing(error):
                    raise
                time.sleep(1)
                continue
            heard = time.monotonic()
            yield seen
            watches.add("Pod")
            if seen.job:
                watches.add(seen.job["kind"])
            if seen.workload:
                watches.add("Workload")
            if not watches.wait():
                return
    finally:
        watches.stop.set()


class _Watches:
    """A thread for each kind that reports every change of the run's objects."""

    def __init__(self, cluster: "Cluster", run: str, ends: float | None) -> None:
        self.stop = threading.Event()
        self._cluster, self._run, self._ends = cluster, run, ends
        self._changed: queue.Queue[FedctlError | None] = queue.Queue()
        self._kinds: set[str] = set()

    def add(self, kind: str) -> None:
        """Watch a kind, unless it is watched already."""
        if kind not in self._kinds:
            self._kinds.add(kind)
            threading.Thread(target=self._watch, args=[kind], daemon=True).start()

    def wait(self) -> bool:
        """Wait for a change or the next poll; return False if the time is up."""
        left = POLL_SECONDS
        if self._ends is not None:
            left = min(left, self._ends - time.monotonic())
        if left <= 0:
            return False
        try:
            _raise(self._changed.get(timeout=left))
            time.sleep(SETTLE_SECONDS)
        except queue.Empty:
            pass
        while not self._changed.empty():
            _raise(self._changed.get_nowait())
        return True

    def _watch(self, kind: str) -> None:
        name = self._run if kind in job.KINDS else None
        labels = None if kind == "Workload" or name else snapshot.selector(self._run)
        left = None if self._ends is None else max(0.0, self._ends - time.monotonic())
        try:
            for _change in self._cluster.watch(kind, labels, name, left, stop=self.stop):
                if self.stop.is_set():
                    return
                self._changed.put(None)
        except (errors.Forbidden, errors.KindMissing):
            return  # not allowed or not installed: rely on the periodic polling
        except FedctlError as error:
            self._changed.put(error)


def _raise(error: FedctlError | None) -> None:
    if error is not None:
        raise error
