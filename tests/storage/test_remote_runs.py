"""Runs kept at a URL: real processes, a folder for each rank, killed and started elsewhere."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests import patience
from tests.engine.test_resume import EVERYTHING, TIMES, Group, free_port
from tests.objectstore import Server, server
from tests.starts import Rank
from trainer import manifest
from trainer.config.load import load
from trainer.storage.objects import Objects

TREE = EVERYTHING | {"rounds": 20, "checkpoint": {"every": 1, "keep": 2}}


class Pods:
    """The ranks of a run at a URL, each with a folder that no other has, as pods would be."""

    def __init__(
        self, folder: Path, url: str, tree: dict[str, Any], *more: str, **env: str
    ) -> None:
        experiment, _ = load(tree)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "given.json").write_text(experiment.canonical())
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        group |= {"WORLD_SIZE": str(experiment.ranks), "FEDCTL_RUN_URL": url, **env}
        self.folder, self.ranks = folder, []
        self.said = folder / "output"
        for rank in range(experiment.ranks):
            words = [str(folder / "given.json"), "--out", str(folder / f"pod-{rank}")]
            words += more or ("--resume=auto",)
            self.ranks.append(Rank(words, group | {"RANK": str(rank)}, self.said))

    def wait(self) -> list[int]:
        return [process.wait(patience.seconds(90)) for process in self.ranks]

    def finish(self) -> None:
        assert set(self.wait()) == {0}, self.said.read_text()

    def kill(self) -> None:
        for process in self.ranks:
            process.kill()
            process.wait()

    def termination(self) -> dict[str, Any]:
        return json.loads((self.folder / "pod-0" / "logs" / "rank-0.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in a folder, never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    Group(out, TREE).finish()
    return out


def rows(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES and "wire" not in k} for row in found]


def finished(url: str, folder: Path) -> Path:
    """What is at the URL, as a run folder."""
    kept = Objects(url)
    for name in kept.names():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        kept.fetch(name, folder / name)
    return folder


def same(url: str, whole: Path, tmp_path: Path) -> None:
    """The run at the URL ended as the one in the folder did, and is complete."""
    copied = finished(url, tmp_path / "copied")
    model, wanted = load_file(copied / manifest.MODEL), load_file(whole / manifest.MODEL)
    assert model.keys() == wanted.keys() and all((model[k] == wanted[k]).all() for k in model)
    assert rows((copied / "metrics.jsonl").read_text()) == rows(
        (whole / "metrics.jsonl").read_text()
    )
    assert (copied / "experiment.json").read_text() == (whole / "experiment.json").read_text()
    for rank in range(2):
        assert json.loads((copied / f"logs/rank-{rank}.json").read_text())["status"] == "finished"
        assert "rank" in (copied / f"logs/rank-{rank}.log").read_text()
    checkpoints = manifest.found(copied / manifest.FOLDER)
    assert [path.name for path in checkpoints] == ["round-000020", "round-000019"]
    for name, seal in manifest.read(checkpoints[0]).files.items():
        manifest.check(checkpoints[0] / name, seal, name)


@pytest.mark.slow  # six starts; test_remote.py ends an upload after each of its files
def test_killed_at_any_moment_and_started_elsewhere(
    store: Server, name: str, tmp_path: Path, whole: Path
) -> None:
    """It saves after each round, so most moments are within an upload."""
    draws, url, kept = random.Random(1), store.url(name), Objects(store.url(name))
    for life in range(4):
        pods = Pods(tmp_path / f"life-{life}", url, TREE)
        before = set(kept.names(manifest.FOLDER))
        until = time.monotonic() + patience.seconds(60)
        while not set(kept.names(manifest.FOLDER)) - before and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(draws.uniform(0, 0.4))
        pods.kill()
        shutil.rmtree(tmp_path / f"life-{life}")  # the volumes of pods go with them
    pods = Pods(tmp_path / "last", url, TREE)
    pods.finish()
    assert "from round 1\n" not in pods.said.read_text(), "it resumed"
    same(url, whole, tmp_path)
    again = Pods(tmp_path / "again", url, TREE)
    again.finish()
    assert f"{url} has already finished" in again.said.read_text()
    assert again.termination()["final"] == pods.termination()["final"]


def test_stopped_and_started_elsewhere(
    store: Server, name: str, tmp_path: Path, whole: Path
) -> None:
    url = store.url(name)
    tree = TREE | {"checkpoint": {"keep": 2}}
    pods = Pods(tmp_path / "first", url, tree)
    until = time.monotonic() + patience.seconds(60)
    metrics = tmp_path / "first" / "pod-0" / "metrics.jsonl"
    while not metrics.exists() or not metrics.read_text():
        assert time.monotonic() < until, pods.said.read_text()
        time.sleep(0.02)
    pods.ranks[1].send_signal(signal.SIGTERM)
    assert set(pods.wait()) == {143}
    record = Objects(url).read("logs/rank-1.json")
    assert record and json.loads(record)["status"] == "stopped"
    Pods(tmp_path / "second", url, TREE).finish()
    model, wanted = (
        load_file(folder / manifest.MODEL) for folder in (finished(url, tmp_path / "copied"), whole)
    )
    assert all((model[key] == wanted[key]).all() for key in wanted)


@pytest.mark.slow  # three starts, and the patience of the client
def test_a_store_that_goes_away_fails_the_run_which_goes_on_when_it_is_back(
    tmp_path: Path, whole: Path
) -> None:
    with server(tmp_path / "store", free_port()) as store:
        os.environ |= store.environment  # as the fixture does, which gives them back at the end
        url = store.url("mine")
        kept, pods = Objects(url), Pods(tmp_path / "first", url, TREE)
        until = time.monotonic() + patience.seconds(60)
        while not kept.names(manifest.FOLDER):
            assert time.monotonic() < until, pods.said.read_text()
            time.sleep(0.02)
        store.stop()
        assert pods.wait() == [1, 1]
        said = pods.said.read_text()
        assert f"{url}: the store cannot be used" in said and "Traceback" not in said
        store.start()
        Pods(tmp_path / "second", url, TREE).finish()
        same(url, whole, tmp_path)


@pytest.mark.slow
def test_a_url_belongs_to_one_experiment_and_is_not_overwritten(
    store: Server, name: str, tmp_path: Path
) -> None:
    url = store.url(name)
    small = {"rounds": 1, "ranks": 1, "clients": 2}
    Pods(tmp_path / "first", url, small).finish()
    other = Pods(tmp_path / "other", url, small | {"seed": 2})
    anew = Pods(tmp_path / "anew", url, small, "--allow-changed=seed")
    assert other.wait() == anew.wait() == [2]
    assert f"{url} belongs to another experiment: seed is 1 there" in other.said.read_text()
    assert f"FEDCTL_RUN_URL: {url} has a run already; resume that" in anew.said.read_text()
    Pods(tmp_path / "more", url, small | {"rounds": 2}, "--resume").finish()
    assert [row["round"] for row in rows((Objects(url).read("metrics.jsonl") or b"").decode())] == [
        1, 2, 2
    ]  # fmt: skip


def test_a_store_that_cannot_be_used_is_one_line(store: Server, name: str, tmp_path: Path) -> None:
    small, url = {"rounds": 1, "ranks": 1, "clients": 2}, store.url(name)
    cases: list[tuple[str, dict[str, str], int, str]] = [
        ("s3://nowhere/x", {}, 2, "FEDCTL_RUN_URL: s3://nowhere/x: there is no bucket nowhere"),
        (url, {"AWS_SECRET_ACCESS_KEY": "no"}, 2, f"FEDCTL_RUN_URL: {url}: access is denied"),
        (url, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, 1, f"{url}: the store cannot be used"),
        ("/runs/mine", {}, 2, "FEDCTL_RUN_URL: is not s3://BUCKET/PATH"),
    ]
    started = [
        Pods(tmp_path / str(at), at_url, small, **env)
        for at, (at_url, env, _, _) in enumerate(cases)
    ]
    for pods, (_, _, code, told) in zip(started, cases, strict=True):
        assert pods.wait() == [code]
        assert str(pods.termination()["message"]).startswith(told)
        assert "Traceback" not in pods.said.read_text()
        assert store.environment["AWS_SECRET_ACCESS_KEY"] not in pods.said.read_text()
