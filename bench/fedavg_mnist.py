"""Owns the FedAvg-MNIST baseline: in which round it first passes 97 % and 98 %, beside Flower's.

    python -m bench.fedavg_mnist mnist.npz --write baseline.yaml
    fedctl run baseline.yaml --ranks 2 --out RUN        # an hour on two cores
    python -m bench.fedavg_mnist mnist.npz --run RUN

N=100 clients that all take part, two shards each, a tenth of each held out, B=50, E=1, lr 0.1,
until the accuracy is above 98.1 %. Accuracies count as they are, not the best so far.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from bench.harness import Benchmark, Row, markdown, publish, recording
from fedctl.report import runs

FLOWER = {0.97: 74, 0.98: 137}  # first round at or above, in the baseline's recorded history
TOLERANCE = 0.25  # of the round, which differs with the shuffles' seed
EXPERIMENT = {
    "name": "fedavg-mnist-shards",
    "seed": 42,
    "rounds": 180,
    "clients": 100,
    "data": {
        "name": "mnist",
        "holdout": 0.1,
        "partition": {"name": "shards", "per_client": 2},
    },
    "model": {"name": "fedavg-cnn"},
    "optimizer": {"lr": 0.1},
    "schedule": {"batch_size": 50, "phases": [{"epochs": 1}]},
    "evaluation": {"every": 1, "target": 0.981, "at_start": True},
    "checkpoint": {"every": 10},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="MNIST as an .npz file")
    parser.add_argument("--write", type=Path, help="write the experiment file, and nothing else")
    parser.add_argument("--run", type=Path, help="the folder of that run")
    options = parser.parse_args()
    tree = {**EXPERIMENT, "data": {**EXPERIMENT["data"], "path": str(options.data.resolve())}}
    if options.write:
        options.write.write_text(yaml.safe_dump(tree))
        return
    run = runs.read(options.run)
    if different := differences(tree, run.experiment):
        sys.exit(f"{options.run} is of another experiment: {', '.join(different)}")
    history = [
        (row["round"], row["test_accuracy_ratio"], row["test_loss"], row["train_loss"])
        for row in run.rows
    ]
    with recording(BENCHMARK) as record:
        used = {**EXPERIMENT, "data": options.data.name, "ranks": run.experiment["ranks"]}
        record("N=100 C=1 B=50 E=1, shards", run.experiment["seed"], {"history": history}, used)
    publish(BENCHMARK)


def differences(wanted: Any, found: Any, key: str = "") -> list[str]:
    """The settings that `wanted` names and `found` has otherwise."""
    if isinstance(wanted, dict):
        return [
            d
            for k, v in wanted.items()
            for d in differences(v, found.get(k), f"{key}.{k}".strip("."))
        ]
    if isinstance(wanted, list):
        pairs = enumerate(zip(wanted, found, strict=True))
        return [d for i, (w, f) in pairs for d in differences(w, f, f"{key}.{i}")]
    return [] if wanted == found else [key]


def crossing(history: Sequence[Sequence[Any]], threshold: float) -> int | None:
    """The first round with at least this accuracy."""
    return next((number for number, accuracy, *_ in history if accuracy >= threshold), None)


def table(rows: Sequence[Row]) -> str:
    history = rows[0]["values"]["history"]
    lines = []
    for threshold, theirs in FLOWER.items():
        ours = crossing(history, threshold)
        within = ours is not None and abs(ours - theirs) <= TOLERANCE * theirs
        lines.append(
            [
                f"first round with {threshold:.0%}",
                str(theirs),
                str(ours or f"not in {history[-1][0]}"),
                f"{ours / theirs - 1:+.0%}" if ours else "-",
                "met" if within else "**missed**",
            ]
        )
    header = ["FedAvg-MNIST, B=50, E=1, N=100, C=1, two shards", "Flower", "fedctl", "apart"]
    best = max(accuracy for _, accuracy, *_ in history)
    return (
        f"{markdown([*header, 'within 25 %'], lines)}\n\n{rows[0]['settings']['data']}, seed "
        f"{rows[0]['seed']}; best accuracy {best:.2%} in {history[-1][0]} rounds."
    )


def figure(rows: Sequence[Row]) -> Figure:
    """The baseline's plot: accuracy by round, with the paper's best and McMahan's 99 %."""
    page = Figure(figsize=(6, 6))
    axes = page.subplots()
    history = rows[0]["values"]["history"]
    rounds, accuracies, *_ = zip(*history, strict=True)
    axes.plot(rounds, accuracies, label="FedAvg")
    axes.axhline(0.9924, color="red", linestyle="--", label="Paper's best result @0.9924")
    axes.axhline(0.99, color="silver", label="Paper's baseline @0.9900")
    axes.plot(list(FLOWER.values()), list(FLOWER), "kx", label="Flower first passes")
    axes.set_ylim(0.95, 1)
    axes.set_xlabel("Rounds")
    axes.set_ylabel("Accuracy")
    axes.set_title("Centralized Validation - MNIST")
    axes.legend(loc="lower right")
    return page


BENCHMARK = Benchmark("fedavg_mnist", table, figure)

if __name__ == "__main__":
    main()
