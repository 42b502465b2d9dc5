"""Owns the frontier: bytes against accuracy of every way to send less, with one outer optimizer.

    python -m bench.frontier emnist-digits.npz

The methods are the runs of the sweep frontier-emnist-digits (LeNet, 10 clients, 5 local steps,
batch 100, lr 0.05, weight decay 0.001, 120 rounds; the server takes Nesterov steps along the mean).
A seed sets weights, partition and order of samples together. Accuracy is the mean of a run's last
five tests, one every four rounds. Bytes are those of bench.frontier_wire, on ten ranks.
"""

import argparse
import json
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.frontier_wire import BENCHMARK as WIRE
from bench.frontier_wire import DENSE, FIRST, HALF, SETTINGS, SWEEP, methods
from bench.harness import (
    COLOURS,
    ROOT,
    Benchmark,
    Row,
    by_case,
    keep,
    markdown,
    publish,
    read,
    recording,
    seeds,
    spread,
)
from bench.trial import Job, payload, played
from fedctl.explain import leaf
from fedctl.sweep.file import read as read_sweep
from fedctl.sweep.variants import Variant, variants

BELOW = 2.5  # points below the worst dense run that a panel shows
LAST = 5  # tests whose mean is a run's accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="EMNIST digits as an .npz file")
    parser.add_argument("--only", nargs="+", help="methods, by name; other rows stay as they are")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), help="likewise")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    options = parser.parse_args()
    path, name = options.data.resolve(), options.data.name
    before = read(BENCHMARK) if BENCHMARK.raw.exists() else []
    with recording(BENCHMARK) as record:
        jobs = [
            Job(f"{v.group} | {setting}", v.experiment.seed, tree(v))
            for setting in options.settings
            for v in methods(path, setting, options.only)
        ]
        for job, trial in played(jobs, options.jobs):
            values = {**summary(trial.rows), "cpu_seconds": trial.cpu_seconds}
            record(job.case, job.seed, values, {"sweep": SWEEP, "data": name})
            print(f"{job.seed} {job.case}: {100 * values['accuracy']:.2f} %", flush=True)
    keep(BENCHMARK, before)
    publish(BENCHMARK)


def tree(variant: Variant) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(variant.experiment.canonical())
    return found


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    curve = [
        (row["round"], payload(row), row["test_accuracy_ratio"])
        for row in rows
        if row.get("test_accuracy_ratio") is not None and "final" not in row
    ]
    return {
        "accuracy": statistics.fmean(accuracy for *_, accuracy in curve[-LAST:]),
        "payload": payload(rows[-1]),
        "messages": rows[-1]["messages_total"],
        "curve": curve,
    }


# ---------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    header = ["method", "bytes a rank sends in a round"]
    for setting in SETTINGS:
        header += [f"{setting}: fewer bytes", "accuracy, %", "points to dense", "worst"]
    cases, lines, bytes_of = by_case(rows), [], sent_bytes(FIRST)
    times_of = {setting: fewer(setting) for setting in SETTINGS}
    for name in names(rows):
        line = [name, f"{bytes_of[name]:,.0f}"]
        for setting in SETTINGS:
            runs = cases.get(f"{name} | {setting}")
            if runs is None:
                line += ["", "", "", ""]
                continue
            apart = points(runs, cases[f"{DENSE} | {setting}"])
            times = times_of[setting][name]
            line += [
                f"{times:.2f} x" if times < 9 else f"{times:.0f} x",
                spread([100 * run["accuracy"] for run in runs], 2),
                f"{statistics.fmean(apart):+.2f}",
                f"{min(apart):+.2f}",
            ]
        lines.append(line)
    return (
        f"{markdown(header, lines)}\n\n{commands(list(names(rows)))}\n\n"
        f"{rows[0]['settings']['data']}; mean ± half the range over seeds {seeds(rows)}; points "
        "are paired with the dense run of the same seed and setting, the worst is one seed's. "
        "Bytes: ten ranks with a client each, all but tests and checkpoints."
    )


