"""Checkpoints, metrics and data are damaged, lost or changed, and two want the same folder."""

import shutil
import signal
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedctl.report import runs
from tests.faults.conftest import ROUNDS
from tests.faults.lines import fits
from tests.faults.scene import Scene, bits, fault, until
from tests.faults.table import Fault
from tests.fedctl.processes import ended
from trainer import manifest


@pytest.fixture(scope="session")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose run was killed between checkpoints; every test has a copy."""
    from tests.fedctl.processes import starting_in

    folder = tmp_path_factory.mktemp("stopped")
    with starting_in(folder) as start:
        scene = Scene(start, folder)
        process = scene.run(rounds=ROUNDS)
        scene.reach(7)
        for rank in (0, 1):
            scene.signal(rank, signal.SIGKILL)
        ended(process)
        assert len(manifest.found(scene.out / manifest.FOLDER)) == 2
        return scene.out


@pytest.fixture
def stopped(stopped_once: Path, scene: Scene) -> Scene:
    shutil.copytree(stopped_once, scene.out)
    return scene


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


HARM = {"flipped": flip, "cut": cut, "missing": Path.unlink}
# one of each kind: what all ranks read, a rank's own, the manifest
FILES = ["model.safetensors", "agreed.safetensors", "rank-1.safetensors", "manifest.json"]


def newest(scene: Scene) -> Path:
    return manifest.found(scene.out / manifest.FOLDER)[0]


@fault("checkpoint-damaged")
@pytest.mark.parametrize(
    "name,how",
    # a folder without a manifest was never a checkpoint
    [pair for pair in product(FILES, HARM) if pair != ("manifest.json", "missing")],
)
def test_a_damaged_checkpoint_is_told_and_passed_over(
    stopped: Scene, fault: Fault, how: str, name: str, undisturbed: Any
) -> None:
    passed = newest(stopped)
    HARM[how](passed / name)
    stdout = stopped.shows(fault, stopped.resume())
    assert f"checkpoint {passed.name} is passed over: " in stdout
    assert bits(stopped.out) == undisturbed


@fault("metrics-cut")
def test_rows_that_are_lost(stopped: Scene, fault: Fault, undisturbed: Any) -> None:
    metrics = stopped.out / runs.METRICS
    lines = metrics.read_bytes().splitlines(keepends=True)
    older = manifest.found(stopped.out / manifest.FOLDER)[1]
    metrics.write_bytes(b"".join(lines[: manifest.number_of(older) + 1]))
    stopped.shows(fault, stopped.resume())
    assert bits(stopped.out) == undisturbed


@fault("checkpoints-damaged")
def test_if_no_checkpoint_is_whole(stopped: Scene, fault: Fault, undisturbed: Any) -> None:
    places = [path / "agreed.safetensors" for path in manifest.found(newest(stopped).parent)]
    contents = [place.read_bytes() for place in places]
    for place in places:
        flip(place)
    stopped.shows(fault, stopped.resume())
    places[1].write_bytes(contents[1])  # a person restores what the line says
    stopped.finishes()
    assert bits(stopped.out) == undisturbed


def both(scene: Scene, start: Callable[[], Any], fault: Fault) -> Any:
    """Start two at one moment: one is refused as the table says; return the other."""
    two = [start(), start()]
    until(lambda: any(process.poll() is not None for process in two), 90)
    loser, winner = sorted(two, key=lambda process: process.poll() is None)
    code, stdout, stderr = ended(loser)
    assert code == fault.code and stderr.count("\n") == 1 and "Traceback" not in stdout, stderr
    assert any(fits(line, stderr.rstrip("\n")) for line in fault.all_seen), stderr
    return winner


@fault("two-resumes")
def test_two_resumes(stopped: Scene, fault: Fault, undisturbed: Any) -> None:
    code, _, stderr = ended(both(stopped, stopped.resume, fault))
    assert code == 0, stderr
    assert bits(stopped.out) == undisturbed


@fault("two-runs", quick=True)
def test_two_new_runs_in_one_folder(scene: Scene, fault: Fault, undisturbed: Any) -> None:
    code, _, stderr = ended(both(scene, lambda: scene.run(rounds=ROUNDS), fault))
    assert code == 0, stderr
    assert bits(scene.out) == undisturbed


@pytest.fixture
def with_data(scene: Scene) -> Scene:
    """A stopped run on a file of its own."""
    images = np.random.default_rng(0).integers(0, 255, (64, 8, 8), dtype=np.uint8)
    labels = np.arange(64) % 4
    np.savez(
        scene.folder / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels
    )
    process = scene.run("data.name=npz", "data.path=data.npz", "model.name=softmax")
    scene.reach(4)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 130
    return scene


@fault("data-gone")
def test_data_that_is_gone(with_data: Scene, fault: Fault) -> None:
    path = with_data.folder / "data.npz"
    path.rename(with_data.folder / "elsewhere.npz")
    with_data.shows(fault, with_data.resume())
    assert runs.checkpoint_round(with_data.out) >= 3
    with_data.finishes("--set", f"data.path={path.with_name('elsewhere.npz')}", *less(with_data))


@fault("data-changed")
def test_data_that_is_another(with_data: Scene, fault: Fault) -> None:
    path = with_data.folder / "data.npz"
    arrays = dict(np.load(path))
    arrays["x_train"][5, 3, 3] ^= 1  # a single bit of a sample
    np.savez(path, **arrays)
    with_data.shows(fault, with_data.resume())
    with_data.finishes("--allow-changed", "data", *less(with_data))


def less(scene: Scene) -> list[str]:
    """So many rounds that the run is soon over."""
    return ["--set", f"rounds={runs.checkpoint_round(scene.out) + 2}"]
