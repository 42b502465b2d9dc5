"""A run on this machine, from its folder and its lock to how it ended.

The processes themselves are in ranks.py, the words for what went wrong in fedctl/report.
"""

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from fedctl.errors import FedctlError, RunError, Stopped, UserError
from fedctl.local.preflight import Plan, holds_nothing
from fedctl.local.progress import View
from fedctl.local.ranks import Ranks
from fedctl.report import postmortem, runs
from trainer.files import write_atomically
from trainer.lock import Lock, Taken

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
    """A plan whose ranks were started; its owner calls `advance` until they have ended."""

    def __init__(self, plan: Plan, devices: Sequence[str] = ()) -> None:
        self.plan = plan
        self.rounds_done = runs.checkpoint_round(plan.folder) if plan.resume else 0
        self._existed = plan.folder.is_dir()
        self._tail = runs.Tail(plan.folder / runs.METRICS)
        self._quiet, self._stops, self._told = True, 0, 0
        self._failed_since: float | None = None
        self._removed = False  # or moved: the run folder, by someone else
        self._lock = _prepare(plan)
        try:
            self._ranks = Ranks(plan, self._lock.descriptor, devices)
        except BaseException:
            _undo(plan, self._existed)
            self._lock.release()
            raise

    def advance(self, view: View, stops: int) -> bool:
        """Show new rows and pass on requests to stop; return whether the ranks have ended."""
        ranks = self._ranks
        asked_before, self._stops = self._stops, stops
        if self._lock.lost:  # what ranks write from here on, nobody finds
            self._removed = True
            ranks.end()
            return True
        ended = ranks.ended()
        self._show(view)
        if ended:
            return True
        if self._quiet:
            view.preparing(runs.last_line(runs.log_of(self.plan.folder, 0)))
        if stops:
            ranks.ask_to_stop()
            if not asked_before:
                view.notice(STOPPING)
        if ranks.some_failed:
            self._failed_since = self._failed_since or time.monotonic()
        overdue = self._failed_since and time.monotonic() - self._failed_since > GRACE_SECONDS
        if stops > 1 or overdue:
            ranks.end()
        return False

    def _show(self, view: View) -> None:
        """Show what rank 0 has told since the last look."""
        first = runs.first_rank(self.plan.folder)
        if first is None:
            return
        for text in first.notices[self._told :]:
            view.notice(text)
        self._told = len(first.notices)
        if first.resumed_at is None:  # it may still have to cut off the rows after its checkpoint
            return
        if self._quiet:
            self.rounds_done = first.resumed_at
        for row in self._tail.rows():
            if row["round"] > first.resumed_at or not self.plan.resume:
                self.rounds_done, self._quiet = row["round"], False
                view.row(row)

    def end(self) -> None:
        """Kill the processes that are left, and leave the folder to others."""
        self._ranks.end()
        (self.plan.folder / runs.NEXT).unlink(missing_ok=True)
        self._lock.release()

    def error(self) -> FedctlError | None:
        """Return why the run did not finish, None if it did; remove a folder that holds nothing."""
        folder, ranks = self.plan.folder, self._ranks
        if self._removed:
            return RunError(
                f"{folder}: was removed or moved during the run, which was ended; put it back "
                "and resume, or start a new run"
            )
        if ranks.succeeded and runs.finished(folder):
            return None
        end = postmortem.End(
            ranks.codes,
            ranks.hung,
            ranks.output(),
            self.rounds_done,
            self._stops,
            self._again(),
            self.plan.experiment.rounds,
        )
        error = postmortem.cause(folder, end)
        worthless = isinstance(error, UserError | Stopped)
        if worthless and not self.rounds_done and not self.plan.resume:
            _remove(folder, keep_folder=self._existed)
        return error

    def _again(self) -> list[str]:
        """Return the options with which it has to resume: none once a checkpoint has them."""
        plan = self.plan
        try:
            saved = (plan.folder / runs.EXPERIMENT).read_text() == plan.experiment.canonical()
        except OSError:
            saved = True
        if saved or not plan.resume:
            return []
        options = [word for text in plan.sets for word in ("--set", text)]
        return options + [word for key in plan.allowed for word in ("--allow-changed", key)]


def _prepare(plan: Plan) -> Lock:
    """Take the run folder, and write the experiment into it."""
    folder, existed = plan.folder, plan.folder.is_dir()
    logs = folder / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder)
    except OSError as error:
        # Without the lock others may be at work here: only what is empty goes.
        for made in [] if plan.resume else [logs] if existed else [logs, folder]:
            with contextlib.suppress(OSError):
                made.rmdir()
        raise UserError(
            f"{error.filename or folder}: cannot be written: {error.strerror}"
        ) from None
    except Taken as error:
        raise UserError(f"{folder}: is being run by {error}; wait for it") from None
    try:
        if plan.resume:
            runs.forget_ranks(folder)
            write_atomically(folder / runs.NEXT, plan.experiment.canonical())
        elif not holds_nothing(folder):
            raise UserError(f"{folder}: another run has just used it; name another folder")
        else:
            write_atomically(folder / runs.EXPERIMENT, plan.experiment.canonical())
    except OSError as error:
        _undo(plan, existed)
        lock.release()
        raise UserError(
            f"{error.filename or folder}: cannot be written: {error.strerror}"
        ) from None
    except BaseException:
        lock.release()
        raise
    return lock


def _undo(plan: Plan, existed: bool) -> None:
    """Leave the folder as it was before the run was prepared in it."""
    if plan.resume:
        with contextlib.suppress(OSError):  # where it could not be written either
            (plan.folder / runs.NEXT).unlink(missing_ok=True)
    else:
        _remove(plan.folder, keep_folder=existed)


def _remove(folder: Path, keep_folder: bool) -> None:
    """Remove what this run has made; the folder itself may be a mount point, or a link."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if not keep_folder:
        with contextlib.suppress(OSError):  # something else has been put there in the meantime
            folder.rmdir()


class Stop:
    """Counts requests to stop while it is entered: Ctrl-C, SIGTERM, a closed terminal.

    None of them ends the process then. What it was started to ignore, as by nohup, it ignores.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._count)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _count(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGHUP:
            self.requests += 1
        else:  # the shell and the kernel may both send it for one terminal: never a second request
            self.requests = max(self.requests, 1)
