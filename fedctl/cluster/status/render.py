"""Output for a run on a cluster: lines and tables for people, JSON for programs."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fedctl import terminal
from fedctl.cluster.status import problems, state
from fedctl.report.summary import megabytes, percent, seconds, unsure

if TYPE_CHECKING:
    from fedctl.cluster.status.listing import Listed
    from fedctl.cluster.status.snapshot import Snapshot
    from fedctl.cluster.status.state import RunState


# --- status ---------------------------------------------------------------------------------------


def status_json(seen: "Snapshot") -> dict[str, Any]:
    """Return everything that `fedctl status` shows."""
    now = state.of(seen)
    return {
        "name": seen.run,
        "namespace": seen.namespace,
        "backend": now.backend.lower(),
        "state": now.state,
        "ranks_ready": now.ready,
        "ranks_total": now.size,
        "digest": now.digest,
        "started": _stamp(now.started),
        "ended": _stamp(now.ended),
        "problems": problems.of(seen, now),
        "result": state.final(seen),
        "ranks": [vars(row) for row in now.ranks],
        "claims": [claim["metadata"]["name"] for claim in seen.claims],
    }


def status_text(seen: "Snapshot") -> str:
    """Return the same as lines, without the table of ranks, which needs the terminal."""
    now = state.of(seen)
    lines = [f"{seen.run}  {headline(seen, now)}", f"  namespace {seen.namespace}"]
    lines[1] += f"  backend {now.backend.lower()}" if now.backend else ""
    lines[1] += f"  experiment {now.digest}" if now.digest else ""
    if result := result_line(seen):
        lines.append(f"  {result}")
    lines += [f"  ! {problem}" for problem in problems.of(seen, now)]
    if now.state == state.CANCELLED and seen.claims:
        kept = ", ".join(claim["metadata"]["name"] for claim in seen.claims)
        lines.append(f"  its job was deleted; kept: claim {kept}")
    return "\n".join(lines)


def headline(seen: "Snapshot", now: "RunState") -> str:
    """Return state, ranks and time in one line."""
    parts = [now.state]
    if now.state not in state.ENDED:
        parts.append(f"{now.ready} of {now.size} ranks run")
    if now.seconds is not None:
        parts.append(f"took {seconds(now.seconds)}")
    elif now.started is not None and now.state not in (state.QUEUED, state.SUSPENDED):
        parts.append(f"for {seconds(max(0.0, (seen.now - now.started).total_seconds()))}")
    return "  ".join(parts)


def result_line(seen: "Snapshot") -> str:
    """Return the result in one line: accuracy, rounds, bytes sent out of bytes without saving."""
    found = state.final(seen)
    parts = []
    if (accuracy := found.get("test_accuracy_ratio")) is not None:
        parts.append(f"accuracy {percent(accuracy)}")
    if (perplexity := found.get("test_perplexity")) is not None:
        parts.append(f"perplexity {unsure(perplexity)}")
    if found.get("rounds"):
        parts.append(f"{found['rounds']} rounds")
    sent, dense = found.get("uploaded_bytes"), found.get("dense_equivalent_bytes")
    if sent is not None:
        parts.append(f"sent {megabytes(sent)} MB")
    if sent is not None and dense:
        parts.append(f"of {megabytes(dense)} MB, saved {percent(1 - sent / dense)}")
    return "  ".join(parts)


def show_ranks(rows: "Sequence[state.RankRow]") -> None:
    """Print the table of ranks."""
    show(
        ["rank", "state", "restarts", "node", "pod", "reason"],
        [
            [str(row.rank), row.state, str(row.restarts), row.node, row.pod, row.reason]
            for row in rows
        ],
        right=("rank", "restarts"),
    )


# --- list -----------------------------------------------------------------------------------------


def list_json(runs: "Sequence[Listed]") -> list[dict[str, Any]]:
    """Return the runs of a list."""
    return [
        {
            "name": run.name,
            "namespace": run.namespace,
            "backend": run.now.backend.lower(),
            "state": run.now.state,
            "ranks_ready": run.now.ready,
            "ranks_total": run.now.size,
            "created": _stamp(run.made),
            "started": _stamp(run.now.started),
            "ended": _stamp(run.now.ended),
            "algorithm": run.algorithm,
            "sync": run.sync,
            "digest": run.now.digest,
        }
        for run in runs
    ]


def show_list(runs: "Sequence[Listed]", namespaces: bool) -> None:
    """Print the table of runs."""
    now = datetime.now(UTC)
    headings = ["run", "backend", "state", "ranks", "age", "took", "algorithm", "experiment"]
    rows = []
    for run in runs:
        took = _took(run, now)
        algorithm = run.algorithm
        algorithm += f" + {run.sync}" if run.sync not in ("", "full") else ""
        rows.append(
            [run.name, run.now.backend.lower(), run.now.state, _ranks(run),
             age((now - run.made).total_seconds()) if run.made else "", took, algorithm,
             run.now.digest]
        )  # fmt: skip
    if namespaces:
        headings.insert(0, "namespace")
        for row, run in zip(rows, runs, strict=True):
            row.insert(0, run.namespace)
    show(headings, rows, right=("ranks", "age", "took"))


def _ranks(run: "Listed") -> str:
    """Return how many ranks run, and how many there are; only the latter once the run has ended."""
    return f"{'' if run.now.state in state.ENDED else f'{run.now.ready}/'}{run.now.size}"


def _took(run: "Listed", now: datetime) -> str:
    if run.now.seconds is not None:
        return seconds(run.now.seconds)
    if run.now.started is None or run.now.state in (state.QUEUED, state.SUSPENDED):
        return ""
    return seconds(max(0.0, (now - run.now.started).total_seconds()))


def age(count: float) -> str:
    """Return how long ago in one unit: 45s, 12m, 5h, 3d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if count >= size:
            return f"{int(count // size)}{unit}"
    return f"{int(max(0.0, count))}s"


def show(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table to the terminal."""
    at_the_right = [index for index, heading in enumerate(headings) if heading in right]
    terminal.console().print(terminal.grid(headings, rows, at_the_right))


def _stamp(when: datetime | None) -> str | None:
    return when.isoformat() if when else None


# --- while it goes --------------------------------------------------------------------------------


class Progress(AbstractContextManager["Progress"]):
    """One line that is redrawn on a terminal; elsewhere, a new line whenever the text changes."""

    def __init__(self, run: str, live: bool) -> None:
        self._run = run
        self._shown = ""
        self._status: Any = None
        if live and sys.stderr.isatty():
            self._status = terminal.display(sys.stderr).status("")

    def __enter__(self) -> "Progress":
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status:
            self._status.stop()

    def show_snapshot(self, seen: "Snapshot", now: "RunState") -> None:
        """Show the state of a snapshot, and its first problem."""
        why = problems.of(seen, now)
        # A running clock is for a line that is redrawn; in a log it would be noise.
        counted = f"{now.state}  {now.ready} of {now.size} ranks run"
        text = headline(seen, now) if self._status else counted
        self.write(f"{text}  {why[0]}" if why else text)

    def write(self, text: str) -> None:
        """Show a text."""
        if self._status:
            from rich.text import Text

            width = self._status.console.width - 3  # beside the spinner; more would wrap
            line = terminal.plain(f"{self._run}  {text}")
            line = line if len(line) <= width else f"{line[: width - 1]}…"
            self._status.update(
                Text(line)
            )  # plain text, since a server's message may look like markup
        elif text != self._shown:
            terminal.tell(f"{self._run}  {text}", sys.stderr)
        self._shown = text
