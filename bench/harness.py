"""Owns raw results and what is made of them: JSONL lines, a table and a figure beside them, README.

A benchmark measures and says how its rows become a table and a figure; it writes no file itself.
Nothing that tells who or where: a machine is a CPU model, data a file name.
"""

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
COLOURS = [colormaps["tab20"](index) for index in range(20)]  # of the cases in a figure
PACKAGES = ("torch", "numpy")

Row = dict[str, Any]  # one line of a JSONL file
Record = Callable[[str, int, Mapping[str, Any], Mapping[str, Any]], None]


@dataclass(frozen=True)
class Benchmark:
    """How the rows of results/NAME.jsonl become NAME.md, NAME.svg and a section of some pages."""

    name: str
    table: Callable[[Sequence[Row]], str]
    figure: Callable[[Sequence[Row]], Figure]
    pages: tuple[Path, ...] = ()  # with its section, besides README

    @property
    def raw(self) -> Path:
        return RESULTS / f"{self.name}.jsonl"


@contextmanager
def recording(benchmark: Benchmark) -> Iterator[Record]:
    """Measure: `record(case, seed, values, settings)` is a line at once.

    The file takes the old one's place at the end.
    """
    RESULTS.mkdir(exist_ok=True)
    partial = benchmark.raw.with_name(benchmark.raw.name + ".partial")
    origin = {"machine": machine(), "versions": versions(), **commit()}
    with partial.open("w") as lines:

        def record(
            case: str, seed: int, values: Mapping[str, Any], settings: Mapping[str, Any]
        ) -> None:
            row = {
                "benchmark": benchmark.name,
                "case": case,
                "seed": seed,
                "values": dict(values),
                "settings": dict(settings),
                "utc": datetime.now(UTC).isoformat(timespec="seconds"),
                **origin,
            }
            lines.write(json.dumps(row) + "\n")
            lines.flush()

        yield record
    partial.replace(benchmark.raw)


def keep(benchmark: Benchmark, before: Sequence[Row]) -> None:
    """Put the rows of `before` back in front that were not measured anew."""
    fresh = read(benchmark)
    anew = {(row["case"], row["seed"]) for row in fresh}
    old = [row for row in before if (row["case"], row["seed"]) not in anew]
    benchmark.raw.write_text("".join(json.dumps(row) + "\n" for row in [*old, *fresh]))


def publish(benchmark: Benchmark) -> None:
    """Write the table and the figure from the raw results, and the table into the pages."""
    for path, text in _texts(benchmark).items():
        _write(path, text)
    # the same rows give the same file: no date in it, no random ids
    with rc_context({"svg.hashsalt": benchmark.name}):
        partial = RESULTS / f"{benchmark.name}.partial.svg"
        figure = benchmark.figure(read(benchmark))
        figure.savefig(partial, metadata={"Date": None}, bbox_inches="tight")
        partial.replace(benchmark.raw.with_suffix(".svg"))


def stale(benchmark: Benchmark) -> list[Path]:
    """Which of the written tables the raw results would now make differently."""
    fresh = {path: text for path, text in _texts(benchmark).items() if path.read_text() != text}
    return list(fresh)


def _texts(benchmark: Benchmark) -> dict[Path, str]:
    rows = read(benchmark)
    content = benchmark.table(rows)
    return {
        benchmark.raw.with_suffix(".md"): document(benchmark, rows),
        **{
            p: with_section(p.read_text(), benchmark.name, content)
            for p in (README, *benchmark.pages)
        },
    }


def read(benchmark: Benchmark) -> list[Row]:
    return [json.loads(line) for line in benchmark.raw.read_text().splitlines()]


def document(benchmark: Benchmark, rows: Sequence[Row]) -> str:
    """NAME.md: the table, and where and with what it was measured."""
    first = rows[0]
    machine = ", ".join(str(value) for value in first["machine"].values())
    software = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    changed = ", ".join(first["modified"])
    return (
        f"<!-- generated from {benchmark.raw.name} by python -m bench; do not edit -->\n\n"
        f"{benchmark.table(rows)}\n\n"
        f"![{benchmark.name}]({benchmark.name}.svg)\n\n"
        f"{machine}; {software}; commit {first['commit'][:12]}"
        f"{f' with changes in {changed}' if changed else ''}; {rows[-1]['utc'][:10]}.\n"
    )


def with_section(text: str, name: str, content: str) -> str:
    """`text` with `content` between the two markers of `name`."""
    begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
    assert begin in text and end in text, f"README.md lacks the markers of {name}"
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


# ---------------------------------------------------------------------------------------------
# tables


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines))


def by_case(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """The values of each case, in the order in which the cases were first recorded."""
    cases: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        cases.setdefault(row["case"], []).append(row["values"])
    return cases


def seeds(rows: Sequence[Row]) -> str:
    """The seeds of all runs, in order."""
    return ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± half the range; the mean alone where there is one value."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    half = f"{(max(values) - min(values)) / 2:.{digits}f}"
    return f"{mean} ± {half}" if len(values) > 1 else mean


def verdict(value: float, goal: float) -> str:
    return "met" if value <= goal else "**missed**"


# ---------------------------------------------------------------------------------------------
# where a result comes from


def machine() -> dict[str, str]:
    """What a reader needs to judge a speed by."""
    model, memory = platform.processor() or platform.machine(), ""
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*: (.+)", cpuinfo.read_text())):
        model = found[1]
    if meminfo.exists() and (found := re.search(r"MemTotal:\s*(\d+)", meminfo.read_text())):
        memory = f"{int(found[1]) / 2**20:.0f} GiB"
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    return {"cpu": model, "cores": f"{os.cpu_count()} cores", "memory": memory, "os": system}


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def commit() -> dict[str, Any]:
    """The commit that was measured, and the trainer's files that differed from it."""
    changed = _git("--no-optional-locks", "status", "--porcelain", "--", "trainer").splitlines()
    head = _git("rev-parse", "HEAD") or "unknown"
    return {"commit": head, "modified": [line[2:].strip() for line in changed]}


def _git(*arguments: str) -> str:
    """What git answers; nothing, outside a repository."""
    answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return answer.stdout.rstrip() if answer.returncode == 0 else ""


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
