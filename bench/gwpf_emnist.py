"""Owns the comparison of freezing policies on EMNIST digits: bytes against accuracy, three seeds.

    python -m bench.gwpf_emnist emnist-digits.npz

The setting is the preset fedavg-emnist-digits (LeNet, 10 clients, Dirichlet(1) over clients, 5
local steps, batch 100, lr 0.05, weight decay 0.001, uniform mean, 120 rounds) with each policy in
turn. A seed sets weights, partition and order of samples together. The references are of an earlier
small simulation of the same rules, single seed; its GWPF had no longest frozen period.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.harness import (
    COLOURS,
    Benchmark,
    Row,
    by_case,
    markdown,
    publish,
    recording,
    seeds,
    spread,
)
from bench.trial import Job, payload, played

SEEDS = (3000, 3001, 3002)
PRESET = "fedavg-emnist-digits"


@dataclass(frozen=True)
class Reference:
    """What the specification's table says of a case: single seed, its own code."""

    bytes_total: float  # of FedAvg's
    accuracy: float  # percent, mean model
    fedavg: float = 95.85  # percent, in the same table

    @property
    def points(self) -> float:
        return self.accuracy - self.fedavg


@dataclass(frozen=True)
class Case:
    """One policy; `sync` is its section of the experiment."""

    name: str
    sync: dict[str, Any]
    reference: Reference | None = None


def _gwpf(threshold: float, quorum: float, most: int = 50) -> dict[str, Any]:
    fixed = {"name": "gwpf", "ema": 0.99, "thaw_threshold": 0.5}
    return {**fixed, "threshold": threshold, "quorum": quorum, "max_frozen_rounds": most}


def _released(threshold: float, aliased: bool) -> dict[str, Any]:
    return {"name": "gwpf-released", "ema": 0.99, "threshold": threshold, "aliased": aliased}


UNCAPPED = 10_000  # rounds that a parameter may stay frozen: the reference had no limit
CASES = (
    Case("FedAvg", {"name": "full"}, Reference(1.000, 95.85)),
    Case("APF T=0.05", {"name": "apf", "ema": 0.99, "threshold": 0.05}, Reference(0.931, 95.71)),
    Case("GWPF T=0.05 q=1 of 10", _gwpf(0.05, 0.1)),
    Case("GWPF T=0.05 q=3 of 10", _gwpf(0.05, 0.3)),
    Case("GWPF T=0.05 q=5 of 10", _gwpf(0.05, 0.5)),
    Case("GWPF T=0.2 q=5 of 10", _gwpf(0.2, 0.5)),
    Case("GWPF T=0.05 q=1 of 10, no cap", _gwpf(0.05, 0.1, UNCAPPED), Reference(0.978, 95.54)),
    Case("GWPF T=0.05 q=3 of 10, no cap", _gwpf(0.05, 0.3, UNCAPPED), Reference(0.873, 95.36)),
    Case("GWPF T=0.05 q=5 of 10, no cap", _gwpf(0.05, 0.5, UNCAPPED), Reference(0.821, 95.30)),
    Case("GWPF T=0.2 q=5 of 10, no cap", _gwpf(0.2, 0.5, UNCAPPED), Reference(0.722, 94.99)),
    Case("gwpf-released T=0.5", _released(0.5, True), Reference(1.040, 95.7, 95.7)),
    Case("gwpf-released T=0.05, de-aliased", _released(0.05, False), Reference(1.287, 95.7, 95.7)),
    Case("gwpf-released T=0.5, de-aliased", _released(0.5, False), Reference(1.566, 95.7, 95.7)),
)
REFERENCES = {case.name: case.reference for case in CASES if case.reference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="EMNIST digits as an .npz file")
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    options = parser.parse_args()
    jobs = [
        Job(case.name, seed, experiment(case, seed, options.rounds, options.data.resolve()))
        for seed in options.seeds
        for case in CASES
    ]
    with recording(BENCHMARK) as record:
        for job, trial in played(jobs, options.jobs):
            values = {**summary(trial.rows), "cpu_seconds": trial.cpu_seconds}
            used = {"preset": PRESET, "sync": job.tree["sync"], "rounds": options.rounds}
            record(job.case, job.seed, values, {**used, "data": options.data.name})
            print(f"{job.seed} {job.case}: {values['bytes_total']:.3f} of FedAvg's bytes, "
                  f"{100 * values['accuracy_mean']:.2f} %", flush=True)  # fmt: skip
    publish(BENCHMARK)


