"""Owns DiLoCo against per-step synchronous training on equal tokens: perplexity against bytes.

    python -m bench.diloco

A small decoder like LLaMA on Python's help texts, 4 clients with a piece of the text each, AdamW at
clients (lr 0.003, which was best of 0.001 and 0.003 for the synchronous run of another seed). Every
method takes the same local steps of the same batches; they differ in when clients exchange, and in
what the server does with the mean of their updates.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
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
from bench.text_policies import more
from bench.trial import Job, payload, played

SEEDS = (1, 2, 3)
NESTEROV = {"name": "sgd", "lr": 0.7, "momentum": 0.9, "nesterov": True}  # of DiLoCo's paper


@dataclass(frozen=True)
class Case:
    """One method: an exchange after each `every` local steps (0: the gradients of every step)."""

    name: str
    every: int = 0
    server: dict[str, Any] | None = None
    codec: str = "fp32"


CASES = (
    Case("every step"),
    Case("mean, H=25", 25),
    Case("DiLoCo, H=25", 25, NESTEROV),
    Case("mean, H=50", 50),
    Case("DiLoCo, H=50", 50, NESTEROV),
    Case("DiLoCo, H=100", 100, NESTEROV),
    Case("DiLoCo, H=50, int8", 50, NESTEROV, "int8"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=400, help="local steps of each client")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    options = parser.parse_args()
    jobs = [
        Job(case.name, seed, experiment(case, seed, options.steps))
        for seed in options.seeds
        for case in CASES
    ]
    with recording(BENCHMARK) as record:
        for job, trial in played(jobs, options.jobs):
            last = trial.rows[-1]
            values = {
                "perplexity": last["test_perplexity"],
                "bytes": payload(last) / job.tree["clients"],
                "curve": curve(trial.rows),
                "cpu_seconds": trial.cpu_seconds,
            }
            record(job.case, job.seed, values, job.tree)
            print(f"{job.seed} {job.case}: {values['bytes'] / 1e6:.2f} MB, "
                  f"perplexity {values['perplexity']:.2f}", flush=True)  # fmt: skip
    publish(BENCHMARK)


def experiment(case: Case, seed: int, steps: int) -> dict[str, Any]:
    server = {"server": case.server} if case.server else {}
    synchronous = not case.every
    return {
        "name": "diloco",
        "seed": seed,
        "rounds": steps // (case.every or 1),
        "clients": 4,
        "data": {
            "name": "python-topics",
            "context": 32,
            "tokenizer": {"name": "sentencepiece", "size": 1000},
            "partition": {"name": "contiguous"},
        },
        "model": {"name": "llama-tiny"},
        "optimizer": {
            **{"name": "adamw", "lr": 0.003, "weight_decay": 0.1, "clip_norm": 1.0},
            "state": "keep",
        },
        "algorithm": {"name": "fedsgd"} if synchronous else {"name": "fedavg", **server},
        "codec": {"name": case.codec},
        "schedule": {"batch_size": 16, "phases": [{"steps": case.every or 1}]},
        "evaluation": {"every": 50 if synchronous else 1, "batch_size": 64},
    }


def curve(rows: Sequence[dict[str, Any]]) -> list[tuple[int, int, float]]:
    """Local steps of all clients, bytes uploaded so far, perplexity."""
    return [
        (row["local_steps_total"], payload(row), row["test_perplexity"])
        for row in rows
        if row.get("test_perplexity") is not None and "final" not in row
    ]


# ---------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    header = ["method", "MB a client uploads", "fewer bytes", "perplexity", "more, %", "worst, %"]
    cases, lines = by_case(rows), []
    base, *_ = cases.values()
    for case, runs in cases.items():
        above = more(runs, base, "perplexity")
        lines.append(
            [
                case,
                spread([run["bytes"] / 1e6 for run in runs]),
                f"{base[0]['bytes'] / runs[0]['bytes']:.0f} x",
                spread([run["perplexity"] for run in runs], 2),
                spread(above, 1),
                f"{max(above):+.1f}",
            ]
        )
    steps = rows[0]["settings"]["rounds"]  # of the first method, which exchanges after each
    return (
        f"{markdown(header, lines)}\n\n"
        f"{steps} steps of each client, 16 x 32 tokens each; mean ± half the range over seeds "
        f"{seeds(rows)}, paired with the synchronous run of the same seed. Downloads are as large "
        "as uploads."
    )


def figure(rows: Sequence[Row]) -> Figure:
    """Perplexity over bytes, all seeds."""
    page = Figure(figsize=(8, 5))
    axes = page.subplots()
    for index, (case, runs) in enumerate(by_case(rows).items()):
        for run in runs:
            _, sent, perplexity = zip(*run["curve"], strict=True)
            label = case if run is runs[0] else None
            axes.plot([b / 4e6 for b in sent], perplexity, color=COLOURS[index], label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("MB that a client has uploaded")
    axes.set_ylabel("perplexity")
    axes.legend(fontsize=7)
    return page


BENCHMARK = Benchmark("diloco", table, figure)

if __name__ == "__main__":
    main()
