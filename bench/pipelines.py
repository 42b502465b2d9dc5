"""What do microbatches bring a pipeline: steps per second, and how idle its ranks are?

    python -m bench.pipelines

The course's decoder at its width (llama-26m) on Python's help texts with a vocabulary of 4,000, as
a pipeline of S ranks, whose batches of 12 rows of 64 tokens are cut into M microbatches. The shapes
of a seed are played in turn, and each rank computes with one thread. Also how the class's own
pipeline ends (three ranks, three microbatches) after its 5,000 steps, at the width of llama-tiny.
"""

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from bench.harness import Benchmark, Row, by_case, markdown, publish, recording, spread
from bench.trial import on_ranks

SEEDS = (1, 2, 3)
STAGES, MICROBATCHES = (1, 2, 3), (1, 3, 6, 12)
WARM = 2  # steps before those that count
LONG = 5000
TEXT = {
    "name": "python-topics",
    "path": None,
    "tokenizer": {"name": "sentencepiece", "size": 4000},
    "context": 64,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    with recording(BENCHMARK) as record:
        for seed in SEEDS:
            for stages in STAGES:
                for count in MICROBATCHES if stages > 1 else (1,):
                    tree = experiment(seed, stages, count, options.steps)
                    values = measured(on_ranks(tree))
                    record(f"S={stages}, M={count}", seed, values, tree)
                    print(seed, stages, count, values, flush=True)
        last = on_ranks(long())[-1]
        values = {"steps": last["local_steps_total"], "perplexity": last["test_perplexity"]}
        record("5,000 steps", 0, values, long())
    publish(BENCHMARK)


def experiment(seed: int, stages: int, count: int, steps: int) -> dict[str, Any]:
    return {
        "extends": "homework-primer",
        "seed": seed,
        "rounds": WARM + steps,
        "ranks": stages,
        "data": TEXT,
        "schedule": {"batch_size": 12},
        "evaluation": {"every": WARM + steps, "batch_size": 12},
        **({"parallel": {"pipeline": stages, "microbatches": count}} if stages > 1 else {}),
    }


def long() -> dict[str, Any]:
    """The class's 5,000 steps of its pipeline, with a small network."""
    tokenizer = {"name": "sentencepiece", "size": 1000}
    return {
        "extends": "homework-b1",
        "data": {**TEXT, "tokenizer": tokenizer, "context": 32},
        "model": {"name": "llama-tiny"},
        "parallel": {"layers": None},
        "evaluation": {"every": LONG, "batch_size": 50},
    }


def measured(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Steps per second and idle shares of the steps after the first ones; a round is a step."""
    rounds = [row for row in rows if not row.get("final")][WARM - 1 :]
    seconds = rounds[-1]["time_seconds"] - rounds[0]["time_seconds"]
    values = {"steps_per_second": (len(rounds) - 1) / seconds}
    for key in ("pipeline_idle_ratio", "pipeline_ideal_idle_ratio"):
        if key in rounds[-1]:
            values[key] = statistics.fmean(row[key] for row in rounds[1:])
    return values


# ---------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    header = ["ranks and microbatches", "steps per second", "of one rank", "idle", "if all is even"]
    cases = by_case(rows)
    (end,) = cases.pop("5,000 steps")
    alone, *_ = cases.values()
    lines = []
    for case, runs in cases.items():
        speed = [run["steps_per_second"] for run in runs]
        ratio = [s / one["steps_per_second"] for s, one in zip(speed, alone, strict=True)]
        line = [case, spread(speed, 2), spread(ratio, 2)]
        for key in ("pipeline_idle_ratio", "pipeline_ideal_idle_ratio"):
            shares = [100 * run[key] for run in runs if key in run]
            line.append(spread(shares, 1) + " %" if shares else "-")
        lines.append(line)
    return (
        f"{markdown(header, lines)}\n\nMean ± half the range over seeds {list(SEEDS)}. The class's "
        f"pipeline, small, ended after {end['steps']:,} steps at perplexity "
        f"{end['perplexity']:.1f}."
    )


def figure(rows: Sequence[Row]) -> Figure:
    """Idle share over the number of microbatches, measured and ideal."""
    page = Figure(figsize=(6, 4))
    axes = page.subplots()
    cases = by_case(rows)
    for colour, stages in zip(("tab:blue", "tab:orange"), STAGES[1:], strict=True):
        for key, line in (("pipeline_idle_ratio", "-o"), ("pipeline_ideal_idle_ratio", ":")):
            shares = [
                100 * statistics.fmean(run[key] for run in cases[f"S={stages}, M={count}"])
                for count in MICROBATCHES
            ]
            label = f"S={stages}, {'if all is even' if line == ':' else 'measured'}"
            axes.plot(MICROBATCHES, shares, line, color=colour, label=label)
    axes.set_xlabel("M, microbatches of a step")
    axes.set_ylabel("idle share of a step, %")
    axes.set_ylim(0)
    axes.legend(fontsize=7)
    return page


BENCHMARK = Benchmark("pipelines", table, figure)

if __name__ == "__main__":
    main()
