"""Owns the federated learning homework's tables and plots (DDL25, part A), by our trainer on MNIST.

    python -m bench.homework mnist.npz

A1: FedSGD by gradients and by weights are the same. A2: ten cells by clients N and their share C.
A3: curves by epochs, by partition, by learning rate. All with seed 10 and the course's network and
settings; order of samples, sampled clients and dropout masks are ours, so bands apply to A2.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from bench.harness import Benchmark, Row, by_case, markdown, publish, recording
from trainer.config.load import load
from trainer.engine.build import build
from trainer.engine.evaluate import evaluate
from trainer.engine.parts import RankState
from trainer.engine.round import run_round

SEED = 10
Values = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run; the defaults are the homework's."""

    algorithm: str
    clients: int = 100  # N
    share: float = 0.1  # C
    epochs: int = 1  # E
    lr: float = 0.01
    iid: bool = True
    rounds: int = 10
    batch: int | None = 100  # B; fedsgd adds gradients at the same weights, so there it is no limit
    every: bool = True  # tested after each round, or only at the end

    @property
    def name(self) -> str:
        who = f"{self.algorithm} N={self.clients} C={self.share}"
        return f"{who} E={self.epochs} lr={self.lr} {self.spread}"

    @property
    def spread(self) -> str:
        return "IID" if self.iid else "non-IID"

    def run(self, data: Path) -> RankState:
        partition: Values = {"name": "iid"} if self.iid else {"name": "shards", "per_client": 2}
        tree = {
            "seed": SEED,
            "rounds": self.rounds,
            "clients": self.clients,
            "participation": self.share,
            "data": {"name": "mnist", "path": str(data), "partition": partition},
            "model": {"name": "dropout-cnn"},
            "optimizer": {"lr": self.lr},
            "algorithm": {"name": self.algorithm.lower()},
            "schedule": {"batch_size": self.batch, "phases": [{"epochs": self.epochs}]},
        }
        return build(load(tree)[0], torch.device("cpu"))


@dataclass(frozen=True)
class Expected:
    """An A2 cell: its messages, the handed-out table's accuracy, and how far off we may be."""

    cell: Cell
    messages: int
    accuracy: float  # percent

    @property
    def band(self) -> float:
        return 2.5 if self.cell.algorithm == "FedAvg" else 3.0  # percent points

    def met(self, messages: int, accuracy: float) -> bool:
        return messages == self.messages and abs(accuracy - self.accuracy) <= self.band


# The runs that A3 draws go on to round 15 where one of its plots does; A2 reads them at round 10.
SGD, AVG = Cell("FedSGD", rounds=15), Cell("FedAvg", rounds=15)
SGD_SHARDS, AVG_SHARDS = (Cell(name, rounds=15, iid=False) for name in ("FedSGD", "FedAvg"))
SGD_SLOW, AVG_SLOW = (
    Cell(name, rounds=15, iid=False, lr=0.001, share=0.5) for name in ("FedSGD", "FedAvg")
)
AVG_2, AVG_4 = Cell("FedAvg", epochs=2), Cell("FedAvg", epochs=4)
END = partial(Cell, every=False)
A2 = (
    Expected(END("FedSGD", clients=10), 20, 42.87),
    Expected(END("FedAvg", clients=10), 20, 93.20),
    Expected(END("FedSGD", clients=50), 100, 43.43),
    Expected(END("FedAvg", clients=50), 100, 87.71),
    Expected(SGD, 200, 42.74),
    Expected(AVG, 200, 80.89),
    Expected(END("FedSGD", share=0.01), 20, 41.01),
    Expected(END("FedAvg", share=0.01), 20, 75.47),
    Expected(END("FedSGD", share=0.2), 400, 42.68),
    Expected(END("FedAvg", share=0.2), 400, 81.64),
)
PLOTS: dict[str, tuple[Sequence[Cell], int, Callable[[Cell], str]]] = {
    "(a) epochs": ((SGD, AVG, AVG_2, AVG_4), 10, lambda c: f"{c.algorithm} E={c.epochs}"),
    "(b) partition": (
        (SGD, AVG, SGD_SHARDS, AVG_SHARDS),
        15,
        lambda c: f"{c.algorithm} {c.spread}",
    ),
    "(c) non-IID, learning rate and share": (
        (SGD_SHARDS, AVG_SHARDS, SGD_SLOW, AVG_SLOW),
        15,
        lambda c: f"{c.algorithm} lr={c.lr} C={c.share}",
    ),
}
A3 = (SGD, AVG, AVG_2, AVG_4, SGD_SHARDS, AVG_SHARDS, SGD_SLOW, AVG_SLOW)
COURSE = {AVG_2: 88.31, AVG_4: 91.05, SGD_SHARDS: 41.0, AVG_SHARDS: 71.3, AVG_SLOW: 40.7}

