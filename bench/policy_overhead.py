"""Owns the comparison of freezing with dense rounds: CPU time of a round, extra memory.

    python -m bench.policy_overhead emnist-digits.npz

CPU: the rounds of FedAvg, APF and GWPF are played in turn in one process, from a round on at which
freezing is in a steady state; the ratio is the median over rounds. The moving averages forget fast
(ema 0.9) and thresholds are high, so that a good part of the model is frozen. One step of a small
network is cheap, so this is where a policy's cost shows most.

Memory: ResNet-18 (11.2 million parameters), one client on one rank, in vectors of the model's size.
"held" counts the tensors of the policy and of the client's memory; "peak" is by how much the most
that was ever allocated exceeds the same of dense rounds, which includes what operators allocate in
passing; both in a run in which a part is frozen.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench.harness import Benchmark, Row, by_case, markdown, publish, recording, spread, verdict
from bench.memory import alone
from bench.ours import Ours, experiment
from bench.overhead import in_turn, ratio, settings
from bench.work import Work, digits, emnist

CPU_GOAL, MEMORY_GOAL = 1.10, 6
SEEDS = (1, 2, 3)
WARM = 40  # rounds until freezing has settled
DENSE = {"name": "full"}
POLICIES = {
    "APF": {"name": "apf", "ema": 0.9, "threshold": 0.2},
    "GWPF": {"name": "gwpf", "ema": 0.9, "threshold": 0.2, "thaw_threshold": 0.5, "quorum": 0.5},
}
LARGE_ROUNDS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="EMNIST digits as an .npz file")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rounds")
    options = parser.parse_args()
    data = str(options.data.resolve())
    with recording(BENCHMARK) as record:
        for seed in SEEDS:
            for work, rounds in ((digits(seed), 200), (emnist(data, seed), 40)):
                for policy, values in time(work, max(1, round(rounds * options.scale))).items():
                    used = {**settings(work), "sync": POLICIES[policy]}
                    record(f"{policy}, {work.name}", seed, values, used)
                    print(work.name, policy, seed, values, flush=True)
        for policy, values in weigh().items():
            used = {"sync": POLICIES[policy], "data": "random images", "clients": 1}
            record(f"{policy}, resnet18", 1, values, used)
            print("resnet18", policy, values, flush=True)
    publish(BENCHMARK)


def time(work: Work, rounds: int) -> dict[str, dict[str, Any]]:
    """For each policy, one line of the raw results."""
    subjects = {"dense": Ours(experiment(work, DENSE))}
    subjects |= {name: Ours(experiment(work, sync)) for name, sync in POLICIES.items()}
    in_turn({name: subject.round for name, subject in subjects.items()}, WARM)
    shares: dict[str, list[tuple[float, float]]] = {name: [] for name in subjects}

    def play(name: str) -> None:
        result = subjects[name].round()
        places = result.places
        shares[name].append((result.labelled / places.size, 1 - places.count / places.size))

    seconds = in_turn({name: lambda name=name: play(name) for name in subjects}, rounds)
    return {
        name: {
            "rounds": rounds,
            "cpu_ms": 1000 * statistics.median(seconds[name]),
            "cpu_ms_dense": 1000 * statistics.median(seconds["dense"]),
            "cpu_ratio": ratio(seconds[name], seconds["dense"]),
            "frozen_share": statistics.fmean(share for share, _ in shares[name]),
            "untransmitted_share": statistics.fmean(share for _, share in shares[name]),
        }
        for name in POLICIES
    }


def weigh() -> dict[str, dict[str, Any]]:
    """For each policy, what it holds and its peak on a large model, in vectors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.npz"
        numbers = np.random.RandomState(0)
        x = numbers.randint(0, 256, (16, 32, 32, 3)).astype(np.uint8)
        y = np.arange(16) % 10
        np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
        work = Work("large", "resnet18", str(path), 2, lr=0.01, clients=1, steps=2)
        more = {"data": {"name": "npz", "path": str(path)}}
        asked = {"work": asdict(work), "rounds": LARGE_ROUNDS, "more": more}
        said = {  # twice: the profiler that sees the tensors takes memory too
            name: alone("bench.ours", {**asked, "sync": sync})
            | alone("bench.ours", {**asked, "sync": sync, "weigh": True})
            for name, sync in {"dense": DENSE, **POLICIES}.items()
        }
    dense = said["dense"]
    vector = dense["vector_bytes"]
    return {
        name: {
            "vector_bytes": vector,
            "held_vectors": said[name]["held_bytes"] / vector,
            "peak_vectors": (said[name]["peak_tensor_bytes"] - dense["peak_tensor_bytes"]) / vector,
            "peak_rss_vectors": (said[name]["peak_rss_bytes"] - dense["peak_rss_bytes"]) / vector,
            "frozen_share": said[name]["frozen_share"],
        }
        for name in POLICIES
    }


# ---------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    cases = by_case(rows)
    lines, heavy = [], []
    for case, runs in cases.items():
        value = {key: [run[key] for run in runs] for key in runs[0]}
        frozen = spread([100 * share for share in value["frozen_share"]], 0) + " %"
        if "cpu_ratio" in value:
            mean = statistics.fmean(value["cpu_ratio"])
            lines.append(
                [
                    case,
                    frozen,
                    spread(value["cpu_ms_dense"], 1),
                    spread(value["cpu_ms"], 1),
                    spread(value["cpu_ratio"], 3),
                    verdict(mean, CPU_GOAL),
                ]
            )
        else:
            peak = statistics.fmean(value["peak_vectors"])
            heavy.append(
                [
                    case,
                    frozen,
                    spread(value["held_vectors"], 2),
                    spread(value["peak_vectors"], 2),
                    spread(value["peak_rss_vectors"], 2),
                    verdict(peak, MEMORY_GOAL),
                ]
            )
    speed = markdown(
        [
            "policy, shape",
            "frozen",
            "CPU ms of a dense round",
            "with the policy",
            f"ratio (goal {CPU_GOAL})",
            "",
        ],
        lines,
    )
    memory = markdown(
        [
            "policy, model",
            "frozen",
            "vectors held",
            f"more at the peak (goal {MEMORY_GOAL})",
            "by resident set",
            "",
        ],
        heavy,
    )
    return f"{speed}\n\nMean ± half the range over seeds {list(SEEDS)}.\n\n{memory}"


def figure(rows: Sequence[Row]) -> Figure:
    page = Figure(figsize=(8, 3))
    left, right = page.subplots(1, 2)
    for case, runs in by_case(rows).items():
        name = case.replace(", ", "\n")
        if "cpu_ratio" in runs[0]:
            left.plot([name] * len(runs), [run["cpu_ratio"] for run in runs], "o", color="C0")
        else:
            right.bar(name, runs[0]["held_vectors"], 0.4, align="edge", color="C0")
            right.bar(name, runs[0]["peak_vectors"], -0.4, align="edge", color="C1")
    left.axhline(CPU_GOAL, color="C3", linewidth=1)
    left.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    left.set_title("CPU of a round, with policy / dense", size=9)
    left.tick_params(labelsize=7)
    right.axhline(MEMORY_GOAL, color="C3", linewidth=1)
    right.set_title("extra vectors: peak (orange), held (blue)", size=9)
    right.tick_params(labelsize=7)
    return page


BENCHMARK = Benchmark("policy_overhead", table, figure)

if __name__ == "__main__":
    main()
