"""Checkpoints when the disk, another rank or the manifest is not what it should be."""

import errno
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import checkpoint_jobs, jobs
from trainer import manifest
from trainer.config.errors import EnvironmentFault
from trainer.config.load import load
from trainer.engine import checkpoint, state_file
from trainer.engine.parts import RankState
from trainer.exchange.group import PeerLost
from trainer.storage import folder as folders
from trainer.storage.folder import Folder
from trainer.storage.place import CLIENTS

TREE = checkpoint_jobs.KEEPING | {"checkpoint": {"keep": 1}}


@pytest.fixture
def rank() -> RankState:
    return jobs.experiment_run(TREE)


def failing(code: int) -> Any:
    def fail(path: Any, *_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), str(path))

    return fail


def test_an_old_checkpoint_that_stays_does_not_fail_the_run(
    rank: RankState,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On NFS, a folder with a file that is open somewhere cannot be removed."""
    checkpoint.save(rank, 1, Folder(tmp_path))
    real = shutil.rmtree

    def busy(path: Path, ignore_errors: bool = False) -> None:
        if path.name == "partial":
            real(path, ignore_errors=ignore_errors)
        elif not ignore_errors:
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    monkeypatch.setattr(folders.shutil, "rmtree", busy)
    with caplog.at_level(logging.WARNING, logger="fedctl"):
        checkpoint.save(rank, 2, Folder(tmp_path))
    assert f"{tmp_path}/round-000001 was not deleted: Directory not empty" in caplog.text
    assert Folder(tmp_path).numbers() == [2], "its manifest went first"


def test_of_an_old_checkpoint_that_is_a_link_only_the_link_goes(
    rank: RankState, tmp_path: Path
) -> None:
    place, kept = Folder(tmp_path / "checkpoints"), tmp_path / "archive"
    checkpoint.save(rank, 1, place)
    for forget in (lambda: checkpoint.save(rank, 2, place), place.forget):
        (newest,) = place.numbers()
        place.opened(newest).rename(kept)
        place.opened(newest).symlink_to(kept)
        forget()
        assert newest not in place.numbers() and (kept / manifest.NAME).exists()
        shutil.rmtree(kept)


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_names_of_ours_are_replaced_whatever_stands_there(
    rank: RankState, tmp_path: Path, make: Any
) -> None:
    place = Folder(tmp_path)
    for name in ("partial", "damaged-round-000002", "round-000002"):
        make(tmp_path / name)
    checkpoint.save(rank, 2, place)
    assert place.numbers() == [2] and not place.partial.exists()
    checkpoint.save(rank, 3, place)
    (place.opened(3) / manifest.MODEL).unlink()
    make(tmp_path / "damaged-round-000003")
    checkpoint.save(jobs.experiment_run(TREE | {"checkpoint": {"keep": 3}}), 1, place)
    assert checkpoint.restore(rank, place)[0] == 1
    assert (tmp_path / "damaged-round-000003").is_dir()


def test_a_damaged_checkpoint_that_stays_is_passed_over_again(
    rank: RankState,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = Folder(tmp_path)
    several = jobs.experiment_run(TREE | {"checkpoint": {"keep": 3}})
    checkpoint.save(several, 1, place)
    checkpoint.save(several, 2, place)
    (place.opened(2) / manifest.MODEL).unlink()
    monkeypatch.setattr(Path, "rename", failing(errno.EACCES))
    for _ in range(2):
        assert checkpoint.restore(rank, place)[0] == 1
    assert f"{tmp_path}/round-000002 was not renamed: Permission denied" in caplog.text


def test_an_earlier_run_is_forgotten_although_its_files_stay(
    rank: RankState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(rank, 50, Folder(tmp_path))
    monkeypatch.setattr(folders.shutil, "rmtree", lambda *_, **__: None)
    Folder(tmp_path).forget()
    assert Folder(tmp_path).numbers() == []


def test_an_earlier_run_that_stays_is_told(
    rank: RankState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(rank, 50, Folder(tmp_path))
    monkeypatch.setattr(Path, "unlink", failing(errno.EACCES))
    with pytest.raises(PermissionError):
        Folder(tmp_path).forget()


def test_another_rank_that_is_lost_leaves_no_scratch(
    rank: RankState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have failed for want of room, which what is written about it needs."""

    def lost(*_: object) -> None:
        raise PeerLost("lost another rank")

    monkeypatch.setattr(checkpoint, "_tables", lost)
    with pytest.raises(PeerLost):
        checkpoint.save(rank, 1, Folder(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("removed", ["partial", "partial/clients", ""])
def test_a_folder_that_rank_0_has_removed_means_that_rank_0_failed(
    rank: RankState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: str
) -> None:
    """The first to fail names the cause; only the whole run folder is removed by a person."""
    place, write = Folder(tmp_path / "checkpoints"), state_file.write
    (place.partial / CLIENTS).mkdir(parents=True)
    rank.parts.group.rank = 1

    def late(path: Path, state: Any) -> None:
        shutil.rmtree(place.path / removed)
        write(path.parent / CLIENTS / path.name, state)

    monkeypatch.setattr(state_file, "write", late)
    with pytest.raises(PeerLost if removed else FileNotFoundError):
        checkpoint.save(rank, 1, place)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize("part", [manifest.MODEL, manifest.NAME, "metrics.jsonl"])
def test_what_cannot_be_read_at_the_moment_is_no_damage(
    rank: RankState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, part: str
) -> None:
    place, metrics = Folder(tmp_path / "checkpoints"), tmp_path / "metrics.jsonl"
    metrics.write_text("")
    checkpoint.save(rank, 1, place, manifest.seal(metrics))
    real = Path.open

    def open_file(path: Path, *args: Any, **more: Any) -> Any:
        if path.name == part:
            failing(code)(path)
        return real(path, *args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", open_file)
        with pytest.raises(EnvironmentFault, match=f"{part}: cannot be read at the moment .*; try"):
            checkpoint.restore(rank, place, metrics)
    assert checkpoint.restore(rank, place, metrics)[0] == 1, "nothing was set aside"


def test_a_folder_that_cannot_be_listed_is_not_one_without_checkpoints(
    rank: RankState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(rank, 1, Folder(tmp_path))
    monkeypatch.setattr(os, "listdir", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        checkpoint.restore(rank, Folder(tmp_path))


def test_a_model_that_cannot_be_read_at_the_moment_is_no_lack_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / manifest.MODEL).touch()
    monkeypatch.setattr(manifest, "open_regular", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        manifest.whole_model(tmp_path / manifest.MODEL)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    os.mkfifo(path)
    assert not manifest.whole_model(path)
    with pytest.raises(manifest.Damaged, match=r"metrics\.jsonl is not a file"):
        manifest.begins_with(path, manifest.Seal(0, ""))
    with pytest.raises(manifest.Damaged, match=r"metrics\.jsonl is not a file"):
        manifest.check(path, manifest.Seal(0, ""))


def test_if_only_rows_are_lost_the_line_names_what_allows_it(
    rank: RankState, tmp_path: Path
) -> None:
    place, metrics = Folder(tmp_path / "checkpoints"), tmp_path / "metrics.jsonl"
    metrics.write_text("{}\n")
    checkpoint.save(rank, 1, place, manifest.seal(metrics))
    metrics.write_text("")
    with pytest.raises(EnvironmentFault, match=r"\(--allow-changed metrics\), or start a new run$"):
        checkpoint.restore(rank, place, metrics)
    assert checkpoint.restore(rank, place, metrics, ("metrics",))[0] == 1


def test_what_was_resumed_from_is_not_held_by_the_run(tmp_path: Path) -> None:
    """A mapped file keeps its room when it is deleted, and on NFS its reader is killed."""
    path = tmp_path / "state"
    state_file.write(path, {"tensor": torch.arange(9000.0)})
    kept = state_file.read(path, torch.device("cpu"))
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert kept["tensor"].sum() == torch.arange(9000.0).sum()


def signed(place: Folder, number: int, **changes: Any) -> None:
    """Change a manifest, and sign it again."""
    path = place.opened(number) / manifest.NAME
    values = json.loads(path.read_text().splitlines()[0])
    values["files"] |= changes.pop("files", {})
    line = json.dumps(values | changes)
    path.write_text(f"{line}\n{hashlib.sha256(line.encode()).hexdigest()}\n")


@pytest.mark.parametrize(
    "changes", [{"ranks": 10**9}, {"ranks": 0}, {"round": 10**12}, {"ranks": 10_001}]
)
def test_numbers_of_a_manifest_are_bounded(
    rank: RankState, tmp_path: Path, changes: dict[str, int]
) -> None:
    place = Folder(tmp_path)
    checkpoint.save(rank, 1, place)
    signed(place, 1, **changes)
    with pytest.raises(manifest.Damaged, match="is damaged"):
        manifest.read(place.opened(1))


@pytest.mark.parametrize("name", ["²", "1/../2", "٣", "9" * 5000])
def test_names_of_records_that_are_none_are_left_alone(
    rank: RankState, tmp_path: Path, name: str
) -> None:
    place = Folder(tmp_path)
    checkpoint.save(rank, 1, place)
    signed(place, 1, files={f"clients/{name}.safetensors": {"bytes": 1, "sha256": ""}})
    assert checkpoint.restore(rank, place)[0] == 1


@pytest.mark.parametrize("name", [1, 6])
def test_a_checkpoint_under_the_name_of_another_round_is_passed_over(
    rank: RankState, tmp_path: Path, name: int
) -> None:
    place = Folder(tmp_path)
    checkpoint.save(rank, 4, place)
    place.opened(4).rename(place.opened(name))
    with pytest.raises(EnvironmentFault, match=r"is passed over: its manifest.json is of round 4"):
        checkpoint.restore(rank, place)


def test_a_folder_of_a_round_has_digits_in_its_name() -> None:
    assert manifest.number_of(Path("round-²")) == manifest.number_of(Path("round-٣")) == -1


def test_bounds_are_those_of_an_experiment() -> None:
    most = {"rounds": manifest.MOST_ROUNDS, "ranks": manifest.MOST_RANKS, "clients": 10**6}
    load(most)
    for key, value in most.items():
        with pytest.raises(ValueError, match=f"^{key}: "):
            load(most | {key: value + 1})


def test_the_entry_of_the_first_checkpoint_is_on_the_disk(
    rank: RankState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(folders, "sync_folder", synced.append)
    checkpoint.save(rank, 1, Folder(tmp_path / "checkpoints"))
    assert synced[0] == tmp_path and synced[-1] == tmp_path / "checkpoints"
