"""Owns the comparison of our loop with a plain one: CPU seconds of a round, peak memory of a rank.

    python -m bench.overhead emnist-digits.npz

Both do the same client work on one thread: same network, weights, batches and steps; they must
agree on the parameters, or nothing is measured. Rounds of all subjects are played in turn in one
process, and the ratio is the median over rounds. Memory is the peak resident set of a process per
subject, which loads the data, plays rounds and tests once. CPU is compared with the plain loop that
holds its images as normalised floats, faster, and with a bare one that owns no optimizer either;
memory with the one that holds bytes, leaner.
Most of a process is torch itself, so what importing it takes is given too.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.harness import Benchmark, Row, by_case, markdown, publish, recording, spread
from bench.harness import verdict as met
from bench.memory import alone
from bench.ours import Ours, experiment
from bench.plain import Bare, Plain
from bench.work import Work, digits, emnist

CPU_GOAL, BARE_GOAL, MEMORY_GOAL = 1.2, 1.15, 1.5
TOLERANCE = 1e-5  # of parameters, after as many rounds as are compared
SEEDS = (1, 2, 3)
COMPARED = 2  # rounds until parameters are compared; later, ReLUs that flip amplify rounding
WARM = 10  # rounds before the first that is measured, and of a process that tells its memory
DENSE = {"name": "full"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="EMNIST digits as an .npz file")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rounds")
    options = parser.parse_args()
    data = str(options.data.resolve())
    with recording(BENCHMARK) as record:
        for seed in SEEDS:
            for work, rounds in ((digits(seed), 200), (emnist(data, seed), 40)):
                values = compare(work, max(1, round(rounds * options.scale)))
                record(work.name, seed, values, settings(work))
                print(work.name, seed, values, flush=True)
    publish(BENCHMARK)


def compare(work: Work, rounds: int) -> dict[str, Any]:
    """One line of the raw results."""
    ours, plain = Ours(experiment(work, DENSE)), Plain(work, ready=True)
    subjects: dict[str, Ours | Plain] = {
        "ours": ours,
        "plain": plain,
        "bare": Bare(work),
        "plain-bytes": Plain(work, ready=False),
    }
    in_turn({name: subject.round for name, subject in subjects.items()}, COMPARED)
    difference = float((ours.parameters() - plain.parameters()).abs().max())
    assert difference < TOLERANCE, f"the loops differ by {difference}: not the same work"
    in_turn({name: subject.round for name, subject in subjects.items()}, WARM - COMPARED)
    seconds = in_turn({name: subject.round for name, subject in subjects.items()}, rounds)
    peak = {
        "torch": alone("bench.memory", {}),
        "ours": alone("bench.ours", {"work": asdict(work), "sync": DENSE, "rounds": WARM}),
        "plain": alone("bench.plain", {"work": asdict(work), "ready": True, "rounds": WARM}),
        "plain-bytes": alone("bench.plain", {"work": asdict(work), "ready": False, "rounds": WARM}),
    }
    tested = ("ours", "plain", "plain-bytes")
    return {
        "rounds": rounds,
        "parameters_difference": difference,
        **{f"cpu_ms_{name}": 1000 * statistics.median(seconds[name]) for name in subjects},
        "cpu_ratio": ratio(seconds["ours"], seconds["plain"]),
        "cpu_ratio_bare": ratio(seconds["ours"], seconds["bare"]),
        "cpu_ratio_bytes": ratio(seconds["ours"], seconds["plain-bytes"]),
        **{f"peak_mib_{name}": said["peak_rss_bytes"] / 2**20 for name, said in peak.items()},
        "memory_ratio": peak["ours"]["peak_rss_bytes"] / peak["plain-bytes"]["peak_rss_bytes"],
        **{f"accuracy_{name}": peak[name]["accuracy"] for name in tested},
    }


def in_turn(plays: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each play, `rounds` times, each time in another order."""
    seconds: dict[str, list[float]] = {name: [] for name in plays}
    names = list(plays)
    for _ in range(rounds):
        names = [*names[1:], names[0]]
        for name in names:
            start = time.process_time()
            plays[name]()
            seconds[name].append(time.process_time() - start)
    return seconds


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The median of the ratios of pairs that were measured one after the other."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def settings(work: Work) -> dict[str, Any]:
    """For the raw results: of the data only the file's name."""
    data = Path(work.data).name if work.data else "embedded digits"
    return {**asdict(work), "data": data, "threads": 1}


# ---------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    header = [
        "shape",
        "CPU ms per round, ours",
        "plain",
        f"ratio (goal {CPU_GOAL})",
        "",
        "bare",
        f"ratio (goal {BARE_GOAL})",
        "",
        "peak MiB, ours",
        "plain",
        "torch alone",
        f"ratio (goal {MEMORY_GOAL})",
        "",
        "largest difference of a parameter",
    ]
    lines = []
    for case, runs in by_case(rows).items():
        value = {key: [run[key] for run in runs] for key in runs[0]}
        lines.append(
            [
                case,
                spread(value["cpu_ms_ours"], 1),
                spread(value["cpu_ms_plain"], 1),
                spread(value["cpu_ratio"], 2),
                met(statistics.fmean(value["cpu_ratio"]), CPU_GOAL),
                spread(value["cpu_ms_bare"], 1),
                spread(value["cpu_ratio_bare"], 2),
                met(statistics.fmean(value["cpu_ratio_bare"]), BARE_GOAL),
                spread(value["peak_mib_ours"], 0),
                spread(value["peak_mib_plain-bytes"], 0),
                spread(value["peak_mib_torch"], 0),
                spread(value["memory_ratio"], 2),
                met(statistics.fmean(value["memory_ratio"]), MEMORY_GOAL),
                f"{max(value['parameters_difference']):.0e}",
            ]
        )
    return markdown(header, lines) + f"\n\nMean ± half the range over seeds {list(SEEDS)}."


def figure(rows: Sequence[Row]) -> Figure:
    page = Figure(figsize=(7, 3))
    panels = (
        ("cpu_ratio", "CPU of a round", CPU_GOAL),
        ("memory_ratio", "peak memory", MEMORY_GOAL),
    )
    for axes, (key, title, goal) in zip(page.subplots(1, 2), panels, strict=True):
        for case, runs in by_case(rows).items():
            axes.plot([case] * len(runs), [run[key] for run in runs], "o", color="C0")
        axes.axhline(goal, color="C3", linewidth=1)
        axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
        axes.set_title(f"{title}, ours / plain", size=9)
        axes.set_ylim(0.8, goal + 0.1)
        axes.margins(x=0.5)
    return page


BENCHMARK = Benchmark("overhead", table, figure)

if __name__ == "__main__":
    main()
