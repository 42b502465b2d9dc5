"""Why a run ended early, in one line, from the records of its ranks and their exit codes."""

import re
import shlex
import signal
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedctl.errors import FedctlError, RunError, Stopped, UserError
from fedctl.report import runs

DIVERGED = "diverged in round "  # start of a message that is the same on all ranks
UNUSABLE = ": no checkpoint in "  # in a message that says that none can be used
PEER_LOST = "lost another rank"  # start of a rank's message about another rank's failure
ERROR = re.compile(r"^(\w[\w.]*(?:Error|Exception|Interrupt)\b.*)$", re.M)

MEMORY = re.compile(r"failed to map segment|[Cc]annot allocate memory|^MemoryError")


@dataclass(frozen=True)
class End:
    """How the processes of a run ended.

    codes: exit codes by rank; hung: the ranks that fedctl had to kill; output: what all have
    printed; rounds: completed; stops: how often the user asked to stop; again: options of the
    resumed run that no checkpoint has yet; planned: how many rounds it has.
    """

    codes: Mapping[int, int] = field(default_factory=dict)
    hung: Collection[int] = ()
    output: str = ""
    rounds: int = 0
    stops: int = 0
    again: Sequence[str] = ()
    planned: int = 0

    @property
    def where(self) -> str:
        """The round in which it happened, as far as the rows tell."""
        if self.planned and self.rounds >= self.planned:
            return "at the end"
        return f"in round {self.rounds + 1}" if self.rounds else "before the first round ended"

    def died(self, rank: int) -> int | None:
        """Return the number of the signal that killed a rank; none of fedctl's own counts."""
        code = self.codes.get(rank, 0)
        ours = rank in self.hung or (self.stops and code == -signal.SIGTERM)
        return -code if code < 0 and not ours else None


def cause(folder: Path, end: End) -> FedctlError:
    """Return the error of a run that did not finish."""
    records = runs.ranks(folder)
    settings = [rank for rank in records if rank.exit == UserError.exit_code]
    if settings and not end.stops:
        return UserError(settings[0].message)
    if end.stops > 1:
        return _stopped(folder, end, at_once=True)
    text = _failure(folder, records, end)
    if text and (text.startswith(DIVERGED) or UNUSABLE in text):  # resuming would end so again
        return RunError(text)
    if end.stops and text is None:
        return _stopped(folder, end, at_once=False)
    return RunError((text or _silence(folder, records, end)) + _how_to_continue(folder, end.again))


def _failure(folder: Path, records: list[runs.Rank], end: End) -> str | None:
    """Return what a rank reported, or how it was lost; None if nothing failed by itself."""
    # The rank that fails first takes the others with it: they report a lost peer. After sorting,
    # the first of each list is the cause.
    failed = sorted(
        (r for r in records if r.status == "failed"),
        key=lambda r: (r.message.startswith(PEER_LOST), r.modified),
    )
    if failed and not failed[0].message.startswith(PEER_LOST):
        return _reported(folder, failed[0], end)
    others = "; the others stopped" if len(records) > 1 else ""
    for rank in sorted(end.codes):
        if number := end.died(rank):
            return f"rank {rank} was killed {end.where} ({_signal(number)}){others}"
    if end.stops:  # a rank that was asked earlier than the others is lost to them
        return None
    for rank in sorted(end.hung) if failed else ():
        return f"rank {rank} did not answer the others {end.where}, and was ended{others}"
    return _reported(folder, failed[0], end) if failed else None


def _reported(folder: Path, rank: runs.Rank, end: End) -> str:
    message = rank.message or f"failed with exit code {rank.exit}"
    if message.startswith(DIVERGED):
        return message
    return f"rank {rank.rank} {end.where}: {message}; see {runs.log_of(folder, rank.rank)}"


def _silence(folder: Path, records: list[runs.Rank], end: End) -> str:
    """Return what can be said where no rank has failed, or none could say so."""
    if any(r.status == "stopped" for r in records):
        return f"the ranks were stopped from outside (SIGTERM) {end.where}"
    lost = [r for r in records if r.status == "running"]
    errors = ERROR.findall(end.output)
    detail = f": {errors[-1].strip()}" if errors else ""
    if errors and MEMORY.search(errors[-1]):
        detail = (
            f": out of memory ({errors[-1].strip()}); use fewer ranks, or give them more "
            "(ulimit -v, the container's limit)"
        )
    what = f"rank {lost[0].rank} ended {end.where} without a word" if lost else "no rank started"
    return f"{what}{detail}; see {runs.output_log(folder)}"


def _signal(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name}, out of memory?" if number == signal.SIGKILL else name


def _stopped(folder: Path, end: End, at_once: bool) -> Stopped:
    """Return the message of a run that was stopped on request, with what it kept."""
    how = "killed" if at_once else "stopped"
    if not end.rounds:
        return Stopped(f"{how} before the first round ended; nothing was kept")
    hint = (
        _how_to_continue(folder, end.again)
        or f"; no checkpoint was saved, its metrics are in {folder}"
    )
    return Stopped(f"{how} after round {end.rounds}{hint}")


def _how_to_continue(folder: Path, again: Sequence[str]) -> str:
    """Return the command that resumes the run, if it has a checkpoint."""
    if not runs.checkpoint_round(folder):
        return ""
    return f"; continue with: {shlex.join(['fedctl', 'run', '--resume', str(folder), *again])}"
