"""Several runs at a time on this machine: how many, which next, and how each of them ended.

One loop starts and watches them all, without threads; each run is the same as by `fedctl run`.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedctl.errors import FedctlError, RunError, Stopped, UserError
from fedctl.local import machine, preflight
from fedctl.local.launch import POLL_SECONDS, STOPPING, Started, Stop
from fedctl.report import runs
from fedctl.report.groups import Group
from fedctl.sweep import backlog
from fedctl.sweep.backlog import Item
from fedctl.sweep.file import Sweep, read
from fedctl.sweep.overview import Line, Overview
from fedctl.sweep.variants import variants
from trainer.config.errors import ConfigError
from trainer.config.schema import Experiment
from trainer.lock import NAME, Lock, Taken

FINISHED, FAILED, STOPPED = "finished", "failed", "stopped"


@dataclass(frozen=True)
class Batch:
    """A sweep that may start: all its runs are valid, and its folder holds nothing else."""

    sweep: Sweep
    folder: Path
    items: list[Item]
    jobs: int
    devices: list[str]

    @property
    def waiting(self) -> list[Item]:
        """The runs that are not finished yet."""
        return [item for item in self.items if item.state != "finished"]

    def work(self) -> tuple[int, int]:
        """Return how many runs are left to do, and how many rounds."""
        rounds = [
            item.variant.experiment.rounds - backlog.rounds_done(item) for item in self.waiting
        ]
        return len(rounds), sum(rounds)

    def as_dict(self) -> dict[str, Any]:
        """Return the runs and their state as JSON output."""
        runs = [
            {
                "run": item.variant.name,
                "folder": str(item.folder),
                "digest": item.variant.digest,
                "state": item.state,
                "experiment": item.variant.experiment.model_dump(mode="json"),
            }
            for item in self.items
        ]
        return {"sweep": self.sweep.name, "jobs": self.jobs, "runs": runs}

    def text(self) -> str:
        """Return in one line what will run, how many at a time and why."""
        done, count = len(self.items) - len(self.waiting), len(self.items)
        before = f", {done} of them finished before" if done else ""
        most = max(map(_cpus_of, (item.variant.experiment for item in self.items)))
        needs = f"{machine.cpus()} CPUs, {most} for each run"
        if self.devices:
            needs += f", {len(self.devices)} GPUs shared by them; change it by --jobs"
        return f"{count} runs in {self.folder}{before}; {self.jobs} at a time ({needs})"


@dataclass(frozen=True)
class Outcome:
    """How a run of the sweep ended."""

    item: Item
    state: str
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": self.item.variant.name,
            "folder": str(self.item.folder),
            "digest": self.item.variant.digest,
            "state": self.state,
            "problem": self.problem,
        }


def batch(source: str, sets: Sequence[str], jobs: int | None, out: Path | None) -> Batch:
    """Plan the sweep that the options of `fedctl sweep` describe; create nothing yet."""
    sweep = read(source)
    found = variants(sweep, sets)
    experiments = [variant.experiment for variant in found]
    folder = out or Path("runs") / sweep.name
    items = backlog.items(found, folder)
    jobs = jobs or max(1, machine.cpus() // max(map(_cpus_of, experiments)))
    on_gpus = any(experiment.cluster.backend != "gloo" for experiment in experiments)
    result = Batch(sweep, folder, items, min(jobs, len(items)), machine.gpus() if on_gpus else [])
    _ports_differ(result)
    return result


def _cpus_of(experiment: Experiment) -> int:
    return experiment.ranks * max(1, experiment.cluster.threads)


def _ports_differ(batch: Batch) -> None:
    """Raise if runs at the same time would serve their metrics on the same port."""
    ports = [item.variant.experiment.metrics.port for item in batch.waiting]
    if batch.jobs > 1 and len(ports) > 1 and (fixed := [port for port in ports if port]):
        raise ConfigError(
            "metrics.port",
            f"{fixed[0]} cannot serve {batch.jobs} runs at a time; set it to 0, or use --jobs 1",
        )


# ---------------------------------------------------------------------------------------------
# running


def run(batch: Batch, fail_fast: bool, new_overview: Callable[[], Overview]) -> list[Outcome]:
    """Run what is left to do; return how each run of the sweep ended, in order."""
    if not batch.waiting:
        return [Outcome(item, FINISHED) for item in batch.items]
    for experiment in (item.variant.experiment for item in batch.waiting):
        preflight.machine_is_ready(experiment)
    with _alone(batch.folder), Stop() as stop:
        crew = Crew(batch, fail_fast)
        try:
            with new_overview() as overview:
                while not crew.advance(overview, stop.requests):
                    overview.refresh()
                    time.sleep(POLL_SECONDS)
        finally:
            crew.end()
    return [crew.outcomes.get(item.variant.digest, _left(item)) for item in batch.items]


def _left(item: Item) -> Outcome:
    """Return the outcome of a run that this call did not start."""
    return Outcome(item, FINISHED if item.state == "finished" else STOPPED)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock, so that no other fedctl runs a sweep in this folder."""
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    except Taken as error:
        raise UserError(f"{folder}: is in use by {error}; wait for it") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if not existed and {path.name for path in folder.iterdir()} <= {NAME}:
                shutil.rmtree(folder)  # it was stopped before anything was kept
        lock.release()


