"""Owns a run on this machine: starts torchrun, watches its ranks, leaves none behind.

torchrun starts every rank in a session of its own, so killing the launcher's group is not enough:
the ranks are found as its children and ended one by one.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from fedctl import postmortem, runs
from fedctl.errors import FedctlError, UserError
from fedctl.preflight import Plan
from fedctl.progress import View

POLL_SECONDS = 0.1
GRACE_SECONDS = 10  # how long ranks may take to end after one of them failed
STOPPING = "stopping after this round; Ctrl-C again to kill"


def run(plan: Plan, new_view: Callable[[], View]) -> None:
    """Run the plan to its end; raises FedctlError when it does not get there."""
    with Stop() as stop:
        existed = plan.folder.is_dir()
        _write_experiment(plan)
        launcher = Launcher(plan)
        try:
            with new_view() as view:
                rounds_done = _watch(plan, launcher, stop, view)
        finally:
            launcher.end()
    if launcher.code == 0 and (plan.folder / runs.MODEL).exists():
        return
    if stop.requests:
        error: FedctlError = postmortem.stopped(plan.folder, rounds_done, at_once=stop.requests > 1)
    else:
        died = launcher.code if launcher.code < 0 and not launcher.ended_by_us else None
        error = postmortem.cause(plan.folder, launcher.output(), rounds_done, died)
    worthless = stop.requests or isinstance(error, UserError)
    if worthless and not rounds_done and not plan.resume:
        _remove(plan.folder, keep_folder=existed)
    raise error


def _watch(plan: Plan, launcher: "Launcher", stop: "Stop", view: View) -> int:
    """Show rows until the launcher ends, passing on requests to stop; returns the rounds done."""
    tail = runs.Tail(plan.folder / runs.METRICS)
    start = runs.checkpoint_round(plan.folder) if plan.resume else 0
    rounds_done, announced, failed_since = start, False, None
    while True:
        ended = launcher.poll()
        # A resumed run first cuts off the rows after its checkpoint, then says where it stands.
        rows = tail.rows() if launcher.reached(start) else []
        for row in (row for row in rows if row["round"] > start):
            rounds_done = row["round"]
            view.row(row)
        if ended:
            return rounds_done
        if rounds_done == start:
            view.preparing(runs.last_line(runs.log_of(plan.folder, 0)))
        if stop.requests:
            launcher.ask_ranks_to_stop()
            if not announced:
                view.notice(STOPPING)
                announced = True
        elif launcher.some_rank_failed():
            failed_since = failed_since or time.monotonic()
        overdue = failed_since and time.monotonic() - failed_since > GRACE_SECONDS
        if stop.requests > 1 or overdue:
            launcher.end()
        time.sleep(POLL_SECONDS)


def _write_experiment(plan: Plan) -> None:
    try:
        (plan.folder / "logs").mkdir(parents=True, exist_ok=True)
        if plan.resume:
            runs.forget_ranks(plan.folder)
            return
        partial = plan.folder / f".{runs.EXPERIMENT}"
        partial.write_text(plan.experiment.canonical(), "utf-8")
        partial.replace(plan.folder / runs.EXPERIMENT)
    except OSError as error:
        raise UserError(f"{plan.folder}: cannot be written: {error.strerror}") from None


def _remove(folder: Path, keep_folder: bool) -> None:
    shutil.rmtree(folder)
    if keep_folder:
        folder.mkdir()


class Stop:
    """Counts Ctrl-C and SIGTERM while it is entered, instead of dying of them."""

    def __init__(self) -> None:
        self.requests = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._count)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.requests += 1


class Launcher:
    """torchrun and the ranks under it; `code` is its exit code once it has ended."""

    def __init__(self, plan: Plan) -> None:
        self._folder = plan.folder
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
                env=_environment(plan),
                start_new_session=True,  # the terminal's Ctrl-C is for fedctl, which passes it on
                preexec_fn=_end_with_parent,
            )

    @property
    def code(self) -> int:
        assert self._process.returncode is not None, "asked before the launcher ended"
        return self._process.returncode

    def poll(self) -> bool:
        """Whether the launcher has ended; remembers the ranks that it has."""
        ended = self._process.poll() is not None
        self._seen |= _children(self._process.pid)
        self._seen |= {rank.pid for rank in runs.ranks(self._folder)}
        return ended

    def output(self) -> str:
        """What the launcher and the ranks wrote since this start."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", "replace")

    def reached(self, round_number: int) -> bool:
        """Whether rank 0 has said that it stands at this round or beyond."""
        return round_number == 0 or any(
            rank.rank == 0 and rank.round >= round_number for rank in runs.ranks(self._folder)
        )

    def some_rank_failed(self) -> bool:
        """Whether a rank reported a failure, or is gone without a word."""
        return any(
            rank.status == "failed" or (rank.status == "running" and not _alive(rank.pid))
            for rank in runs.ranks(self._folder)
        )

    def ask_ranks_to_stop(self) -> None:
        """SIGTERM to every rank, once; to the launcher as long as it has started none."""
        for pid in (self._seen or {self._process.pid}) - self._asked:
            self._asked.add(pid)
            _send(pid, signal.SIGTERM)

    def end(self) -> None:
        """Kill whatever is left; returns when the launcher is gone."""
        self.poll()
        if self._process.returncode is None:
            self.ended_by_us = True
            _kill_group(self._process.pid)
            self._process.wait()
        for pid in self._seen:
            if runs.is_rank_of(self._folder, pid):
                _kill_group(pid)


def _command(plan: Plan) -> list[str]:
    folder = plan.folder.resolve()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    trainer = ["-m", "trainer", str(folder / runs.EXPERIMENT), "--out", str(folder)]
    resume = ["--resume"] if plan.resume else []
    return [sys.executable, *torchrun, str(plan.experiment.ranks), *trainer, *resume]


def _environment(plan: Plan) -> dict[str, str]:
    environment = dict(os.environ)
    # The trainer beside this fedctl, and not a folder of that name where the user happens to be.
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    if threads := plan.experiment.cluster.threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    if Path("/sys/class/net/lo").exists():  # one machine: no need to resolve its host name
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return environment


def _end_with_parent() -> None:
    """In the launcher before it starts: if fedctl is killed, be told so (Linux only)."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _children(pid: int) -> set[int]:
    try:
        return {
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        }
    except OSError:
        return set()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        _send(pid, signal.SIGKILL)
