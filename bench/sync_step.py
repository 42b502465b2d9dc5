"""The time between the end of a client's turn and the agreed model, beside the memory's own speed.

    python -m bench.sync_step

Real rounds of the engine, of one rank with one client, in one thread and without a network; local
training is replaced by steps along noise, in which the clock stands still. The model is a stack of
matrices of 1024 x 1024 with their biases. Averages forget fast and thresholds are high, so that a
good part of the model is frozen, at random places.

The floor is what any program must move between memory and processor. A collective divides the step:
before it every input has to be read and every output written once, and after it again. Bytes for
each parameter, with b = bytes of a value on the wire, s = the share that travels, f = the frozen
share:

    the update                  8          x and y, read
    an fp32 sum                 2 b s      written by the client, read as the mean
    a code with owners          4 b s      written by the client, read and written by owners, read
    error feedback              8          the residual, read and written
    low rank                    4          and read once more, when the first factors are known
    the agreed model            8          x, read and written
    freezing                    18         E, Ea and the mask, read and written
    APF's periods               8          L and the rounds that are left, likewise
    GWPF's ages and statistics  4 + 8 f    ages likewise; local value and distance, read

They are divided by the speed at which torch copies a vector as long as the model in the same
process, where bytes read and bytes written both count. Copies and rounds are measured in turn, in
CPU time, and the fastest of each counts.
"""

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from bench.harness import Benchmark, Row, by_case, markdown, publish, recording
from trainer.config.load import validate
from trainer.config.schema import Experiment
from trainer.engine.allocator import keep_freed_memory
from trainer.engine.build import assemble
from trainer.engine.round import RoundResult, run_round
from trainer.exchange.mesh import mesh
from trainer.exchange.reductions.low_rank import LowRank
from trainer.tasks.task import Batch, Task
from trainer.workers.single import Single

GOAL = 2  # of the floor
WIDTH = 1024
SIZES = {"1 M": 1, "10 M": 10, "100 M": 95}  # matrices
WARM, ROUNDS = 6, 5
NOISE = (1 << 20) + 7  # values, from which gradients are taken at changing places
FREEZING = {"ema": 0.5, "threshold": 0.3}
POLICIES: dict[str, dict[str, Any]] = {
    "full": {"name": "full"},
    "apf": {"name": "apf", **FREEZING},
    "gwpf": {"name": "gwpf", **FREEZING, "thaw_threshold": 0.95},
}
CODECS: dict[str, dict[str, Any]] = {name: {"name": name} for name in ("fp32", "int8", "int4")}
LOW_RANK = {"name": "lowrank", "rank": 4}
CASES = {
    **{f"{p}, {c}": (sync, code) for p, sync in POLICIES.items() for c, code in CODECS.items()},
    "full, lowrank": (POLICIES["full"], LOW_RANK),
}
BYTES = {"fp32": 4.0, "int8": 1 + 2 / 64, "int4": 0.5 + 2 / 64, "lowrank": 0.0}  # b; factors: none


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", default=",".join(SIZES), help="some of them")
    parser.add_argument("--only", default="", help="cases whose name contains this; only prints")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a rank does
    chosen = [name for name in CASES if options.only in name]
    sizes = options.sizes.split(",")
    if len(chosen) < len(CASES) or len(sizes) < len(SIZES):
        for size in sizes:
            for name in chosen:
                print(size, name, measure(name, SIZES[size]), flush=True)
        return
    with recording(BENCHMARK) as record:
        for size in sizes:
            for name, (sync, codec) in CASES.items():
                values = measure(name, SIZES[size])
                record(f"{name}, {size}", 1, values, {"sync": sync, "codec": codec, "threads": 1})
                print(size, name, values, flush=True)
    publish(BENCHMARK)


class Stopwatch:
    """CPU seconds of a round without the client's turn."""

    def __init__(self) -> None:
        self.spent = 0.0

    def go(self) -> None:
        self.spent -= time.process_time()

    def stop(self) -> None:
        self.spent += time.process_time()


class Noise(Single):
    """A worker whose gradients are noise, other values at each place in each step."""

    def __init__(self, model: nn.Module, task: Task, watch: Stopwatch) -> None:
        super().__init__(model, task)
        self.watch, self.steps = watch, 0
        self.noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(1))
        self._fill(self.params)

    def _fill(self, vector: Tensor) -> None:
        self.steps += 1
        turned = self.noise.roll(self.steps * 7919)
        for part in vector.split(NOISE):
            part.copy_(turned[: len(part)])

    def enter(self, anchor: Tensor, buffers: Tensor) -> None:
        self.watch.stop()
        super().enter(anchor, buffers)

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        self._fill(self.grads)
        return x.new_zeros(())


