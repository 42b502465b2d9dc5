"""Runs whose images stay in their files: the laws that hold for those in memory, and a fault."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import bounds, jobs, patience
from tests.jpegs import CLASSES, imagenet
from tests.ranks import ranks
from trainer.config.load import load
from trainer.engine import checkpoint
from trainer.engine.round import run_round
from trainer.engine.turns import full_gradient
from trainer.storage.folder import Folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return imagenet(tmp_path / "set", train=12, val=3)


def tree(root: Path, partition: str = "shared", **data: Any) -> dict[str, Any]:
    """Four clients that take two steps a round, on crops of 32 pixels."""
    images = {"name": "imagenet", "path": str(root), "resize": 32, "threads": 2}
    return {
        "seed": 3,
        "rounds": 2,
        "clients": 4,
        "data": images | {"partition": {"name": partition}} | data,
        "model": {"name": "lenet"},
        "schedule": {"batch_size": 4, "phases": [{"steps": 2}]},
        "evaluation": {"batch_size": 4},
        "metrics": {"port": None},
    }


def trained(tree: dict[str, Any], out: Path) -> subprocess.CompletedProcess[str]:
    """`python -m trainer` on one rank."""
    out.mkdir()
    experiment, _ = load(tree)
    (out / "experiment.json").write_text(experiment.canonical())
    command = [sys.executable, "-m", "trainer", str(out / "experiment.json"), "--out", str(out)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ, timeout=patience.seconds(100)
    )


def test_two_rounds_through_the_real_trainer(root: Path, tmp_path: Path) -> None:
    done = trained(tree(root), tmp_path / "run")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[-1]["round"] == 2 and rows[-1]["final"]
    right = rows[-1]["test_accuracy_ratio"] * 9  # all nine test images, each once
    assert right == pytest.approx(round(right)) and rows[-1]["test_loss"] > 0
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_broken_file_ends_the_run_with_one_line(root: Path, tmp_path: Path) -> None:
    broken = root / "train" / CLASSES[2] / f"{CLASSES[2]}_7.JPEG"
    broken.write_bytes(broken.read_bytes()[:-200])
    long = tree(root) | {"rounds": 6}  # two passes: somebody takes it
    assert trained(long, tmp_path / "run").returncode == 2
    status = json.loads((tmp_path / "run" / "logs" / "rank-0.json").read_text())
    assert status["message"].startswith(f"data.path: {broken} is not a readable image")


@pytest.mark.parametrize("partition", ["shared", "iid"])
def test_two_ranks_train_what_one_does(root: Path, partition: str) -> None:
    double = {**bounds.DOUBLE, "model": {"name": "lenet", "precision": "fp64"}}
    one, two = (
        ranks(n).run(jobs.history, tree(root, partition, threads=threads) | double, 3)[0]
        for n, threads in ((1, 2), (2, 1))
    )
    assert bounds.apart(one, two) < bounds.of_runs(one)
    assert np.abs(one[0]["anchor"] - one[3]["anchor"]).max() > 1e-3


def test_crops_are_random_unless_augment_is_off(root: Path) -> None:
    on, off = (jobs.history(tree(root, augment=a), 1)[1]["anchor"] for a in (True, False))
    assert not np.array_equal(on, off)


def test_a_resumed_run_sees_the_crops_that_it_would_have_seen(root: Path, tmp_path: Path) -> None:
    through = jobs.experiment_run(tree(root))
    for number in (1, 2, 3):
        run_round(through, number)
        if number == 1:  # in the middle of a pass
            checkpoint.save(through, number, Folder(tmp_path / "checkpoints"))
    again = jobs.experiment_run(tree(root))
    assert checkpoint.restore(again, Folder(tmp_path / "checkpoints"))[0] == 1
    for number in (2, 3):
        run_round(again, number)
    assert torch.equal(again.server.anchor, through.server.anchor)


@pytest.mark.parametrize("cap,seen", [(5, 8), (None, 9)])  # whole batches of 4
def test_full_gradients_stop_at_their_cap(root: Path, cap: int | None, seen: int) -> None:
    algorithm = {"name": "fedga", "gradient_samples": cap}
    rank = jobs.experiment_run(tree(root, "iid") | {"algorithm": algorithm})
    worker, images = rank.parts.worker, []
    gradient = worker.gradient

    def counted(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        images.append(len(y))
        return gradient(x, y)

    worker.gradient = counted
    full_gradient(rank, 1)
    assert sum(images) == seen