def experiment(case: Case, seed: int, rounds: int, data: Path) -> dict[str, Any]:
    return {
        "extends": PRESET,
        "seed": seed,
        "rounds": rounds,
        "data": {"path": str(data)},
        "sync": case.sync,
        # tested as all ranks hold it; the last row then tests the mean of all clients too
        "evaluation": {"model": "agreed", "every": 10},
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A run's metrics.jsonl in a few numbers; its last row is the reconciled model's."""
    *rounds, final = rows
    before, last = rounds[-2:]
    labelled = [(row["thawed_parameters"], row["labelled_frozen_ratio"]) for row in rounds]
    thawed = [n / (share * last["parameters"]) for n, share in labelled if share]
    sent = [1 - row["frozen_parameters_ratio"] for row in rounds]
    return {
        "bytes_total": payload(last) / last["dense_equivalent_bytes_total"],
        "bytes_last": (payload(last) - payload(before))
        / (last["dense_equivalent_bytes_total"] - before["dense_equivalent_bytes_total"]),
        "vote_bytes_share": last["payload_bytes_total"]["votes"]
        / last["dense_equivalent_bytes_total"],
        "transmitted_last": sent[-1],
        "transmitted_mean": statistics.fmean(sent),
        "labelled_last": last["labelled_frozen_ratio"],
        "thawed_mean": statistics.fmean(thawed) if thawed else 0.0,
        "accuracy_mean": final["test_accuracy_ratio"],
        "accuracy_agreed": last["test_accuracy_ratio"],
        "curve": [  # round, bytes sent so far, accuracy of the agreed model
            (row["round"], payload(row), row["test_accuracy_ratio"])
            for row in rounds
            if row["test_accuracy_ratio"] is not None
        ],
    }


# ---------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    header = [
        "policy",
        "bytes / FedAvg",
        "specification",
        "last round",
        "sent, last round",
        "labelled frozen",
        "frozen thawed per round",
        "accuracy %, mean model",
        "points to FedAvg",
        "specification",
        "accuracy %, agreed model",
    ]
    lines = []
    fedavg, *_ = by_case(rows).values()
    for case, runs in by_case(rows).items():
        value = {key: [run[key] for run in runs] for key in runs[0] if key != "curve"}
        percent = {key: [100 * number for number in value[key]] for key in value}
        reference = REFERENCES.get(case)
        lines.append(
            [
                case,
                spread(value["bytes_total"]),
                f"{reference.bytes_total:.3f}" if reference else "-",
                spread(value["bytes_last"]),
                spread(percent["transmitted_last"], 1) + " %",
                spread(percent["labelled_last"], 1) + " %",
                spread(percent["thawed_mean"], 1) + " %" if any(value["thawed_mean"]) else "-",
                spread(percent["accuracy_mean"], 2),
                spread(_points(runs, fedavg), 2),
                f"{reference.points:+.2f}" if reference else "-",
                spread(percent["accuracy_agreed"], 2),
            ]
        )
    return f"{markdown(header, lines)}\n\n{_remarks(rows)}"


def _points(runs: Sequence[dict[str, Any]], fedavg: Sequence[dict[str, Any]]) -> list[float]:
    """Percent points above FedAvg of the same seed."""
    pairs = zip(runs, fedavg, strict=True)
    return [100 * (run["accuracy_mean"] - base["accuracy_mean"]) for run, base in pairs]


def _remarks(rows: Sequence[Row]) -> str:
    """How the table agrees with the specification's, in words that follow from the numbers."""
    sent = {
        case: statistics.fmean(run["bytes_total"] for run in runs)
        for case, runs in by_case(rows).items()
        if case in REFERENCES
    }
    ours = sorted(sent, key=lambda case: sent[case])
    theirs = sorted(sent, key=lambda case: REFERENCES[case].bytes_total)
    apart = max(sent, key=lambda case: abs(sent[case] - REFERENCES[case].bytes_total))
    by = sent[apart] - REFERENCES[apart].bytes_total
    swapped = [case for case, other in zip(ours, theirs, strict=True) if case != other]
    order = f"differs in the places of {', '.join(swapped)}" if swapped else "is the same"
    return (
        f"{rows[0]['settings']['data']}, {rows[0]['settings']['rounds']} rounds; mean ± half the "
        f"range over seeds {seeds(rows)}. The specification's values are of one "
        f"seed and another program. The order of policies by bytes {order}; the largest "
        f"difference in bytes is {by:+.3f}, of {apart}."
    )


def figure(rows: Sequence[Row]) -> Figure:
    """Bytes against final accuracy, both relative to FedAvg; hollow: the specification."""
    page = Figure(figsize=(8, 5))
    axes = page.subplots()
    fedavg, *_ = by_case(rows).values()
    for index, (case, runs) in enumerate(by_case(rows).items()):
        x = [run["bytes_total"] for run in runs]
        y = _points(runs, fedavg)
        centre = statistics.fmean(x), statistics.fmean(y)
        axes.errorbar(
            *centre,
            xerr=[[centre[0] - min(x)], [max(x) - centre[0]]],
            yerr=[[centre[1] - min(y)], [max(y) - centre[1]]],
            fmt="o",
            color=COLOURS[index],
            label=case,
            capsize=2,
        )
        if reference := REFERENCES.get(case):
            axes.plot(
                reference.bytes_total, reference.points, "o", color=COLOURS[index], fillstyle="none"
            )
    axes.axvline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("bytes sent, of FedAvg's")
    axes.set_ylabel("accuracy of the final mean model,\npercent points to FedAvg of the same seed")
    axes.set_title("Filled: mean and range over seeds. Hollow: specification, single seed", size=9)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return page


BENCHMARK = Benchmark("gwpf_emnist", table, figure)

if __name__ == "__main__":
    main()
