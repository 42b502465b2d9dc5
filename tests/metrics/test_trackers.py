"""Trackers: what the real libraries wrote offline is read back; broken ones cost a line each."""

import json
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import patience
from tests.metrics import offline
from trainer.config.errors import ConfigError, install
from trainer.config.load import load
from trainer.metrics import sink, trackers
from trainer.metrics.catalog import Row
from trainer.metrics.recorder import Recorder

ROUNDS = list(range(1, 8))
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The folder of a run with all trackers, without a network, and what its process tells."""
    out = tmp_path_factory.mktemp("run")
    home = tmp_path_factory.mktemp("home")
    script = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.metrics.offline", str(out)],
        env=os.environ | {"HOME": str(home), "PYTHONPATH": str(ROOT)},
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert script.returncode == 0, script.stderr
    return out, home, json.loads(script.stdout.splitlines()[-1]), script.stderr


def settings() -> dict[str, object]:
    experiment, _ = load(offline.TREE)
    return trackers.Scope(experiment, Path(), 0).settings()


@pytest.mark.slow
def test_offline_trackers_do_without_a_network_and_leave_nothing_outside_the_run_folder(played):
    out, home, told, errors = played
    assert told == {"refused": True, "reached": [], "lines": []}
    assert errors == ""
    assert list(home.iterdir()) == []
    ours = [p for p in Path("/proc").glob("[0-9]*/environ") if f"{out}".encode() in _read(p)]
    assert ours == []  # W&B's service ended with the process that started it


@pytest.mark.slow
def test_tensorboard_has_each_round_once_after_a_resumption(played):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(played[0] / "trackers" / "tensorboard")).Reload()
    for name in ("round", "test_loss", "payload_bytes_total/values"):
        assert [event.step for event in events.Scalars(name)] == ROUNDS
    assert [event.value for event in events.Scalars("payload_bytes_total/values")][-1] == 70
    assert [event.step for event in events.Scalars("final/test_loss")] == [7]
    assert "train_loss" not in events.Tags()["scalars"]
    told = [event.tensor_proto.string_val for event in events.Tensors("status/text_summary")]
    assert told[-1] == [b"finished"]
    start = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    hparams = HParamsPluginData.FromString(start).session_start_info.hparams
    assert hparams.keys() == settings().keys()
    assert hparams["digest"].string_value == settings()["digest"]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # of a process that has just ended
        return b""


def wandb_records(path: Path) -> list[object]:
    """The records of a .wandb file: LevelDB's log format behind seven bytes of W&B's."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, block, whole, records = path.read_bytes(), 7, 32768, b"", []
    while place < len(data):
        if block - place % block < 7:  # too short for another header
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(whole))
            whole = b""
    return records


