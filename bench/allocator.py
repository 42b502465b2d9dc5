"""Owns the comparison of a rank's steps with and without keeping freed memory (glibc).

    python -m bench.allocator

Forward, backward and SGD step on random images, one thread, each measurement in a process of its
own, the two ways in turn. CPU time counts the kernel's part, which is what is saved.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure

from bench.harness import ROOT, Benchmark, Row, by_case, markdown, publish, recording, seeds, spread
from trainer.config.models import MODELS
from trainer.engine.allocator import keep_freed_memory

SEEDS = (1, 2, 3)
CASES = {  # model, batch, image
    "lenet, batch 100": ("lenet", 100, (1, 28, 28)),
    "dropout-cnn, batch 100": ("dropout-cnn", 100, (1, 28, 28)),
    "dropout-cnn, batch 600": ("dropout-cnn", 600, (1, 28, 28)),
    "resnet18, batch 50": ("resnet18", 50, (3, 32, 32)),
}
SAMPLES = 3000  # at least three steps
WARM = 2  # steps that do not count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--measure", nargs=3, metavar=("CASE", "SEED", "KEEP"))
    options = parser.parse_args()
    if options.measure:
        case, seed, keep = options.measure
        print(json.dumps(measure(case, int(seed), keep == "keep")))
        return
    with recording(BENCHMARK) as record:
        for seed in SEEDS:
            for case, used in CASES.items():
                plain, kept = (_child(case, seed, way) for way in ("plain", "keep"))
                values = {
                    "ms": kept["ms"],
                    "ms_plain": plain["ms"],
                    "ratio": kept["ms"] / plain["ms"],
                    "mib": kept["mib"],
                    "mib_plain": plain["mib"],
                }
                record(
                    case, seed, values, dict(zip(("model", "batch", "image"), used, strict=True))
                )
                print(seed, case, values, flush=True)
    publish(BENCHMARK)


def _child(case: str, seed: int, way: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.allocator", "--measure", case, str(seed), way]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return dict(json.loads(answer.stdout))


def measure(case: str, seed: int, keep: bool) -> dict[str, float]:
    """CPU milliseconds per sample, and the most memory that was resident."""
    if keep:
        assert keep_freed_memory(), "this C library can't be asked to"
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    name, batch, shape = CASES[case]
    model = MODELS[name](classes=10, in_shape=shape)
    x, y = torch.randn(batch, *shape), torch.randint(10, (batch,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    steps, start = max(3, min(SAMPLES, 20 * batch) // batch), 0.0
    for number in range(WARM + steps):
        if number == WARM:
            start = time.process_time()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    milliseconds = 1e3 * (time.process_time() - start) / (steps * batch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ms": milliseconds, "mib": peak}


def table(rows: Sequence[Row]) -> str:
    lines = []
    for case, runs in by_case(rows).items():
        value: dict[str, list[Any]] = {key: [run[key] for run in runs] for key in runs[0]}
        cells = [spread(value["ms"]), spread(value["ms_plain"]), spread(value["ratio"], 2)]
        cells += [spread(value["mib"], 0), spread(value["mib_plain"], 0)]
        lines.append([case, *cells])
    header = [
        "step",
        "CPU ms a sample, kept",
        "given back",
        "ratio",
        "peak MiB, kept",
        "given back",
    ]
    return f"{markdown(header, lines)}\n\nMean ± half the range over seeds {seeds(rows)}."


def figure(rows: Sequence[Row]) -> Figure:
    page = Figure(figsize=(6, 3))
    axes = page.subplots()
    cases = by_case(rows)
    ratios = [statistics.fmean(run["ratio"] for run in runs) for runs in cases.values()]
    axes.barh(list(cases), ratios)
    axes.axvline(1, color="grey", linestyle=":")
    axes.set_xlabel("CPU time with freed memory kept, of that without")
    axes.invert_yaxis()
    return page


BENCHMARK = Benchmark("allocator", table, figure)

if __name__ == "__main__":
    main()
