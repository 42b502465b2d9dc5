"""Checkpoints at a URL: ranks share no folder, damaged ones are passed over, bits are the same."""

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import checkpoint_jobs, jobs
from tests.objectstore import Server
from tests.ranks import ranks
from trainer import manifest
from trainer.config.errors import EnvironmentFault
from trainer.engine import checkpoint, state_file
from trainer.engine.mirror import Mirror
from trainer.engine.parts import RankState
from trainer.engine.round import run_round
from trainer.manifest import EXPERIMENT, METRICS
from trainer.storage.objects import Objects
from trainer.storage.remote import Remote

TREE = checkpoint_jobs.KEEPING
FLIPS = 30  # single bits, each of a fresh copy


def saved(place: Remote, rounds: int, **changes: Any) -> RankState:
    rank = jobs.experiment_run(TREE | changes)
    for number in range(1, rounds + 1):
        run_round(rank, number)
        rank.ledger.settle()
        checkpoint.save(rank, number, place)
    return rank


@pytest.fixture
def place(store: Server, name: str, tmp_path: Path) -> Remote:
    return Remote(Objects(store.url(name)), tmp_path / "scratch")


def resumed(place: Remote, **changes: Any) -> tuple[RankState, int]:
    rank = jobs.experiment_run(TREE | changes)
    return rank, checkpoint.restore(rank, place)[0]


def test_a_checkpoint_is_there_whole_and_nothing_stays_on_the_disk(
    store: Server, name: str, place: Remote
) -> None:
    before = saved(place, 3)
    assert place.numbers() == [3, 2, 1] and not place.scratch.exists()
    kept = store.files(f"{name}/checkpoints/round-000003")
    clients = [f"clients/{client}.safetensors" for client in range(4)]
    named = [manifest.MODEL, checkpoint.AGREED, manifest.NAME, "rank-0.safetensors"]
    assert sorted(kept) == sorted([*named, *clients])
    after, done = resumed(place)
    assert (done, after.notices) == (3, []) and not place.scratch.exists()
    differing: list[str] = []
    checkpoint_jobs.compare(
        checkpoint_jobs.everything(before), checkpoint_jobs.everything(after), "", differing
    )
    assert differing == []


def test_every_flipped_bit_and_every_cut_is_seen(store: Server, name: str, place: Remote) -> None:
    saved(place, 2)
    newest = store.files(f"{name}/checkpoints/round-000002")
    originals = {path: path.read_bytes() for path in newest.values()}
    for seed in range(FLIPS):
        draws = random.Random(seed)
        path = draws.choice(sorted(originals))
        content = bytearray(originals[path])
        how = draws.choice(["flip", "cut", "gone"]) if path.name != manifest.NAME else "flip"
        if how == "flip":
            content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        path.write_bytes(content[:-1] if how == "cut" else content)
        if how == "gone":
            path.unlink()
        rank, done = resumed(place)
        assert done == 1, (seed, path, how)
        (notice,) = rank.notices
        assert notice.startswith("checkpoint round-000002 is passed over: ") and path.name in notice
        assert place.numbers() == [1], "it is set aside"
        place.objects.delete(["checkpoints/round-000002/damaged-manifest.json"])
        for original, content_then in originals.items():
            original.write_bytes(content_then)
        assert place.numbers() == [2, 1]


def test_without_a_manifest_it_was_never_finished(store: Server, name: str, place: Remote) -> None:
    saved(place, 2)
    place.objects.delete([f"checkpoints/round-000002/{manifest.NAME}"])
    rank, done = resumed(place)
    assert (done, rank.notices) == (1, [])
    run_round(rank, 2)
    rank.ledger.settle()
    run_round(rank, 3)
    rank.ledger.settle()
    checkpoint.save(rank, 3, place)
    assert store.files(f"{name}/checkpoints/round-000002") == {}, "what is left of it goes"


def test_a_checkpoint_under_the_name_of_another_round_is_passed_over(
    store: Server, name: str, place: Remote
) -> None:
    saved(place, 2)
    for path, file in store.files(f"{name}/checkpoints/round-000002").items():
        place.objects.put(f"checkpoints/round-000005/{path}", file)
    rank, done = resumed(place)
    assert (done, place.numbers()) == (2, [2, 1])
    assert rank.notices == [
        "checkpoint round-000005 is passed over: its manifest.json is of round 2"
    ]