# A1, in the homework's words; `batch` None is one step on all that a client has.
A1 = {
    "A1 scenario 1": Cell("FedSGD", share=0.5, rounds=5, batch=None),
    "A1 scenario 2": Cell("FedSGD", clients=50, share=0.2, lr=0.1, iid=False, rounds=5, batch=None),
}
A1_COURSE = {
    "A1 scenario 1": (8.83, 13.30, 18.32, 23.15, 27.56),
    "A1 scenario 2": (16.05, 23.40, 13.05),
}
POINTS, WEIGHTS = 0.02, 1e-5  # how far the two may be apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="MNIST as an .npz file")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--keep", type=Path, help="folder of finished runs, not played again")
    options = parser.parse_args()
    cells = {cell.name: cell for cell in (*(e.cell for e in A2), *A3)} | A1
    with (
        tempfile.TemporaryDirectory() as folder,
        recording(BENCHMARK) as record,
        ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool,
    ):
        play_one = partial(once, (options.keep or Path(folder)).resolve(), options.data.resolve())
        results = pool.map(play_one, cells, cells.values())
        for (case, cell), values in zip(cells.items(), results, strict=True):
            record(case, SEED, values, vars(cell) | {"data": options.data.name})
            print(case, values["rows"][-1], flush=True)
    publish(BENCHMARK)


def once(keep: Path, data: Path, case: str, cell: Cell) -> Values:
    """The values of a case, from an earlier attempt if that got so far."""
    path = keep / (re.sub(r"[^\w.=-]", "-", case) + ".json")
    if path.exists():
        return dict(json.loads(path.read_text()))
    torch.set_num_threads(1)
    values = equality(cell, data) if case in A1 else curve(cell, data)
    keep.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return values


def curve(cell: Cell, data: Path) -> Values:
    """Play a run; a row for each evaluation: round, accuracy, messages, federated seconds."""
    rank, rows = cell.run(data), []
    for number in range(1, cell.rounds + 1):
        run_round(rank, number)
        if cell.every or number == cell.rounds:
            accuracy, ledger = evaluate(rank).accuracy, rank.ledger
            rows.append((number, accuracy, ledger.tally.messages, round(ledger.federated, 2)))
        else:
            rank.ledger.settle()  # or the round's times are lost
    return {"rows": rows}


def equality(cell: Cell, data: Path) -> Values:
    """FedSGD by gradients beside FedAvg with one step on all of a client's data, round by round."""
    by_gradients, by_weights = (replace(cell, algorithm=a).run(data) for a in ("FedSGD", "FedAvg"))
    return {"rows": side_by_side(by_gradients, by_weights, cell.rounds)}


def side_by_side(
    by_gradients: RankState, by_weights: RankState, rounds: int
) -> list[tuple[Any, ...]]:
    """Of each round: its number, both accuracies, messages, the largest difference of a weight."""
    rows = []
    for number in range(1, rounds + 1):
        both = by_gradients, by_weights
        for rank in both:
            run_round(rank, number)
        apart = (by_gradients.server.anchor - by_weights.server.anchor).abs().max().item()
        accuracies = (evaluate(rank).accuracy for rank in both)
        rows.append((number, *accuracies, by_gradients.ledger.tally.messages, apart))
    return rows


