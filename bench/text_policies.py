"""Owns the comparison of freezing policies on a language model: bytes against perplexity.

    python -m bench.text_policies

The setting is the preset fedavg-text (a small Transformer, Python's help texts, 10 clients with
whole topics each, 10 local steps, uniform mean) with each policy in turn. A seed sets weights,
partition and order of samples together.
"""

import argparse
import statistics
from collections.abc import Sequence
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
PRESET = "fedavg-text"
EAGER = {"threshold": 0.4, "ema": 0.95}  # of the preset gwpf-text
CASES: dict[str, dict[str, Any]] = {
    "FedAvg": {"name": "full"},
    "APF T=0.05": {"name": "apf", "threshold": 0.05, "ema": 0.99},
    "APF T=0.4": {"name": "apf", **EAGER},
    "GWPF T=0.05 q=5 of 10": {
        **{"name": "gwpf", "threshold": 0.05, "ema": 0.99},
        **{"thaw_threshold": 0.5, "quorum": 0.5},
    },
    "GWPF T=0.4 q=7 of 10": {
        **{"name": "gwpf", **EAGER},
        **{"thaw_threshold": 0.7, "quorum": 0.7, "max_frozen_rounds": 5},
    },
    "gwpf-released T=0.5": {"name": "gwpf-released", "threshold": 0.5, "ema": 0.99},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    options = parser.parse_args()
    jobs = [
        Job(case, seed, experiment(sync, seed, options.rounds))
        for seed in options.seeds
        for case, sync in CASES.items()
    ]
    with recording(BENCHMARK) as record:
        for job, trial in played(jobs, options.jobs):
            values = {**summary(trial.rows), "cpu_seconds": trial.cpu_seconds}
            record(job.case, job.seed, values, job.tree)
            print(f"{job.seed} {job.case}: {values['bytes_total']:.3f} of FedAvg's bytes, "
                  f"perplexity {values['perplexity']:.2f}", flush=True)  # fmt: skip
    publish(BENCHMARK)


def experiment(sync: dict[str, Any], seed: int, rounds: int) -> dict[str, Any]:
    return {
        "extends": PRESET,
        "seed": seed,
        "rounds": rounds,
        "sync": sync,
        # tested as all ranks hold it; the last row then tests the mean of all clients too
        "evaluation": {"model": "agreed", "every": 5},
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A run's metrics.jsonl in a few numbers; its last row is the reconciled model's."""
    *rounds, final = rows
    last = rounds[-1]
    return {
        "bytes_total": payload(last) / last["dense_equivalent_bytes_total"],
        "vote_bytes_share": last["payload_bytes_total"]["votes"]
        / last["dense_equivalent_bytes_total"],
        "transmitted_mean": statistics.fmean(1 - row["frozen_parameters_ratio"] for row in rounds),
        "perplexity": final["test_perplexity"],
        "perplexity_agreed": last["test_perplexity"],
        "curve": [  # round, bytes sent so far, perplexity of the agreed model
            (row["round"], payload(row), row["test_perplexity"])
            for row in rounds
            if row.get("test_perplexity") is not None
        ],
    }


# ---------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    header = [
        "policy",
        "bytes / FedAvg",
        "of that, votes",
        "sent, mean of rounds",
        "perplexity, mean model",
        "more than FedAvg's, %",
        "perplexity, agreed model",
    ]
    cases, lines = by_case(rows), []
    fedavg, *_ = cases.values()
    for case, runs in cases.items():
        lines.append(
            [
                case,
                spread([run["bytes_total"] for run in runs]),
                spread([100 * run["vote_bytes_share"] for run in runs], 1) + " %",
                spread([100 * run["transmitted_mean"] for run in runs], 1) + " %",
                spread([run["perplexity"] for run in runs], 2),
                spread(more(runs, fedavg, "perplexity"), 2),
                spread([run["perplexity_agreed"] for run in runs], 2),
            ]
        )
    return (
        f"{markdown(header, lines)}\n\n"
        f"{rows[0]['settings']['rounds']} rounds; mean ± half the range over seeds {seeds(rows)}, "
        "paired with FedAvg of the same seed."
    )


def more(runs: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]], key: str) -> list[float]:
    """By how many percent each run's value is above that of the base with the same seed."""
    return [100 * (run[key] / other[key] - 1) for run, other in zip(runs, base, strict=True)]


def figure(rows: Sequence[Row]) -> Figure:
    """Perplexity of the agreed model over the bytes sent until then, first seed."""
    page = Figure(figsize=(8, 5))
    axes = page.subplots()
    for index, (case, runs) in enumerate(by_case(rows).items()):
        _, sent, perplexity = zip(*runs[0]["curve"], strict=True)
        axes.plot([bytes_ / 1e6 for bytes_ in sent], perplexity, color=COLOURS[index], label=case)
    axes.set_yscale("log")
    axes.set_xlabel("MB that the clients uploaded")
    axes.set_ylabel("perplexity of the agreed model")
    axes.set_title(f"Seed {rows[0]['seed']}", size=9)
    axes.legend(fontsize=7)
    return page


BENCHMARK = Benchmark("text_policies", table, figure)

if __name__ == "__main__":
    main()