class Idle:
    """A task without samples; after the last batch of a client's turn the clock goes on."""

    random = False
    home = torch.device("cpu")

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def batches(self, places: Iterable[Tensor], stream: None) -> Iterator[Batch]:
        for _ in places:
            yield torch.zeros(1), torch.zeros(1), 1
        self.watch.go()


class Subject:
    """A rank with one client."""

    def __init__(self, experiment: Experiment, matrices: int) -> None:
        self.watch, self.number = Stopwatch(), 0
        layers = [nn.utils.skip_init(nn.Linear, WIDTH, WIDTH) for _ in range(matrices)]
        task = cast(Task, Idle(self.watch))
        worker = Noise(nn.Sequential(*layers), task, self.watch)
        group = mesh(task.home, 1, experiment.cluster.timeout)
        self.rank = assemble(experiment, task, worker, group, [torch.arange(1)])

    def round(self) -> tuple[float, RoundResult]:
        """Return the seconds of the sync step, and the round's result."""
        self.number, self.watch.spent = self.number + 1, 0.0
        self.watch.go()
        result = run_round(self.rank, self.number)
        self.watch.stop()
        return self.watch.spent, result

    def copied(self) -> float:
        """Return the seconds in which a vector as long as the model is copied."""
        start = time.process_time()
        self.rank.parts.worker.grads.copy_(self.rank.server.anchor)
        return time.process_time() - start


def measure(name: str, matrices: int) -> dict[str, Any]:
    """Return one line of the raw results."""
    sync, codec = CASES[name]
    asked = {"seed": 1, "clients": 1, "sync": sync, "codec": codec, "data": {"name": "digits"}}
    schedule = {"batch_size": 1, "phases": [{"steps": 2}]}
    subject = Subject(validate({**asked, "schedule": schedule}), matrices)
    size = subject.rank.parts.worker.layout.size
    for _ in range(WARM):
        subject.round()
    seconds, copies, floors = [], [], []
    for _ in range(ROUNDS):
        copies += [subject.copied() for _ in range(3)]
        spent, result = subject.round()
        seconds.append(spent)
        floors.append(floor(subject, codec["name"], result.sent / size, result.labelled / size))
    speed = 8 * size / min(copies)
    least = min(seconds)
    fewest = floors[seconds.index(least)]
    return {
        "parameters": size,
        "ms": 1e3 * least,
        "floor_ms": 1e3 * size * fewest / speed,
        "floors": least * speed / size / fewest,
        "floor_bytes": fewest,
        "copy_gb_s": speed / 1e9,
        "sent_share": result.sent / size,
        "frozen_share": result.labelled / size,
    }


def floor(subject: Subject, codec: str, sent: float, frozen: float) -> float:
    """Return the bytes that each parameter must move, as in the table above."""
    parts = subject.rank.parts
    wire = (2 if codec == "fp32" else 4) * BYTES[codec] * sent
    fed_back = 8.0 if parts.chain else 0.0
    twice = 4.0 if isinstance(parts.reduction, LowRank) else 0.0
    policy = {"Policy": 0.0, "APF": 26.0, "GWPF": 22 + 8 * frozen}[type(parts.policy).__name__]
    return 8 + wire + fed_back + twice + 8 + policy


# ---------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    cases = by_case(rows)
    lines = []
    for name in CASES:
        found = [cases[f"{name}, {size}"][0] for size in SIZES]
        cells = [f"{v['ms']:.1f} ({v['floors']:.1f})" for v in found]
        last = found[-1]
        shares = [f"{100 * last[key]:.0f} %" for key in ("sent_share", "frozen_share")]
        lines.append([name, *cells, f"{last['floor_bytes']:.0f}", *shares])
    header = ["policy, codec", *(f"ms, {size} (floors)" for size in SIZES)]
    header += ["bytes in the floor", "sent", "frozen"]
    speeds = [
        max(row["values"]["copy_gb_s"] for row in rows if size in row["case"]) for size in SIZES
    ]
    copied = ", ".join(f"{speed:.0f}" for speed in speeds)
    return f"{markdown(header, lines)}\n\nCopies at {copied} GB/s; the goal is {GOAL} floors."


def figure(rows: Sequence[Row]) -> Figure:
    page = Figure(figsize=(7, 3))
    axes = page.subplots()
    cases = by_case(rows)
    for at, size in enumerate(SIZES):
        values = [cases[f"{name}, {size}"][0]["floors"] for name in CASES]
        places = [number + 0.25 * (at - 1) for number in range(len(CASES))]
        axes.bar(places, values, 0.25, label=f"{size} parameters")
    axes.set_xticks(range(len(CASES)), [name.replace(", ", "\n") for name in CASES], fontsize=7)
    axes.axhline(GOAL, color="C3", linewidth=1)
    axes.set_title("time of the sync step, in memory floors", size=9)
    axes.legend(fontsize=7)
    return page


BENCHMARK = Benchmark("sync_step", table, figure)

if __name__ == "__main__":
    main()
