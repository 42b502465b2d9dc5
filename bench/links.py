"""Owns formats on slow and fast links: seconds of a round, and until a run is as good as dense.

    python -m bench.links

Three ranks with a client each, in network namespaces of their own (bench/pods.py: Linux, root). A
token bucket lets each of them send, and receive, at most 10, 100 or 1000 Mbit/s; nothing else is
slow: no distance, no loss. Every method has the same outer step (Nesterov momentum) and the same
batches, so that they differ in what is lost of a message, and in the time that it takes.

A run's bits do not depend on the link, which is checked. So accuracy by round is that of one run of
each method, on the fastest link; on others fewer rounds are timed where a round takes long, and the
time until the target is its round times the seconds of one.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.harness import COLOURS, Benchmark, Row, by_case, markdown, publish, recording
from bench.pods import Pods
from bench.spaces import NoNamespaces
from bench.trial import PRESETS, QUIET
from trainer.config.load import load

RANKS = 3
RATES = (1000, 100, 10)  # Mbit/s; the first one's runs are whole
SHARE = 0.95  # of dense's accuracy: the target
LAST = 3  # rounds whose mean is dense's accuracy
LIMIT_SECONDS = 900  # of one run
NESTEROV = {"name": "sgd", "lr": 0.7, "momentum": 0.9, "nesterov": True}
CODECS = {
    "dense": {"name": "fp32"},
    "int8": {"name": "int8"},
    "int4": {"name": "int4"},
    "low rank": {"name": "lowrank"},
}


@dataclass(frozen=True)
class Setting:
    """An experiment; timed: rounds of a run on each of the slower links."""

    name: str
    rounds: int
    timed: Mapping[int, int]
    changes: Mapping[str, Any]
    rank: int = 2  # of the factors
    preset: str = "fedavg-digits"


SETTINGS = (
    Setting(
        "LeNet",
        rounds=40,
        timed={100: 40, 10: 40},
        changes={
            "data": {"resize": 28},
            "model": {"name": "lenet"},
            "schedule": {"batch_size": 32, "phases": [{"steps": 5}]},
        },
    ),
    Setting(
        "wide CNN",
        rounds=16,
        timed={100: 3, 10: 2},
        changes={
            "data": {"resize": 72},
            "model": {"name": "fedavg-cnn"},
            "schedule": {"batch_size": 16, "phases": [{"steps": 4}]},
        },
        rank=8,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rounds")
    options = parser.parse_args()
    try:
        pods = Pods(RANKS)
    except NoNamespaces as error:
        sys.exit(f"no network namespaces: {error}")
    try:
        with recording(BENCHMARK) as record:
            for seed in options.seeds:
                for setting in SETTINGS:
                    for case, values, tree in measured(pods, setting, seed, options.scale):
                        record(case, seed, values, tree)
                        print(seed, case, summary(values), flush=True)
    finally:
        pods.close()
    publish(BENCHMARK)


def measured(
    pods: Pods, setting: Setting, seed: int, scale: float
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Train each method on each link; yield the case, what was measured, and the experiment."""
    whole: dict[str, dict[int, float]] = {}
    for mbit in RATES:
        pods.limit(mbit)
        rounds = max(2, round(scale * setting.timed.get(mbit, setting.rounds)))
        for method in CODECS:
            tree = experiment(setting, method, seed, rounds, tested=mbit == RATES[0])
            values = trained(pods, tree) | {"setting": setting.name, "method": method, "mbit": mbit}
            curve = dict(values["curve"])
            reference = whole.setdefault(method, curve)
            assert reference[rounds] == curve[rounds], "another link, another result"
            yield f"{setting.name}, {method}, {mbit} Mbit/s", values, tree


def experiment(
    setting: Setting, method: str, seed: int, rounds: int, *, tested: bool
) -> dict[str, Any]:
    """`tested`: after each round, else at the end only."""
    return {
        "extends": setting.preset,
        "name": "links",
        "seed": seed,
        "rounds": rounds,
        "clients": RANKS,
        "ranks": RANKS,
        "algorithm": {"name": "fedavg", "server": NESTEROV},
        "codec": CODECS[method] | ({"rank": setting.rank} if method == "low rank" else {}),
        "evaluation": {"every": 1 if tested else rounds},
        **setting.changes,
    }


