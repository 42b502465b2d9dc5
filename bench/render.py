"""Owns the measurement of what a person waits for: the manifests of a large run, and help.

    FEDCTL_HELM=$(scripts/tools helm) python -m bench.render

Each command is started as a process of its own, as a person starts it, in turn with the others. A
case is seconds from its start to its end, and CPU seconds of it and of the Helm that it starts. Of
the former the least is what the command takes, the rest is other load on the machine.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.harness import Benchmark, Row, by_case, markdown, publish, recording, spread
from fedctl.chart import helm
from fedctl.commands.manifests import BACKENDS

RANKS = 200
RENDER = ("render", "gwpf-digits", "--ranks", str(RANKS), "--set", f"clients={RANKS}")
HELP_CASE = "fedctl --help"
CASES = {
    HELP_CASE: ("--help",),
    **{f"fedctl render, {RANKS} ranks, {b}": (*RENDER, "--backend", b) for b in BACKENDS},
}
HELP_GOAL, RENDER_GOAL = 0.25, 0.5  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=10)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    told = subprocess.run([helm.program(), "version", "--short"], capture_output=True, text=True)
    used = {"ranks": RANKS, "helm": told.stdout.strip(), "python": platform.python_version()}
    with recording(BENCHMARK) as record:
        for number in range(options.times + 1):
            for case, words in CASES.items():
                values = run(words)
                if number:  # the first of each fills the caches of files
                    record(case, number, values, used)
    publish(BENCHMARK)


def run(words: Sequence[str]) -> Mapping[str, Any]:
    """What a command takes, with its children; and how much it prints."""
    program = Path(sys.executable).with_name("fedctl")
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen([program, *words], stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, f"fedctl {' '.join(words)}"
        size = os.fstat(output.fileno()).st_size
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "printed_bytes": size,
    }


# ---------------------------------------------------------------------------------------------


def goal(case: str) -> float:
    return HELP_GOAL if case == HELP_CASE else RENDER_GOAL


def table(rows: Sequence[Row]) -> str:
    lines = []
    for case, runs in by_case(rows).items():
        seconds = [run["seconds"] for run in runs]
        lines.append(
            [
                f"`{case}`",
                f"{min(seconds):.2f}",
                f"{statistics.median(seconds):.2f}",
                spread([run["cpu_seconds"] for run in runs], 2),
                f"{goal(case):.2f}",
                "met" if statistics.median(seconds) <= goal(case) else "missed",
                f"{runs[0]['printed_bytes'] / 1000:.1f}",
            ]
        )
    header = ["", "seconds, least", "median", "CPU seconds", "goal", "", "kB printed"]
    times = max(row["seed"] for row in rows)
    used = rows[0]["settings"]
    return (
        f"{markdown(header, lines)}\n\n{times} times each, in turn; CPU: mean ± half the range. "
        f"Helm {used['helm'].partition('+')[0]}, Python {used['python']}."
    )


def figure(rows: Sequence[Row]) -> Figure:
    page = Figure(figsize=(6, 2))
    axes = page.subplots()
    for place, (case, runs) in enumerate(by_case(rows).items()):
        axes.plot([run["seconds"] for run in runs], [place] * len(runs), "C0.", alpha=0.5)
        axes.plot([goal(case)], [place], "C3|", markersize=12)
    cases = [*by_case(rows)]
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_title("seconds (blue), goal (red)", size=9)
    axes.tick_params(labelsize=7)
    return page


BENCHMARK = Benchmark("render", table, figure)

if __name__ == "__main__":
    main()