def test_an_upload_that_ends_midway_is_no_checkpoint(
    place: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank, put = saved(place, 1), Objects.put
    run_round(rank, 2)
    rank.ledger.settle()
    for last in range(8):  # of eight files before the manifest
        stored: list[str] = []

        def until(
            self: Objects, name: str, content: Any, stored: list[str] = stored, last: int = last
        ) -> None:
            if len(stored) >= last:
                raise EnvironmentFault("the pod was killed")
            stored.append(name)
            put(self, name, content)

        monkeypatch.setattr(Objects, "put", until)
        with pytest.raises(EnvironmentFault, match="killed"):
            checkpoint.save(rank, 2, place)
        monkeypatch.setattr(Objects, "put", put)
        assert place.numbers() == [1] and resumed(place)[1] == 1
    checkpoint.save(rank, 2, place)
    assert resumed(place)[1] == 2


def test_if_none_is_whole_nothing_is_trained(store: Server, name: str, place: Remote) -> None:
    saved(place, 2)
    for path in store.files(name).values():
        if path.name == manifest.MODEL:
            path.unlink()
    url = store.url(name)
    with pytest.raises(EnvironmentFault, match=rf"^no checkpoint in {url}/checkpoints can be used"):
        resumed(place)
    assert place.numbers() == [2, 1]


def test_an_unreachable_store_is_no_damage(place: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(place, 2)

    def lost(*_: object) -> None:
        raise EnvironmentFault("the network is gone")

    with monkeypatch.context() as patched:
        patched.setattr(Objects, "fetch", lost)
        with pytest.raises(EnvironmentFault, match="the network is gone"):
            resumed(place)
    assert place.numbers() == [2, 1]


def test_a_full_disk_leaves_no_scratch(place: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    rank = saved(place, 1)

    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(state_file, "write", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(rank, 2, place)
    assert not place.scratch.exists() and place.numbers() == [1]


def test_what_is_stored_is_listed_once_for_a_checkpoint(
    place: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank, names, listed = saved(place, 3), Objects.names, []

    def note(self: Objects, below: str = "") -> dict[str, int]:
        listed.append(below)
        return names(self, below)

    monkeypatch.setattr(Objects, "names", note)
    checkpoint.save(rank, 4, place)
    assert listed.count(manifest.FOLDER) == 1
    assert sorted(set(listed)) == [
        manifest.FOLDER,
        *(f"checkpoints/round-00000{n}" for n in (1, 4)),
    ]


def test_an_old_checkpoint_that_stays_does_not_fail_the_run(
    place: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = saved(place, 3)

    def denied(*_: object) -> None:
        raise EnvironmentFault("access is denied")

    monkeypatch.setattr(Objects, "delete", denied)
    monkeypatch.setattr(Remote, "begin", lambda *_: None)
    checkpoint.save(rank, 4, place)
    assert place.numbers()[0] == 4


def test_a_run_that_has_finished_is_known_without_its_model(
    place: Remote, tmp_path: Path, store: Server, name: str
) -> None:
    mirror = Mirror(tmp_path / "out", 1, store.url(name))
    (tmp_path / "out").mkdir()
    for name_there in (EXPERIMENT, METRICS):
        place.objects.put(name_there, b"{}")
    mirror.bring()
    assert not mirror.has_model()
    place.objects.put(manifest.MODEL, b"large")
    mirror.bring()
    assert mirror.has_model()
    assert sorted(path.name for path in mirror.out.iterdir()) == [EXPERIMENT, METRICS]


def test_older_ones_go_and_the_ends_of_phases_stay(place: Remote) -> None:
    phases = [{"rounds": 2, "steps": 1}, {"rounds": 3, "steps": 1}, {"steps": 1}]
    saved(place, 8, checkpoint={"keep": 1}, schedule={"phases": phases})
    assert place.numbers() == [8, 5, 2]
    place.forget()
    assert place.objects.names() == {}


def test_a_manifest_names_no_files_elsewhere(place: Remote) -> None:
    with pytest.raises(manifest.Damaged, match="outside of the checkpoint"):
        place.bring(1, ["clients/1.safetensors/../../../../other"])


@pytest.mark.parametrize("before,after", [(2, 2), (2, 1), (1, 2), (3, 2)])
def test_on_any_number_of_ranks(
    store: Server, name: str, tmp_path: Path, before: int, after: int
) -> None:
    """Each rank has a folder of its own; what differs from a run that shares one, bit by bit."""
    tree = TREE | {"participation": 0.75}
    there = (store.url(name), store.environment)
    first, later = str(tmp_path / "first"), str(tmp_path / "later")
    kept = ranks(before).run(saved_apart, tree, 3, *there, first)
    resumed = ranks(after).run(resumed_apart, tree, 2, *there, later)
    shared = tmp_path / "shared"
    ranks(before).run(checkpoint_jobs.saved_after, tree, 3, str(shared))
    expected = ranks(after).run(checkpoint_jobs.resumed_for, tree, 2, str(shared))
    for other, wanted in zip(resumed, expected, strict=True):
        assert other["done"] == 3 and (other["end"] == wanted["end"]).all()
        assert (other["anchor"] == kept[0]["anchor"]).all()
        assert other["payload"] == kept[0]["payload"]
        assert other["clients"] == wanted["clients"]
    if before == 2:
        told = [one["control"] for one in kept]
        assert told[1] > told[0] > 0, "rank 1 sends its table to rank 0"
    assert not any(path.is_file() for path in [*Path(first).rglob("*"), *Path(later).rglob("*")])


def of_rank(rank: RankState, url: str, environment: dict[str, str], folder: str) -> Remote:
    os.environ |= environment
    return Remote(Objects(url), Path(folder) / f"rank-{rank.parts.world.rank}")


def saved_apart(
    tree: dict[str, Any], rounds: int, url: str, environment: dict[str, str], folder: str
) -> dict[str, Any]:
    rank = jobs.experiment_run(tree)
    for number in range(1, rounds + 1):
        run_round(rank, number)
        rank.ledger.settle()
    books = rank.parts.group.books
    before = books.wire["control"]
    checkpoint.save(rank, rounds, of_rank(rank, url, environment, folder))
    return checkpoint_jobs.of_all(rank) | {"control": books.wire["control"] - before}


def resumed_apart(
    tree: dict[str, Any], rounds: int, url: str, environment: dict[str, str], folder: str
) -> dict[str, Any]:
    rank = jobs.experiment_run(tree)
    done, _ = checkpoint.restore(rank, of_rank(rank, url, environment, folder))
    rank.ledger.settle()
    found = checkpoint_jobs.of_all(rank) | {"done": done, "clients": rank.store.clients}
    for number in range(done + 1, done + rounds + 1):
        run_round(rank, number)
    assert torch.isfinite(rank.server.anchor).all()
    return found | {"end": rank.server.anchor.numpy().copy()}
