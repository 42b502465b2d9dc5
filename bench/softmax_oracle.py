"""Owns the deterministic comparison: softmax regression on MNIST against published digits.

    python -m bench.softmax_oracle mnist.npz

Nothing in it is random: zero initialisation, float64, all ten clients in every round, each step on
all that a client has. So the trainer (build, run_round, evaluate, on real ranks) must give the
published table to its last digit.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from matplotlib.figure import Figure
from torch.multiprocessing.spawn import spawn

from bench.harness import Benchmark, Row, markdown, publish, recording
from trainer.config.data import IID, Partition, Shards
from trainer.config.load import load
from trainer.data.partition import partition
from trainer.engine.build import build
from trainer.engine.evaluate import evaluate
from trainer.engine.round import run_round

SEED, CLIENTS, STEPS = 1, 10, 10
ROUNDS = (1, 2, 5, 10, 20)  # after which the table tests
Labels = npt.NDArray[np.int64]
FEDAVG = {"name": "fedavg"}
NON_IID = Shards(per_client=1)


@dataclass(frozen=True)
class Case:
    """A line of the published table: accuracy in percent and training loss by round, norm of W."""

    name: str
    algorithm: dict[str, Any]
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    norm: float  # Frobenius, with the biases, after the last round
    split: Partition = NON_IID
    steps: int = STEPS

    def tree(self, ranks: int, data: str) -> dict[str, Any]:
        return {
            "seed": SEED,
            "rounds": max(ROUNDS),
            "clients": CLIENTS,
            "ranks": ranks,
            "data": {
                "name": "mnist",
                "path": data,
                "sampling": "fixed",
                "partition": self.split.model_dump(),
            },
            "model": {"name": "softmax", "precision": "fp64"},
            "codec": {"name": "fp64"},
            "optimizer": {"lr": 0.01},
            "algorithm": self.algorithm,
            "schedule": {"batch_size": None, "phases": [{"steps": self.steps}]},
        }


CASES = (
    Case(
        "mini-batch SGD",
        {"name": "fedsgd"},
        (73.77, 74.62, 76.00, 78.65, 81.93),
        (2.18930, 2.08488, 1.81862, 1.50021, 1.14109),
        0.471819,
        steps=1,
    ),
    Case(
        "FedAvg, non-IID",
        FEDAVG,
        (52.91, 57.02, 67.17, 75.57, 82.97),
        (2.06610, 1.87207, 1.46322, 1.09935, 0.79408),
        0.789238,
    ),
    Case(
        "FedGA beta 0.005, non-IID",
        {"name": "fedga", "beta": 0.005},
        (58.20, 62.92, 72.17, 79.08, 84.82),
        (2.02316, 1.80045, 1.35771, 0.99976, 0.72328),
        0.865684,
    ),
    Case(
        "FedGA beta 0.01, non-IID",
        {"name": "fedga", "beta": 0.01},
        (62.85, 67.36, 75.72, 81.52, 85.79),
        (1.97931, 1.72963, 1.26673, 0.92429, 0.67326),
        0.932363,
    ),
    Case(
        "SCAFFOLD fresh, non-IID",
        {"name": "scaffold", "controls": "fresh"},
        (76.44, 81.51, 85.35, 87.35, 88.73),
        (1.45998, 1.10308, 0.74751, 0.57907, 0.47047),
        1.397736,
    ),
    Case(
        "SCAFFOLD option-2, non-IID",
        {"name": "scaffold", "controls": "option-2"},
        (52.91, 62.66, 80.72, 86.08, 88.41),
        (2.06610, 1.78183, 1.10679, 0.67847, 0.48182),
        1.364725,
    ),
    Case(
        "FedAvg, IID",
        FEDAVG,
        (79.08, 81.93, 85.22, 87.29, 88.67),
        (1.50668, 1.14712, 0.76854, 0.58872, 0.47464),
        1.381791,
        split=IID(),
    ),
)
DIGITS = {"accuracy %": 2, "training loss": 5, "norm": 6}  # that the table prints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="MNIST as an .npz file")
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, recording(BENCHMARK) as record:
        rearranged = Path(folder) / "rearranged.npz"
        with np.load(options.data) as arrays:
            labels = arrays["y_train"].astype(np.int64)
            places = in_turn(labels)
            changed = {name: arrays[name][places] for name in ("x_train", "y_train")}
            np.savez(rearranged, **{name: arrays[name] for name in ("x_test", "y_test")}, **changed)
        assert alike(partition(NON_IID, labels, CLIENTS, SEED), by_label(labels))
        for case in CASES:
            source = rearranged if case.split.name == "iid" else options.data.resolve()
            tree = case.tree(options.ranks, str(source))
            out = Path(folder) / "values.json"
            spawn(_rank, (options.ranks, str(Path(folder) / case.name), tree, out), options.ranks)
            values = json.loads(out.read_text())
            published = {"accuracy %": case.accuracies, "training loss": case.losses}
            settings = tree | {"data": tree["data"] | {"path": options.data.name}}
            record(
                case.name, SEED, values | {"published": published | {"norm": case.norm}}, settings
            )
            print(case.name, values, flush=True)
    publish(BENCHMARK)


def by_label(labels: Labels) -> list[Labels]:
    """The published non-IID split: sorted by label, cut into equal parts."""
    return np.array_split(np.argsort(labels, kind="stable"), CLIENTS)


def in_turn(labels: Labels) -> Labels:
    """Where to take sample i from, so that our partition `iid` gives client c those of c mod 10.

    The published IID split deals the samples in turn, which is none of our partitions; `iid` is a
    permutation by the seed, so its inverse on the file's order does it.
    """
    places = np.empty(len(labels), np.int64)
    for client, part in enumerate(partition(IID(), labels, CLIENTS, SEED)):
        places[part] = np.arange(client, len(labels), CLIENTS)
    return places


def alike(parts: Sequence[Labels], others: Sequence[Labels]) -> bool:
    """Whether the same sets of samples are held, whoever holds them."""
    return {frozenset(part.tolist()) for part in parts} == {frozenset(o.tolist()) for o in others}


def _rank(rank: int, size: int, rendezvous: str, tree: dict[str, Any], out: Path) -> None:
    """One of the run's ranks; the first writes what the model scored."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=size)
    state = build(load(tree)[0], torch.device("cpu"))
    parts, accuracies, losses = state.parts, [], []
    share = torch.arange(rank, parts.task.size, size).split(6000)  # of all training images
    for number in range(1, state.experiment.rounds + 1):
        run_round(state, number)
        if number in ROUNDS:
            accuracies.append(100 * evaluate(state).accuracy)  # leaves the agreed model loaded
            batches = parts.task.batches(share, None, training=False)
            _, loss, count = parts.worker.score(batches)
            total, samples = parts.group.sum_numbers([loss, count], "evaluation")
            losses.append(total / samples)
    if rank == 0:
        norm = float(state.server.anchor.norm())
        out.write_text(
            json.dumps({"accuracy %": accuracies, "training loss": losses, "norm": norm})
        )
    if size > 1:
        dist.destroy_process_group()


