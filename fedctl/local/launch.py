"""A run on this machine: starts torchrun, watches its ranks, and leaves none behind.

torchrun starts every rank in a session of its own, so killing the launcher's group is not enough:
the ranks are found as its children and ended one by one.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from fedctl.errors import FedctlError, UserError
from fedctl.local import processes
from fedctl.local.preflight import Plan
from fedctl.local.progress import View
from fedctl.report import postmortem, runs
from trainer.files import write_atomically

POLL_SECONDS = 0.1
GRACE_SECONDS = 10  # how long ranks may take to end after one of them failed
STOPPING = "stopping after this round; Ctrl-C again to kill"


def run(plan: Plan, new_view: Callable[[], View]) -> None:
    """Run the plan to its end; raise FedctlError if it does not get there."""
    with Stop() as stop:
        started = Started(plan)
        try:
            with new_view() as view:
                while not started.advance(view, stop.requests):
                    time.sleep(POLL_SECONDS)
        finally:
            started.end()
    if error := started.error():
        raise error


class Started:
    """A plan whose ranks were started; its owner calls `advance` until it has ended."""

    def __init__(self, plan: Plan, devices: Sequence[str] = ()) -> None:
        self.plan = plan
        self.rounds_done = runs.checkpoint_round(plan.folder) if plan.resume else 0
        self._first_round = self.rounds_done
        self._existed = plan.folder.is_dir()
        self._tail = runs.Tail(plan.folder / runs.METRICS)
        self._quiet, self._stops = True, 0
        self._failed_since: float | None = None
        _write_experiment(plan)
        self._launcher = Launcher(plan, devices)

    def advance(self, view: View, stops: int) -> bool:
        """Show new rows and pass on requests to stop; return whether the launcher has ended."""
        launcher, start = self._launcher, self._first_round
        asked_before, self._stops = self._stops, stops
        ended = launcher.poll()
        # A resumed run first cuts off the rows after its checkpoint, then reports its round.
        rows = self._tail.rows() if launcher.reached(start) else []
        for row in (row for row in rows if row["round"] > start or not self.plan.resume):
            self.rounds_done, self._quiet = row["round"], False
            view.row(row)
        if ended:
            return True
        if self._quiet:
            view.preparing(runs.last_line(runs.log_of(self.plan.folder, 0)))
        if stops:
            launcher.ask_ranks_to_stop()
            if not asked_before:
                view.notice(STOPPING)
        elif launcher.some_rank_failed():
            self._failed_since = self._failed_since or time.monotonic()
        overdue = self._failed_since and time.monotonic() - self._failed_since > GRACE_SECONDS
        if stops > 1 or overdue:
            launcher.end()
        return False

    def end(self) -> None:
        """Kill the processes that are left."""
        self._launcher.end()

    def error(self) -> FedctlError | None:
        """Return why the run did not finish, None if it did; remove a folder that holds nothing."""
        folder, launcher = self.plan.folder, self._launcher
        if launcher.code == 0 and (folder / runs.MODEL).exists():
            return None
        if self._stops:
            error: FedctlError = postmortem.stopped(folder, self.rounds_done, self._stops > 1)
        else:
            died = launcher.code if launcher.code < 0 and not launcher.ended_by_us else None
            error = postmortem.cause(folder, launcher.output(), self.rounds_done, died)
        worthless = self._stops or isinstance(error, UserError)
        if worthless and not self.rounds_done and not self.plan.resume:
            _remove(folder, keep_folder=self._existed)
        return error


def _write_experiment(plan: Plan) -> None:
    try:
        (plan.folder / "logs").mkdir(parents=True, exist_ok=True)
        if plan.resume:
            runs.forget_ranks(plan.folder)
            return
        write_atomically(plan.folder / runs.EXPERIMENT, plan.experiment.canonical())
    except OSError as error:
        raise UserError(f"{plan.folder}: cannot be written: {error.strerror}") from None


def _remove(folder: Path, keep_folder: bool) -> None:
    shutil.rmtree(folder)
    if keep_folder:
        folder.mkdir()


class Stop:
    """Counts Ctrl-C and SIGTERM while it is entered; neither ends the process then."""

    def __init__(self) -> None:
        self.requests = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._count)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.requests += 1


class Launcher:
    """torchrun and its ranks; `code` is its exit code once it has ended."""

    def __init__(self, plan: Plan, devices: Sequence[str] = ()) -> None:
        self._folder, self._ranks = plan.folder, plan.experiment.ranks
        self._seen: set[int] = set()
        self._asked: set[int] = set()
        self.ended_by_us = False
        self._log = runs.launcher_log(plan.folder)
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                _command(plan),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(plan, devices),
                start_new_session=True,  # the terminal's Ctrl-C is for fedctl, which passes it on
                preexec_fn=_end_with_parent,
            )

    @property
    def code(self) -> int:
        assert self._process.returncode is not None, "read before the launcher ended"
        return self._process.returncode

    def poll(self) -> bool:
        """Return whether the launcher has ended; remember its ranks."""
        ended = self._process.poll() is not None
        recorded = {rank.pid for rank in runs.ranks(self._folder)}
        if len(recorded) < self._ranks:
            self._seen |= processes.children(self._process.pid)
        self._seen |= recorded
        return ended

    def output(self) -> str:
        """Return what the launcher and the ranks printed since this start."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", "replace")

    def reached(self, round_number: int) -> bool:
        """Return whether rank 0 has reported this round or a later one."""
        return round_number == 0 or any(
            rank.rank == 0 and rank.round >= round_number for rank in runs.ranks(self._folder)
        )

    def some_rank_failed(self) -> bool:
        """Return whether a rank reported a failure, or disappeared without a record."""
        return any(
            rank.status == "failed" or (rank.status == "running" and not processes.exists(rank.pid))
            for rank in runs.ranks(self._folder)
        )

    def ask_ranks_to_stop(self) -> None:
        """Send SIGTERM to every rank once; to the launcher as long as it has started none."""
        for pid in (self._seen or {self._process.pid}) - self._asked:
            self._asked.add(pid)
            _send(pid, signal.SIGTERM)

    def end(self) -> None:
        """Kill the processes that are left; return when the launcher has ended."""
        self.poll()
        if self._process.returncode is None:
            self.ended_by_us = True
            _kill_group(self._process.pid)
            self._process.wait()
        for pid in self._seen:
            if processes.is_rank_of(self._folder, pid):
                _kill_group(pid)


def _command(plan: Plan) -> list[str]:
    folder = plan.folder.resolve()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    trainer = ["-m", "trainer", str(folder / runs.EXPERIMENT), "--out", str(folder)]
    resume = ["--resume"] if plan.resume else []
    return [sys.executable, *torchrun, str(plan.experiment.ranks), *trainer, *resume]


def _environment(plan: Plan, devices: Sequence[str]) -> dict[str, str]:
    environment = dict(os.environ)
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    # The trainer next to this fedctl, not a folder of that name in the user's working folder.
    root = str(Path(__file__).resolve().parent.parent.parent)
    paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    if threads := plan.experiment.cluster.threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    if (
        "lo" in dict(socket.if_nameindex()).values()
    ):  # one machine: no need to resolve its host name
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return environment


def _end_with_parent() -> None:
    """In the launcher before it starts: ask for a SIGTERM when fedctl dies (Linux only)."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        _send(pid, signal.SIGKILL)
