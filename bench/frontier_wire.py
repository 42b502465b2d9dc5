"""Owns the bytes of the frontier: what ten ranks send each other in a round, by kind.

    python -m bench.frontier_wire emnist-digits.npz

The first seed's run of each method of the sweep frontier-emnist-digits, on ten processes with a
client each. Both directions, with scales, indices, votes and control messages; without tests, and
without the run's start and end and its checkpoints, for which owners of means bring their residuals
together, but with the last reconciliation. Where the size of a message does not depend on its
values, four rounds are enough.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.harness import COLOURS, Benchmark, Row, keep, markdown, publish, read, recording
from bench.trial import on_ranks
from fedctl.sweep.file import read as read_sweep
from fedctl.sweep.variants import Variant, variants

SWEEP = "frontier-emnist-digits"
DENSE = "dense"  # the reference: everything in fp32, with the same outer optimizer
RANKS, FEW = 10, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="EMNIST digits as an .npz file")
    parser.add_argument("--only", nargs="+", help="methods, by name; other rows stay as they are")
    options = parser.parse_args()
    found = variants(read_sweep(SWEEP), [f"data.path={options.data.resolve()}"])
    found = [v for v in found if not options.only or v.group in options.only]
    before = read(BENCHMARK) if BENCHMARK.raw.exists() else []
    with recording(BENCHMARK) as record:
        for variant in {v.group: v for v in reversed(found)}.values():
            values = wire(variant)
            settings = {"sweep": SWEEP, "data": options.data.name}
            record(variant.group, variant.experiment.seed, values, settings)
            print(f"{variant.group}: {values}", flush=True)
    keep(BENCHMARK, before)
    publish(BENCHMARK)


def wire(variant: Variant) -> dict[str, Any]:
    """Bytes that a rank sends in a round, by kind."""
    experiment = variant.experiment
    fixed = experiment.sync.name == "full" and not getattr(experiment.codec, "budget", None)
    changes = {
        "ranks": RANKS,
        "checkpoint": {"at_end": False},
        **({"rounds": FEW} if fixed else {}),
    }
    first, *_, last, final = on_ranks({**json.loads(experiment.canonical()), **changes})
    rounds = last["round"] - first["round"]
    kinds = {
        kind: (count - first["wire_bytes_total"][kind]) / (RANKS * rounds)
        for kind, count in last["wire_bytes_total"].items()
        if kind != "evaluation"
    }
    kinds["reconcile"] = final["wire_bytes_total"]["reconcile"] / (RANKS * experiment.rounds)
    return {
        "bytes": sum(kinds.values()),
        "kinds": {kind: count for kind, count in kinds.items() if count},
        "rounds": rounds,
    }


def table(rows: Sequence[Row]) -> str:
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["values"]["kinds"]))
    header = ["method", "bytes a rank sends in a round", *kinds, "fewer than dense"]
    dense = next(row["values"]["bytes"] for row in rows if row["case"] == DENSE)
    lines = [
        [
            row["case"],
            f"{row['values']['bytes']:,.0f}",
            *(f"{row['values']['kinds'].get(kind, 0):,.0f}" for kind in kinds),
            f"{dense / row['values']['bytes']:.1f} x",
        ]
        for row in ordered(rows)
    ]
    return f"{markdown(header, lines)}\n\n{RANKS} ranks, a client each; the first seed."


def ordered(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (-row["values"]["bytes"], row["case"]))


def figure(rows: Sequence[Row]) -> Figure:
    """Bytes by kind, one bar for each method."""
    page = Figure(figsize=(8, 4), layout="constrained")
    axes = page.subplots()
    kinds = dict.fromkeys(kind for row in rows for kind in row["values"]["kinds"])
    for at, row in enumerate(ordered(rows)):
        left = 0.0
        for index, kind in enumerate(kinds):
            count = row["values"]["kinds"].get(kind, 0)
            axes.barh(at, count, left=left, color=COLOURS[index], label=kind if not at else None)
            left += count
    axes.set_yticks(range(len(rows)), [row["case"] for row in ordered(rows)], fontsize=7)
    axes.set_xlabel("bytes a rank sends in a round")
    axes.set_xscale("symlog", linthresh=100)
    axes.legend(fontsize=7)
    return page


BENCHMARK = Benchmark("frontier_wire", table, figure)

if __name__ == "__main__":
    main()
