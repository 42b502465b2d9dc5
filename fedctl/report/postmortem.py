"""Why a run ended early, in one line, from the records of its ranks and its launcher."""

import re
import signal
from pathlib import Path

from fedctl.errors import FedctlError, RunError, Stopped, UserError
from fedctl.report import runs

# torchrun's table of failed ranks.
FAILURE = re.compile(r"rank +: (\d+) \(local_rank: \d+\)\s+exitcode +: (-?\d+)")
PEER_LOST = "lost another rank"  # start of a rank's message about another rank's failure
ERROR = re.compile(r"^(?:\[?rank\d+\]?:? ?)?(\w[\w.]*(?:Error|Exception|Interrupt)\b.*)$", re.M)


def cause(
    folder: Path, launcher_output: str, rounds_done: int, launcher_signal: int | None = None
) -> FedctlError:
    """Return the error of a run whose launcher did not exit with 0.

    `launcher_signal` is its negative exit code if something other than fedctl killed it.
    """
    records = runs.ranks(folder)
    exits = {int(rank): int(code) for rank, code in FAILURE.findall(launcher_output)}
    settings = [rank for rank in records if rank.exit == UserError.exit_code]
    if settings:
        return UserError(settings[0].message)
    where = f"in round {rounds_done + 1}" if rounds_done else "before the first round ended"
    if launcher_signal is not None:
        text = f"torchrun was killed {where} ({_signal(launcher_signal)}); its ranks were stopped"
    else:
        text = _what_happened(folder, records, exits, launcher_output, where)
    return RunError(text + how_to_continue(folder))


def _what_happened(
    folder: Path,
    records: list[runs.Rank],
    exits: dict[int, int],
    launcher_output: str,
    where: str,
) -> str:
    # The rank that dies first takes the others with it: they report a lost peer, or die of the
    # launcher's SIGTERM. After sorting, the first of each list is the cause.
    killed = sorted(
        (r for r in records if r.status == "running" and exits.get(r.rank, 0) < 0),
        key=lambda r: exits[r.rank] == -signal.SIGTERM,
    )
    failed = sorted(
        (r for r in records if r.status == "failed"),
        key=lambda r: (r.message.startswith(PEER_LOST), r.modified),
    )
    unheard = [r for r in records if r.status == "running"]
    only_consequences = all(r.message.startswith(PEER_LOST) for r in failed)
    silent = (killed or unheard) if only_consequences else []
    if silent:
        text = f"rank {silent[0].rank} was killed {where} ({_signal(exits.get(silent[0].rank))})"
        others = "; the others stopped" if len(records) > 1 else ""
        return f"{text}{others}"
    if failed:
        message = failed[0].message or f"failed with exit code {failed[0].exit}"
        log = runs.log_of(folder, failed[0].rank)
        return f"rank {failed[0].rank} {where}: {message}; see {log}"
    if any(r.status == "deadline" for r in records):
        return f"the ranks stopped {where} at their deadline (FEDCTL_DEADLINE_SECONDS)"
    if any(r.status == "stopped" for r in records):
        return f"the ranks were stopped from outside (SIGTERM) {where}"
    errors = ERROR.findall(launcher_output)
    detail = f": {errors[0].strip()}" if errors else ""
    return f"the ranks did not start{detail}; see {runs.launcher_log(folder)}"


def _signal(code: int | None) -> str:
    if code is None or code >= 0:
        return "signal 9 or out of memory?"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, out of memory?" if -code == signal.SIGKILL else name


def stopped(folder: Path, rounds_done: int, at_once: bool) -> Stopped:
    """Return the message of a run that was stopped on request, with what it kept."""
    how = "killed" if at_once else "stopped"
    if not rounds_done:
        return Stopped(f"{how} before the first round ended; nothing was kept")
    hint = how_to_continue(folder) or f"; no checkpoint was saved, its metrics are in {folder}"
    return Stopped(f"{how} after round {rounds_done}{hint}")


def how_to_continue(folder: Path) -> str:
    """Return the command that resumes the run, if it has a checkpoint."""
    if not (folder / runs.CHECKPOINT).is_file():
        return ""
    return f"; continue with: fedctl run --resume {folder}"
