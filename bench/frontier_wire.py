"""Owns the bytes of the frontier: what ten ranks send each other in a round, by kind.

    python -m bench.frontier_wire emnist-digits.npz

The first seed's run of each method of the sweep frontier-emnist-digits, on ten processes with a
client each. Both directions, with scales, indices, votes and control messages; without tests, and
without the run's start and end and its checkpoints, for which owners of means bring their residuals
together, but with the last reconciliation. Where the size of a message does not depend on its
values, a few rounds are enough.
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
HALF = "5 of 10 clients"
SETTINGS: dict[str, list[str]] = {
    "Dirichlet(1)": [],
    "Dirichlet(0.1)": ["data.partition.alpha=0.1"],
    HALF: ["participation=0.5"],
}
FIRST, *_ = SETTINGS
# in the other settings only these: the reference, and what is furthest out
HARDER = ("dense", "int4", "low-rank-2", "low-rank-2-ahead", "low-rank-3", "low-rank-4")
DENSE = "dense"  # the reference: everything in fp32, with the same outer optimizer
RANKS, WARM, FEW = 10, 5, 9  # of so many rounds those after the first few: one in four is tested


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="EMNIST digits as an .npz file")
    parser.add_argument("--only", nargs="+", help="methods, by name; other rows stay as they are")
    options = parser.parse_args()
    before = read(BENCHMARK) if BENCHMARK.raw.exists() else []
    with recording(BENCHMARK) as record:
        for setting in (FIRST, HALF):  # how much clients differ changes no size
            found = methods(options.data.resolve(), setting, options.only)
            for variant in {v.group: v for v in reversed(found)}.values():
                values, case = wire(variant), f"{variant.group} | {setting}"
                settings = {"sweep": SWEEP, "data": options.data.name}
                record(case, variant.experiment.seed, values, settings)
                print(f"{case}: {values}", flush=True)
    keep(BENCHMARK, before)
    publish(BENCHMARK)


def methods(data: Path, setting: str, only: Sequence[str] | None) -> list[Variant]:
    """The sweep's runs in a setting, of all its seeds."""
    found = variants(read_sweep(SWEEP), [f"data.path={data}", *SETTINGS[setting]])
    chosen = [v for v in found if setting == FIRST or v.group in HARDER]
    return [v for v in chosen if not only or v.group in only]


def wire(variant: Variant) -> dict[str, Any]:
    """Bytes that a rank sends in a round, by kind."""
    experiment = variant.experiment
    fixed = experiment.sync.name == "full" and not getattr(experiment.codec, "budget", None)
    changes = {
        "ranks": RANKS,
        "checkpoint": {"at_end": False},
        **({"rounds": FEW} if fixed else {}),
    }
    *rows, last, final = on_ranks({**json.loads(experiment.canonical()), **changes})
    first = rows[WARM - 1]
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
    dense = {
        setting: next(r["values"]["bytes"] for r in rows if r["case"] == f"{DENSE} | {setting}")
        for setting in (FIRST, HALF)
    }
    lines = [
        [
            row["case"],
            f"{row['values']['bytes']:,.0f}",
            *(f"{row['values']['kinds'].get(kind, 0):,.0f}" for kind in kinds),
            f"{dense[row['case'].split(' | ')[1]] / row['values']['bytes']:.1f} x",
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
