"""The image trains, in the chart's pods: without rights, and to the same numbers as here."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import patience
from tests.fedctl.processes import FEDCTL
from tests.image.engine import NAME, RANKS, ROOT, Engine, Pods

# The first waits for the build.
pytestmark = [pytest.mark.image, pytest.mark.timeout(patience.seconds(1800))]

ROUNDS = 12
FOREVER = ["rounds=100000", "checkpoint.every=1"]


def experiment(folder: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((folder / "experiment.json").read_text("utf-8"))
    return tree


def told(folder: Path) -> list[list[Any]]:
    """Of each round and of the final model, what does not depend on how fast it went."""
    alike = ("round", "final", "test_accuracy_ratio", "payload_bytes_total")
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    return [[json.loads(line).get(key) for key in alike] for line in lines]


def test_two_pods_train_to_the_digest_and_the_accuracy_of_a_run_on_this_machine(pods: Pods) -> None:
    containers = pods.start([f"rounds={ROUNDS}"])
    assert pods.ends(containers) == [0, 0]
    here = pods.folder / "here"
    options = ["--ranks", str(RANKS), "--set", f"rounds={ROUNDS}", "--out", str(here)]
    done = subprocess.run(
        [*FEDCTL, "run", NAME, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert experiment(pods.folder_of_run) == experiment(here)  # and so the digest
    assert told(pods.folder_of_run) == told(here)
    messages = [json.loads(pods.message(name).read_text()) for name in containers]
    assert [(m["rank"], m["status"], m["exit"]) for m in messages] == [
        (0, "finished", 0),
        (1, "finished", 0),
    ]


def test_a_run_that_is_told_to_stop_saves_and_goes_on_from_there(pods: Pods) -> None:
    first = pods.start(FOREVER)
    pods.until(lambda: len(pods.rows()) >= 3, first)
    pods.stop(first[1])  # any rank: it tells the other
    assert pods.ends(first) == [143, 143]
    played = len(pods.rows())
    assert json.loads(pods.message(first[0]).read_text())["round"] == played

    second = pods.start(FOREVER)
    pods.until(lambda: len(pods.rows()) >= played + 3, second)
    pods.stop(second[0])
    assert pods.ends(second) == [143, 143]
    assert f"from round {played + 1}" in pods.engine("logs", second[0])
    assert [row["round"] for row in pods.rows()] == list(range(1, len(pods.rows()) + 1))


def test_a_rank_that_looks_for_the_others_ends_when_it_is_told_to(pods: Pods) -> None:
    """As process 1 it would not: the kernel drops a signal that process 1 does not handle."""
    (alone,) = pods.start(FOREVER, ranks=range(1, 2))
    pods.until(lambda: "rank 1 of 2" in pods.engine("logs", alone), [alone])
    pods.stop(alone)
    assert pods.ends([alone]) == [143]


def test_the_image_alone_is_the_trainer(engine: Engine) -> None:
    words = ["run", "--rm", "--read-only", "--network", "none", engine.image, "--help"]
    assert engine(*words).startswith("usage: trainer")


def test_a_setting_that_is_wrong_ends_in_exit_code_2(engine: Engine) -> None:
    words = ["run", "--read-only", "--network", "none", "--tmpfs", "/tmp", "--rm", engine.image]
    done = subprocess.run(
        [engine.program, *words, "/etc/hostname", "--out", "/tmp/run"],
        env=engine.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "not the JSON of an experiment" in done.stderr