def equal(row: Sequence[Any]) -> bool:
    """Whether a row of `side_by_side` is as near as the homework asks, and nearer."""
    _, gradients, weights, _, apart = row
    return bool(100 * abs(gradients - weights) <= POINTS and apart < WEIGHTS)


# ---------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    results = {case: runs[0]["rows"] for case, runs in by_case(rows).items()}
    return "\n\n".join(
        (
            "A1: FedSGD by gradients and by weights, after each round.",
            _equalities(results),
            "A2: after ten rounds.",
            _cells(results),
            "A3: the runs behind the plots.",
            _curves(results),
        )
    )


def _equalities(results: Values) -> str:
    header = ["scenario", "round", "messages", "FedSGDGradient %", "FedSGDWeight %"]
    header += ["largest difference of a weight", "equal", "the course's %"]
    lines = []
    for case, cell in A1.items():
        course = dict(enumerate(A1_COURSE[case], start=1))
        where = f"N={cell.clients}, {cell.spread}, C={cell.share}, lr={cell.lr}"
        for row in results[case]:
            number, gradients, weights, messages, apart = row
            line = [where, f"{number}", f"{messages}", percent(gradients), percent(weights)]
            line += [f"{apart:.1e}", "yes" if equal(row) else "**no**"]
            lines.append([*line, f"{course[number]:.2f}" if number in course else "-"])
    return markdown(header, lines)


def _cells(results: Values) -> str:
    header = ["Algorithm", "N", "C", "Message count", "Test accuracy", "handed out", "difference"]
    header += ["allowed", "", "federated seconds"]
    lines = []
    for expected in A2:
        cell, published = expected.cell, expected.accuracy
        _, ratio, messages, seconds = _at(results[cell.name], 10)
        met = expected.met(messages, 100 * ratio)
        line = [cell.algorithm, f"{cell.clients}", f"{cell.share}", f"{messages}", percent(ratio)]
        line += [f"{published:.2f}", f"{100 * ratio - published:+.2f}", f"{expected.band}"]
        lines.append([*line, "met" if met else "**missed**", f"{seconds:.1f}"])
    return markdown(header, lines)


def _curves(results: Values) -> str:
    header = ["Algorithm", "data", "C", "lr", "E", "round 5", "round 10", "round 15"]
    header += ["the course's, last", "largest fall", "federated seconds"]
    lines = []
    for cell in A3:
        rows = results[cell.name]
        falls = [before[1] - after[1] for before, after in pairwise(rows)]
        line = [cell.algorithm, cell.spread, f"{cell.share}", f"{cell.lr}", f"{cell.epochs}"]
        line += [percent(_at(rows, n)[1]) if n <= cell.rounds else "-" for n in (5, 10, 15)]
        line += [f"{COURSE[cell]}" if cell in COURSE else "-", percent(max(0.0, *falls))]
        lines.append([*line, f"{rows[-1][3]:.1f}"])
    return markdown(header, lines)


def percent(ratio: float) -> str:
    return f"{100 * ratio:.2f}"


def _at(rows: Sequence[Any], number: int) -> Any:
    return next(row for row in rows if row[0] == number)


def figure(rows: Sequence[Row]) -> Figure:
    """The three plots of A3."""
    results = {case: runs[0]["rows"] for case, runs in by_case(rows).items()}
    page = Figure(figsize=(15, 4.5))
    for axes, (title, (cells, rounds, label)) in zip(
        page.subplots(1, len(PLOTS)), PLOTS.items(), strict=True
    ):
        for cell in cells:
            numbers, accuracies, *_ = zip(*results[cell.name][:rounds], strict=True)
            axes.plot(numbers, [100 * a for a in accuracies], marker=".", label=label(cell))
        axes.set(title=title, xlabel="Round", ylabel="Test accuracy", ylim=(0, 100))
        axes.set_yticks(range(0, 101, 10))
        axes.set_xticks(range(1, rounds + 1, 2 if rounds > 10 else 1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return page


BENCHMARK = Benchmark("homework", table, figure)

if __name__ == "__main__":
    main()