def trained(pods: Pods, tree: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each round but the first, accuracy by round, and what a rank sent in a round."""
    loaded, _ = load({**tree, **QUIET}, presets=PRESETS)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        sent = pods.train(loaded, out, LIMIT_SECONDS)
        lines = (out / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if not row.get("final")]
    start, last = rows[0], rows[-1]
    times = [row["time_seconds"] for row in rows]
    reduced = [row["phase_seconds_total"]["reduce"] for row in rows]
    wire = sum(last["wire_bytes_total"].values())
    return {
        "parameters": last["parameters"],
        "seconds": [b - a for a, b in pairwise(times)],
        "reduce_seconds": [b - a for a, b in pairwise(reduced)],
        "curve": [(row["round"], row["test_accuracy_ratio"]) for row in rows if tested(row)],
        "wire_bytes": (wire - sum(start["wire_bytes_total"].values())) / (len(rows) - 1) / RANKS,
        "interface_bytes": sum(one.bytes for one in sent),
        "wire_bytes_of_run": wire,
    }


def tested(row: Mapping[str, Any]) -> bool:
    return row.get("test_accuracy_ratio") is not None


def summary(values: Mapping[str, Any]) -> str:
    accuracy = 100 * values["curve"][-1][1]
    return f"{statistics.median(values['seconds']):.3f} s a round, accuracy {accuracy:.1f} %"


# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """What is shown of one method in one setting: the first link's run is the whole one."""

    name: str
    runs: Sequence[Mapping[str, Any]]  # one of each link, in the order of RATES

    @property
    def accuracy(self) -> float:
        """The mean of the last rounds."""
        return statistics.fmean(accuracy for _, accuracy in self.runs[0]["curve"][-LAST:])

    def seconds(self, run: Mapping[str, Any]) -> float:
        """Of a round, the median."""
        return statistics.median(run["seconds"])

    def rounds(self, target: float) -> int | None:
        """The first round that is as accurate; None: none is."""
        found = (number for number, accuracy in self.runs[0]["curve"] if accuracy >= target)
        return next(found, None)


def methods(rows: Sequence[Row]) -> Iterator[tuple[str, list[Method], float]]:
    """Each setting with its methods and its target; of several seeds, the first."""
    runs = [found[0] for found in by_case(rows).values()]
    for setting in dict.fromkeys(run["setting"] for run in runs):
        own = [run for run in runs if run["setting"] == setting]
        found = [
            Method(name, [run for run in own if run["method"] == name])
            for name in dict.fromkeys(run["method"] for run in own)
        ]
        yield setting, found, SHARE * found[0].accuracy


def table(rows: Sequence[Row]) -> str:
    slow_first = list(reversed(RATES))
    header = ["setting, method", "MB a rank sends a round", "accuracy %", "rounds to the target"]
    header += [f"s a round, {mbit} Mbit/s" for mbit in slow_first]
    header += [f"s to the target, {mbit} Mbit/s" for mbit in slow_first]
    lines, notes = [], []
    for setting, found, target in methods(rows):
        first = found[0].runs[0]
        notes.append(
            f"{setting}: {first['parameters']:,} parameters, {len(first['curve'])} rounds, target "
            f"{100 * target:.1f} %"
        )
        for method in found:
            count = method.rounds(target)
            each = [method.seconds(run) for run in reversed(method.runs)]
            until = [f"{count * s:.1f}" if count else "not reached" for s in each]
            lines.append(
                [
                    f"{setting}, {method.name}",
                    f"{method.runs[0]['wire_bytes'] / 1e6:.3f}",
                    f"{100 * method.accuracy:.2f}",
                    str(count or "none"),
                    *(f"{seconds:.3f}" for seconds in each),
                    *until,
                ]
            )
    return (
        f"{markdown(header, lines)}\n\n{'; '.join(notes)}. {RANKS} ranks with a client each; "
        f"the target is {100 * SHARE:.0f} % of dense's accuracy, the mean of its last {LAST} "
        f"rounds; seconds are medians, the first round left out; seed {rows[0]['seed']}."
    )


def figure(rows: Sequence[Row]) -> Figure:
    """Seconds to the target over the rate of the links."""
    page = Figure(figsize=(9, 4))
    found = list(methods(rows))
    for axes, (setting, own, target) in zip(
        page.subplots(1, len(found), squeeze=False)[0], found, strict=True
    ):
        for index, method in enumerate(own):
            count = method.rounds(target)
            if count:
                seconds = [count * method.seconds(run) for run in method.runs]
                rates = [run["mbit"] for run in method.runs]
                axes.plot(rates, seconds, "o-", color=COLOURS[2 * index], label=method.name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("Mbit/s of each link")
        axes.set_ylabel("seconds to the target")
        axes.set_title(setting, size=9)
        axes.legend(fontsize=7)
    page.tight_layout()
    return page


BENCHMARK = Benchmark("links", table, figure)

if __name__ == "__main__":
    main()