def by_name(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.mark.slow
def test_wandb_has_one_run_with_each_round_once_after_a_resumption(played):
    (folder,) = (played[0] / "trackers" / "wandb").glob("offline-run-*")
    (path,) = folder.glob("*.wandb")
    records = wandb_records(path)
    (run,) = (r.run for r in records if r.HasField("run"))
    assert run.run_id == (played[0] / "trackers" / "wandb.id").read_text()
    assert run.run_id.startswith(f"{settings()['digest']}-")
    assert (run.display_name, run.project) == ("demo", "tests")
    assert settings().items() <= by_name(run.config.update).items()
    assert not run.host

    rows = [by_name(r.history.item) for r in records if r.HasField("history")]
    assert [row["_step"] for row in rows] == [row["round"] for row in rows] == ROUNDS
    assert [row["payload_bytes_total/values"] for row in rows][-1] == 70
    summary = {}
    for record in records:
        summary |= by_name(record.summary.update)
    assert summary["status"] == "finished"
    assert summary["final/test_loss"] == 1 / 2**7
    (model,) = (r.artifact for r in records if r.HasField("artifact"))
    assert (model.type, model.name) == ("model", "demo-model")
    assert model.manifest.contents[0].local_path == str(played[0] / "model.safetensors")


@pytest.mark.slow
def test_mlflow_has_one_run_with_each_round_once_after_a_resumption(played):
    folder = played[0] / "trackers" / "mlflow"
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:

        def read(query: str) -> list[Any]:
            return store.execute(query).fetchall()

        runs = read("select run_uuid, runs.name, status, experiments.name from runs, experiments "
                    "where runs.experiment_id = experiments.experiment_id")  # fmt: skip
        run_id = (played[0] / "trackers" / "mlflow.id").read_text()
        assert runs == [(run_id, "demo", "FINISHED", "tests")]
        assert dict(read("select key, value from params")) == {
            key: str(value) for key, value in settings().items()
        }
        tags = dict(read("select key, value from tags"))
        assert (tags["digest"], tags["status"]) == (settings()["digest"], "finished")
        rows = read("select step, value from metrics where key = 'payload_bytes_total/values'")
        assert sorted(rows) == [(number, 10 * number) for number in ROUNDS]
        assert read("select step, value from metrics where key = 'final/test_loss'") == [(7, 2**-7)]
        assert read("select * from metrics where key like '%train_loss'") == []
    (model,) = folder.glob("artifacts/*/artifacts/model.safetensors")
    assert model.read_bytes() == b"the model"


def test_a_row_is_flat_and_the_final_models_has_names_of_its_own():
    row = {"round": 7, "loss": None, "nan": float("nan"), "bytes": {"values": 3, "votes": None}}
    assert sink.point(row) == (7, False, {"round": 7, "bytes/values": 3})  # as when it is read back
    assert sink.point(row | {"nan": 1.5}) == (7, False, {"round": 7, "nan": 1.5, "bytes/values": 3})
    final = sink.point(row | {"nan": 1.5, "final": True})
    assert final == (7, True, {"final/round": 7, "final/nan": 1.5, "final/bytes/values": 3})
    assert final.place == 8


class Memory:
    """A tracker that has the places up to `has`, and keeps what else it is given."""

    remote = False

    def __init__(self, has: int) -> None:
        self.has, self.steps, self.status = has, [], ""

    def open(self):
        return self.has

    def write(self, points):
        self.steps += [point.step for point in points]

    def close(self, status):
        self.status = status


@pytest.mark.parametrize("has", [-1, 2, 5])
def test_a_resumed_tracker_gets_what_it_misses_and_nothing_twice(has):
    memory = Memory(has)
    tracker = sink.Sink("metrics.memory", lambda: memory, [{"round": n} for n in range(4)])
    for number in (4, 5, 6):
        tracker.put({"round": number})
    tracker.end("stopped")
    tracker.wait(time.monotonic() + patience.seconds(30))
    assert memory.steps == [n for n in range(7) if n > has]
    assert memory.status == "stopped"


def recorded(out: Path, metrics: dict[str, object]) -> list[int]:
    """Record three rounds with these settings of metrics; what metrics.jsonl has of them."""
    experiment, _ = load({"metrics": metrics})
    recorder = Recorder(out, {}, 0, experiment)
    for number in (1, 2, 3):
        recorder.record(Row(round=number), Row(round=number))
    recorder.close("finished")
    return [json.loads(row)["round"] for row in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path, caplog):
    (tmp_path / "trackers").mkdir()
    (tmp_path / "trackers" / "tensorboard").write_text("a file")
    assert recorded(tmp_path, {"tensorboard": True}) == [1, 2, 3]
    (line,) = caplog.messages
    assert line.startswith("metrics.tensorboard: the run continues without it: FileExistsError: ")


def test_a_server_that_is_not_there_costs_one_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert recorded(tmp_path, {"mlflow": {"enabled": True, "uri": uri}}) == [1, 2, 3]
    (line,) = caplog.messages
    assert line.startswith("metrics.mlflow: the run continues without it: ")
    assert "\n" not in line


def test_a_server_that_never_answers_is_given_up_at_the_end(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setitem(sink.CLOSE_SECONDS, "finished", 0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert recorded(tmp_path, {"mlflow": {"enabled": True, "uri": uri}}) == [1, 2, 3]
        assert caplog.messages == [
            "metrics.mlflow: did not receive all in time; metrics.jsonl has the rest"
        ]
    for thread in threading.enumerate():  # the closed socket ends it
        if thread.name == "metrics.mlflow":
            thread.join()


def test_wandb_without_a_key_costs_one_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert recorded(tmp_path, {"wandb": {"mode": "online"}}) == [1, 2, 3]
    (line,) = caplog.messages
    assert line.startswith("metrics.wandb: the run continues without it: UsageError: No API key")


def test_only_the_rank_that_writes_the_run_folder_writes_to_trackers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment, _ = load(offline.TREE)
    recorder = Recorder(None, {}, 0, experiment)
    recorder.record(Row(round=1), Row(round=1))
    recorder.close()
    assert recorder.sinks == []
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_trackers_imports_none_of_them(tmp_path):
    script = """
import sys
from pathlib import Path
from trainer.config.schema import Experiment
from trainer.metrics.recorder import Recorder
from trainer.metrics.trackers import require
require(Experiment().metrics)
Recorder(Path(sys.argv[1]), {}, 0, Experiment()).close()
print({"alembic", "mlflow", "sqlalchemy", "tensorboard", "torch", "wandb"} & set(sys.modules))
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    assert subprocess.check_output(command, text=True) == "set()\n"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("mlflow", "alembic")]
)
def test_a_tracker_that_is_not_installed_is_a_wrong_setting(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)  # Python's way to say: not to be found
    experiment, _ = load(offline.TREE)
    with pytest.raises(ConfigError) as error:
        trackers.require(experiment.metrics)
    assert str(error.value) == f"metrics.{name}: needs {package}; {install(name)}"


def test_a_folder_called_like_a_package_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    experiment, _ = load({"metrics": {"wandb": {"mode": "offline"}}})
    with pytest.raises(ConfigError, match="needs wandb"):
        trackers.require(experiment.metrics)


def trainer(out: Path, metrics: dict[str, object], hidden: str = "") -> tuple[int, str]:
    """A run of one round in a process where a package is not to be found; code and record."""
    experiment, _ = load({"rounds": 1, "clients": 1, "metrics": metrics})
    (out / "experiment.json").write_text(experiment.canonical())
    script = f"""
import runpy, sys
if {hidden!r}:
    sys.modules[{hidden!r}] = None
sys.argv = ["trainer", {str(out / "experiment.json")!r}, "--out", {str(out)!r}]
runpy.run_module("trainer", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return done.returncode, json.loads((out / "logs" / "rank-0.json").read_text())["message"]


def test_the_trainer_ends_with_code_2_before_training_where_a_tracker_is_missing(tmp_path):
    code, message = trainer(tmp_path, {"wandb": {"mode": "offline"}}, hidden="wandb")
    assert (code, message) == (2, f"metrics.wandb: needs wandb; {install('wandb')}")
    assert not (tmp_path / "metrics.jsonl").exists()


def test_the_trainer_tells_its_trackers_each_row_and_the_end(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert trainer(tmp_path, {"tensorboard": True}) == (0, "")
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path / "trackers" / "tensorboard")).Reload()
    names = {name for row in rows for name in sink.point(row).values}
    assert set(events.Tags()["scalars"]) == names
    (loss,) = events.Scalars("test_loss")
    assert loss.value == pytest.approx(rows[0]["test_loss"])
    (status,) = events.Tensors("status/text_summary")
    assert status.tensor_proto.string_val == [b"finished"]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (
            {"mlflow": {"uri": "https://me:secret@host"}},
            "metrics.mlflow.uri: contains a user name or password, which every tracker would show; "
            "remove it and set MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN instead",
        ),
        (
            {"wandb": {"mode": False}},  # what YAML reads for: mode: off
            "metrics.wandb.mode: false: input should be 'disabled', 'offline' or 'online'",
        ),
        (
            {"wandb": {"project": "a/b"}},
            "metrics.wandb.project: use 1 to 128 characters, none of / \\ # ? % :",
        ),
    ],
)
def test_wrong_settings_of_trackers_say_what_to_do(metrics, message):
    with pytest.raises(ConfigError) as error:
        load({"metrics": metrics})
    assert str(error.value) == message