class Crew:
    """The active runs, each in a slot of its own, and those that wait for one."""

    def __init__(self, batch: Batch, fail_fast: bool) -> None:
        self._batch, self._fail_fast = batch, fail_fast
        self._waiting = list(batch.waiting)
        self._active: dict[int, tuple[Item, Started, Line]] = {}
        self._announced = False
        self.outcomes: dict[str, Outcome] = {}

    def advance(self, overview: Overview, stops: int) -> bool:
        """Start runs that may start, and collect those that have ended; return whether all have."""
        if self._fail_fast and any(o.state == FAILED for o in self.outcomes.values()):
            stops = max(stops, 1)
        if stops:
            self._waiting.clear()
        elif self._waiting and len(self._active) < self._batch.jobs:
            self._start(self._waiting.pop(0), overview)
        for place, (item, started, line) in list(self._active.items()):
            if started.advance(line, stops):
                del self._active[place]
                started.end()
                error = started.error()
                overview.finished(line, str(error or ""))
                self._note(item, error)
        if stops and self._active and not self._announced:  # they have been asked by now
            overview.notice(STOPPING.replace("this round", "the round of each run"))
            self._announced = True
        return not self._active and not self._waiting

    def _start(self, item: Item, overview: Overview) -> None:
        place = next(p for p in range(self._batch.jobs) if p not in self._active)
        experiment = item.variant.experiment
        done = backlog.rounds_done(item)
        line = overview.started(item.variant.name, experiment.rounds, done)
        try:
            plan = backlog.plan(item)
            started = Started(plan, _turned(self._batch.devices, place * experiment.ranks))
        except (FedctlError, ConfigError) as error:
            overview.finished(line, str(error))
            self._note(item, error)
        else:
            self._active[place] = item, started, line

    def _note(self, item: Item, error: Exception | None) -> None:
        state = FAILED if error else FINISHED
        if isinstance(error, Stopped):
            state = STOPPED
        problem = "" if error is None else " ".join(str(error).split())
        self.outcomes[item.variant.digest] = Outcome(item, state, problem)

    def end(self) -> None:
        """Kill the runs that are left."""
        for _item, started, _line in self._active.values():
            started.end()


def _turned(devices: list[str], by: int) -> list[str]:
    """Rotate the GPUs for each run, so that they do not all start with the same one."""
    by %= max(1, len(devices))
    return devices[by:] + devices[:by]


def verdict(outcomes: list[Outcome]) -> FedctlError | None:
    """Return the error that the command ends with; None if every run has finished."""
    failed = sum(outcome.state == FAILED for outcome in outcomes)
    finished = sum(outcome.state == FINISHED for outcome in outcomes)
    again = "run the same command again to resume"
    if failed:
        return RunError(f"{failed} of {len(outcomes)} runs failed; {again}")
    if finished < len(outcomes):
        return Stopped(f"stopped; {finished} of {len(outcomes)} runs have finished; {again}")
    return None


def finished_groups(outcomes: list[Outcome]) -> list[Group]:
    """Return the finished runs by their settings, as the sweep names them."""
    members: dict[str, list[runs.Run]] = {}
    for item in (outcome.item for outcome in outcomes if outcome.state == FINISHED):
        run = runs.read(item.folder, item.variant.name)
        members.setdefault(item.variant.group, []).append(run)
    return [Group(label, found) for label, found in members.items()]