# ---------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    header = ["accuracy % / training loss", *(f"round {n}" for n in ROUNDS), "norm of W"]
    lines, wrong, printed = [], 0, 0
    for row in rows:
        ours, published = _numbers(row["values"]), _numbers(row["values"]["published"])
        wrong += sum(
            f"{a:.{n}f}" != f"{b:.{n}f}" for (a, n), (b, _) in zip(ours, published, strict=True)
        )
        printed += len(ours)
        apart = [(a - b, digits) for (a, digits), (b, _) in zip(ours, published, strict=True)]
        lines.append([f"{row['case']}: published", *_cells(published, "")])
        lines.append(["ours", *_cells(ours, "")])
        lines.append(["difference, before rounding", *_cells(apart, "+", more=1)])
    ranks = rows[0]["settings"]["ranks"]
    remark = (
        f"{printed - wrong} of {printed} printed numbers agree to the last digit; {ranks} ranks."
    )
    return f"{markdown(header, lines)}\n\n{remark}"


def _numbers(values: dict[str, Any]) -> list[tuple[float, int]]:
    """All numbers of a line with their digits: accuracy and loss in turn, then the norm."""
    pairs = zip(values["accuracy %"], values["training loss"], strict=True)
    accuracy, loss, norm = DIGITS.values()
    numbers = [number for a, b in pairs for number in ((a, accuracy), (b, loss))]
    return [*numbers, (values["norm"], norm)]


def _cells(numbers: Sequence[tuple[float, int]], sign: str, more: int = 0) -> list[str]:
    texts = [f"{number:{sign}.{digits + more}f}" for number, digits in numbers]
    scores = zip(texts[0:-1:2], texts[1:-1:2], strict=True)
    return [*(" / ".join(pair) for pair in scores), texts[-1]]


def figure(rows: Sequence[Row]) -> Figure:
    """Training loss by rounds; circles: published."""
    page = Figure(figsize=(8, 5))
    axes = page.subplots()
    for row in rows:
        (line,) = axes.plot(ROUNDS, row["values"]["training loss"], label=row["case"])
        axes.plot(
            ROUNDS,
            row["values"]["published"]["training loss"],
            "o",
            color=line.get_color(),
            fillstyle="none",
        )
    axes.set(xscale="log", yscale="log", xlabel="round", ylabel="mean training loss")
    axes.set_xticks(ROUNDS, [str(n) for n in ROUNDS])
    axes.set_title("Lines: ours. Circles: published", size=9)
    axes.legend(fontsize=8)
    return page


BENCHMARK = Benchmark("softmax_oracle", table, figure)

if __name__ == "__main__":
    main()
