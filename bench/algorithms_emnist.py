"""Owns the comparison of algorithms on EMNIST digits: accuracy after equal rounds, equal bytes.

    python -m bench.algorithms_emnist emnist-digits.npz

LeNet, 10 clients that all take part, batch 100, lr 0.05, weight decay 0.001, 60 rounds; IID, and
sorted by label: one class per client, but for a few samples at its edges. FedAvg, SCAFFOLD and
FedGA take 10 local steps, FedSGD the gradient of as many batches; FedGA's beta is lr / 2, and its
and SCAFFOLD's whole gradients are of at most 1,000 samples. Local SGD's clients draw from one
shared set where that is IID.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from bench.harness import Benchmark, Row, by_case, markdown, publish, recording, seeds, spread
from bench.trial import Job, payload, played

SEEDS = (1, 2, 3)
STEPS, LR = 10, 0.05
WHOLE = {"gradient_samples": 1000}


@dataclass(frozen=True)
class Case:
    """One algorithm with its local steps; does it draw from a shared set where data is IID?"""

    name: str
    algorithm: dict[str, Any]
    steps: int = STEPS
    shared: bool = False


CASES = (
    Case("FedSGD", {"name": "fedsgd"}),
    Case("FedAvg", {"name": "fedavg"}),
    Case("FedGA", {"name": "fedga", "beta": LR / 2, **WHOLE}),
    Case("SCAFFOLD, fresh", {"name": "scaffold", "controls": "fresh", **WHOLE}),
    Case("SCAFFOLD, option II", {"name": "scaffold", "controls": "option-2"}),
    Case("Local SGD, H=1", {"name": "fedavg"}, 1, shared=True),
    Case("Local SGD, H=4", {"name": "fedavg"}, 4, shared=True),
    Case("Local SGD, H=16", {"name": "fedavg"}, 16, shared=True),
)
SPLITS = {"IID": 1.0, "one class per client": 0.0}  # share of the data that is dealt at random


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="EMNIST digits as an .npz file")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    options = parser.parse_args()
    path = str(options.data.resolve())
    jobs = [
        Job(f"{case.name} | {split}", seed, experiment(case, split, seed, options.rounds, path))
        for seed in options.seeds
        for split in SPLITS
        for case in CASES
    ]
    with recording(BENCHMARK) as record:
        for job, trial in played(jobs, options.jobs):
            values = {"curve": curve(trial.rows), "cpu_seconds": trial.cpu_seconds}
            record(job.case, job.seed, values, {**job.tree, "data": options.data.name})
            print(job.seed, job.case, values["curve"][-1], flush=True)
    publish(BENCHMARK)


def experiment(case: Case, split: str, seed: int, rounds: int, data: str) -> dict[str, Any]:
    share = SPLITS[split]
    alike = case.shared and share == 1.0
    return {
        "name": "algorithms",
        "seed": seed,
        "rounds": rounds,
        "clients": 10,
        "data": {
            "name": "emnist-digits",
            "path": data,
            "partition": {"name": "shared"}
            if alike
            else {"name": "percentage-iid", "share": share},
        },
        "model": {"name": "lenet"},
        "optimizer": {"lr": LR, "weight_decay": 0.001},
        "algorithm": case.algorithm,
        "schedule": {"batch_size": 100, "phases": [{"steps": case.steps}]},
        "evaluation": {"every": 2},
    }


def curve(rows: Sequence[dict[str, Any]]) -> list[tuple[int, float, float]]:
    """Round, models uploaded per client so far, accuracy; one model is its fp32 bytes."""
    return [
        (row["round"], payload(row) / (4 * row["parameters"] * 10), row["test_accuracy_ratio"])
        for row in rows
        if row["test_accuracy_ratio"] is not None and "final" not in row
    ]


# ---------------------------------------------------------------------------------------------


def after(runs: Sequence[dict[str, Any]], column: int, most: float) -> list[float]:
    """Each seed's accuracy (percent) in the last test at which `column` was at most `most`."""
    return [
        100 * [point[2] for point in run["curve"] if point[column] <= most + 1e-6][-1]
        for run in runs
    ]


def table(rows: Sequence[Row]) -> str:
    rounds = int(rows[0]["settings"]["rounds"])
    header = ["algorithm", "models sent per client"]
    for split in SPLITS:
        header += [f"{split}: {rounds} rounds", f"{rounds} models' bytes"]
    cases, lines = by_case(rows), []
    for case in CASES:
        own = {split: cases[f"{case.name} | {split}"] for split in SPLITS}
        sent = own["IID"][0]["curve"][-1][1]
        line = [case.name, f"{sent:.0f}"]
        for split in SPLITS:
            line += [
                spread(after(own[split], 0, rounds), 2),
                spread(after(own[split], 1, rounds), 2),
            ]
        lines.append(line)
    return (
        f"{markdown(header, lines)}\n\n"
        f"{rows[0]['settings']['data']}; test accuracy in percent, mean ± half the range over "
        f"seeds {seeds(rows)}. Equal bytes: the last test before a client has uploaded {rounds} "
        "models."
    )


def figure(rows: Sequence[Row]) -> Figure:
    """Accuracy against models uploaded, the mean over seeds."""
    page = Figure(figsize=(11, 4.5))
    cases = by_case(rows)
    for axes, split in zip(page.subplots(1, len(SPLITS)), SPLITS, strict=True):
        for index, case in enumerate(CASES):
            runs = cases[f"{case.name} | {split}"]
            points = list(zip(*(run["curve"] for run in runs), strict=True))
            x = [point[0][1] for point in points]
            y = [100 * statistics.fmean(seed[2] for seed in point) for point in points]
            axes.plot(x, y, color=colormaps["tab10"](index), label=case.name)
        axes.set_title(split)
        axes.set_xlabel("models uploaded per client")
        axes.set_ylabel("test accuracy (%)")
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return page


BENCHMARK = Benchmark("algorithms_emnist", table, figure)

if __name__ == "__main__":
    main()