def commands(chosen: Sequence[str]) -> str:
    """How to run each method once, as the sweep does."""
    sweep = read_sweep(SWEEP)
    lines = []
    groups = dict.fromkeys(variant.group for variant in variants(sweep, []))
    for name, own in zip(groups, sweep.runs, strict=True):
        sets = {**sweep.set, **{k: v for k, v in own.items() if k not in ("name", "base")}}
        given = [f"--set {shlex.quote(f'{key}={leaf(value)}')}" for key, value in sets.items()]
        base = Path(str(own.get("base", sweep.base))).name
        if name in chosen:
            lines.append([name, f"`fedctl run {base} {' '.join(given)}`"])
    return markdown(["method", "command, with data.path and a seed"], lines)


def names(rows: Sequence[Row]) -> Iterator[str]:
    """The methods, in the order of their bytes."""
    found, bytes_of = {case.split(" | ")[0] for case in by_case(rows)}, sent_bytes(FIRST)
    yield from sorted(found, key=lambda name: (-bytes_of[name], name))


def sent_bytes(setting: str) -> dict[str, float]:
    """Bytes that a rank sends in a round, by method; what clients have changes no size."""
    wired = HALF if setting == HALF else FIRST
    cases = {row["case"]: row["values"]["bytes"] for row in read(WIRE)}
    return {c.split(" | ")[0]: sent for c, sent in cases.items() if c.endswith(f" | {wired}")}


def fewer(setting: str) -> dict[str, float]:
    """How many times fewer bytes than dense each method sends in a setting."""
    found = sent_bytes(setting)
    return {name: found[DENSE] / sent for name, sent in found.items()}


def points(runs: Sequence[Mapping[str, Any]], dense: Sequence[Mapping[str, Any]]) -> list[float]:
    """Percentage points above the dense run of the same seed."""
    pairs = zip(runs, dense, strict=True)
    return [100 * (run["accuracy"] - other["accuracy"]) for run, other in pairs]


def figure(rows: Sequence[Row]) -> Figure:
    """Accuracy over how many times fewer bytes, a panel for each setting; lines span the seeds.

    What is further below dense than a panel shows is a triangle at its lower edge.
    """
    page = Figure(figsize=(13, 4.2), layout="constrained")
    cases, order = by_case(rows), list(names(rows))
    most = 1.5 * max(fewer(FIRST).values())
    for axes, setting in zip(page.subplots(1, len(SETTINGS)), SETTINGS, strict=True):
        dense, times_of = cases.get(f"{DENSE} | {setting}", []), fewer(setting)
        least = min((100 * run["accuracy"] for run in dense), default=96.0) - BELOW
        for index, name in enumerate(order):
            if not (runs := cases.get(f"{name} | {setting}")):
                continue
            times = times_of[name]
            values = [100 * run["accuracy"] for run in runs]
            mean = statistics.fmean(values)
            axes.plot([times] * 2, [min(values), max(values)], color=COLOURS[index], lw=1)
            shape, height = ("o", mean) if mean > least else ("v", least + 0.05)
            axes.plot(times, height, shape, color=COLOURS[index], label=name, ms=6)
        axes.set_xscale("log")
        axes.set_xlim(0.7, most)
        axes.set_ylim(least, max((100 * run["accuracy"] for run in dense), default=99.0) + 0.5)
        axes.set_title(setting, fontsize=10)
        axes.set_xlabel("times fewer bytes than dense fp32")
        axes.grid(alpha=0.3)
    page.axes[0].set_ylabel("test accuracy (%)")
    handles, labels = page.axes[0].get_legend_handles_labels()
    page.legend(handles, labels, loc="outside right center", fontsize=7)
    return page


BENCHMARK = Benchmark("frontier", table, figure, pages=(ROOT / "docs" / "frontier.md",))

if __name__ == "__main__":
    main()
