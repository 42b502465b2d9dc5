"""How evenly are a round's clients dealt to ranks, and what does that leave idle?

    python -m bench.dealing

10 of 100 clients a round, of very different sizes (a Dirichlet split of the embedded digits), on 2
and 4 ranks, with each client always on the same rank (`fixed`) and dealt by work (`dealt`). Load is
counted in samples, so it depends on no machine: the longest rank of each round over its fair share,
on average over the rounds weighted by their work. Idle is measured: the share of the ranks' time in
which their clients were done and those of another rank were not.
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure

from bench.harness import Benchmark, Row, by_case, markdown, publish, recording, spread
from bench.trial import on_ranks

SEEDS = (1, 2, 3)
ROUNDS = 30
RANKS = (2, 4)
SPLIT = {"name": "dirichlet", "alpha": 0.5, "over": "clients"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with recording(BENCHMARK) as record:
        for seed in SEEDS:
            for ranks in RANKS:
                for placement in ("fixed", "dealt"):
                    tree = experiment(seed, ranks, placement, options.rounds)
                    values = evenness(on_ranks(tree), ranks)
                    record(f"{ranks} ranks, {placement}", seed, values, tree)
    publish(BENCHMARK)


def experiment(seed: int, ranks: int, placement: str, rounds: int) -> dict[str, Any]:
    """SCAFFOLD, so that what clients keep has to move with them."""
    return {
        "seed": seed,
        "rounds": rounds,
        "clients": 100,
        "ranks": ranks,
        "participation": 0.1,
        "placement": placement,
        "data": {"partition": SPLIT},
        "algorithm": {"name": "scaffold"},
        "optimizer": {"lr": 0.02},
        "schedule": {"batch_size": 4, "phases": [{"epochs": 1}]},
        "evaluation": {"every": rounds, "model": "agreed"},
    }


def evenness(rows: Sequence[dict[str, Any]], ranks: int) -> dict[str, float]:
    """Load and idleness of one run."""
    rounds = [row for row in rows if not row.get("final")]
    counts = [[0.0] * ranks, *([*row["rank_samples_total"].values()] for row in rounds)]
    longest = sum(max(b - a for a, b in zip(*pair, strict=True)) for pair in pairwise(counts))
    idle = sum(rounds[-1]["rank_idle_seconds_total"].values())
    wire = rows[-1]["wire_bytes_total"]
    return {
        "longest_over_fair_share": longest * ranks / sum(counts[-1]),
        "idle_share": idle / (ranks * rounds[-1]["time_seconds"]),
        "moved_share_of_wire": wire["moves"] / sum(wire.values()),
    }


def table(rows: Sequence[Row]) -> str:
    header = ["case", "longest rank / fair share", "idle share", "records' share of wire bytes"]
    lines = []
    for case, runs in by_case(rows).items():
        value = {key: [run[key] for run in runs] for key in runs[0]}
        lines.append(
            [
                case,
                spread(value["longest_over_fair_share"], 2),
                spread(value["idle_share"], 2),
                spread(value["moved_share_of_wire"], 2),
            ]
        )
    return markdown(header, lines) + f"\n\nMean ± half the range over seeds {list(SEEDS)}."


def figure(rows: Sequence[Row]) -> Figure:
    page = Figure(figsize=(5, 3))
    axes = page.subplots()
    for case, runs in by_case(rows).items():
        values = [run["longest_over_fair_share"] for run in runs]
        axes.plot([case] * len(values), values, "o", color="C0")
    axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set_title("longest rank of a round / fair share", size=9)
    axes.tick_params(axis="x", labelsize=7)
    axes.margins(x=0.3)
    return page


BENCHMARK = Benchmark("dealing", table, figure)

if __name__ == "__main__":
    main()
