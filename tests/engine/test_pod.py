"""What a pod tells the trainer and reads of it: ports, deadline, resuming, the last words."""

import json
import logging
import os
import signal
import sys
import urllib.request
from importlib import metadata

import pytest

from tests.engine.test_resume import free_port
from trainer import __main__ as entry
from trainer import manifest
from trainer.config.errors import ConfigError
from trainer.config.load import load
from trainer.engine import loop, pod
from trainer.engine.mirror import Mirror
from trainer.engine.pod import Deadline, Pod
from trainer.engine.status import Status
from trainer.lock import Lock, holder
from trainer.metrics import recorder

SHORT = {"rounds": 3, "clients": 2}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains in this process, as a pod does; how it ended, and rank 0's record."""
    before = signal.getsignal(signal.SIGTERM)

    def start(tree=None, resume="auto", **environment):
        experiment, _ = load(SHORT | (tree or {}))
        path = tmp_path / "experiment.json"
        path.write_text(experiment.canonical())
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        status = Status(tmp_path / "out", 0)
        how, status.values["message"] = entry.train(
            path, Mirror(tmp_path / "out", 0), resume, status
        )
        return how, status.values

    yield start
    signal.signal(signal.SIGTERM, before)


def test_every_variable_is_read():
    given = {
        "FEDCTL_METRICS_HOST": "0.0.0.0",
        "FEDCTL_METRICS_PORT": "9401",
        "FEDCTL_RENDEZVOUS_SECONDS": "600",
        "FEDCTL_DEADLINE_SECONDS": "0.5",
        "FEDCTL_DIGEST": "0123456789ab",
    }
    assert pod.read(given) == Pod("0.0.0.0", 9401, 600.0, 0.5, "0123456789ab")
    assert pod.read({}) == pod.read(dict.fromkeys(given, "")) == Pod()


@pytest.mark.parametrize("name", ["METRICS_PORT", "RENDEZVOUS_SECONDS", "DEADLINE_SECONDS"])
@pytest.mark.parametrize("value", ["x", "0", "-1", "nan", "inf"])
def test_a_variable_that_is_no_number_above_0_is_named(name, value):
    with pytest.raises(ConfigError) as caught:
        pod.read({f"FEDCTL_{name}": value})
    assert str(caught.value) == f"FEDCTL_{name}: {value!r} is not a number above 0"


def test_a_port_beyond_the_last_is_refused():
    with pytest.raises(ConfigError, match="FEDCTL_METRICS_PORT: 65536 is not a valid port"):
        pod.read({"FEDCTL_METRICS_PORT": "65536"})


def test_metrics_are_where_the_pod_wants_them_and_the_digest_stays(train, monkeypatch):
    """The experiment says nothing is served at all; one that serves elsewhere is another one."""
    port, seen = free_port(), {}
    close = recorder.Recorder.close

    def scrape_and_close(self, status="finished"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            seen["page"] = page.read().decode()
        close(self, status)

    monkeypatch.setattr(recorder.Recorder, "close", scrape_and_close)
    tree = {"metrics": {"port": None}}
    digest = load(SHORT | tree)[0].digest()
    how, values = train(
        tree, FEDCTL_METRICS_HOST="0.0.0.0", FEDCTL_METRICS_PORT=str(port), FEDCTL_DIGEST=digest
    )
    assert (how, values["metrics_port"]) == ("finished", port)
    assert f'digest="{digest}"' in seen["page"]


def test_a_rank_serves_its_own_memory_and_the_runs_rows_have_none(train, tmp_path, monkeypatch):
    served = {}
    close = recorder.Recorder.close

    def look_and_close(self, status="finished"):
        served.update(self.exposed.row)
        close(self, status)

    monkeypatch.setattr(recorder.Recorder, "close", look_and_close)
    monkeypatch.setattr(loop, "held_bytes", lambda device: {"cpu": 5e8}[device.type])
    train({"metrics": {"port": None}})
    assert served["device_memory_bytes"] == 5e8
    rows = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert rows and not any("device_memory_bytes" in row for row in rows)


def test_an_experiment_that_was_changed_on_its_way_is_refused(train):
    with pytest.raises(
        ConfigError, match=r"^FEDCTL_DIGEST: is 0+, but .* has [0-9a-f]{12}, so it was"
    ):
        train(FEDCTL_DIGEST="000000000000")


def test_at_its_deadline_a_run_saves_a_checkpoint_and_later_goes_on(train, tmp_path, monkeypatch):
    how, values = train({"rounds": 500}, FEDCTL_DEADLINE_SECONDS="0.01")
    latest = manifest.number_of(manifest.found(tmp_path / "out/checkpoints")[0])
    assert (how, values["round"]) == ("deadline", latest)
    assert 1 <= latest < 500
    again, values = train({"rounds": 500})
    assert again == "deadline" and values["round"] > latest
    assert entry.CODES["deadline"] == 3


def test_what_was_not_saved_is_not_said_to_be(train):
    tree = {"rounds": 500, "divergence": "warn", "optimizer": {"lr": 1e30}}
    how, values = train(tree, FEDCTL_DEADLINE_SECONDS="0.01")
    assert how == "deadline"
    assert values["message"].endswith("which was not finite; there is no checkpoint")


def test_a_deadline_counts_from_the_start_and_without_one_nothing_passes():
    assert Deadline(1e-9).passed()
    assert not Deadline(1e9).passed()
    assert not Deadline(None).passed()


def test_a_run_that_has_finished_is_not_run_again(train, tmp_path, caplog):
    how, first = train()
    assert how == "finished"
    model = tmp_path / "out" / "model.safetensors"
    made = model.stat().st_mtime_ns
    with caplog.at_level(logging.INFO, logger="fedctl"):
        how, values = train()
    assert (how, values["round"]) == ("finished", 3)
    assert values["final"] == first["final"]
    assert "has already finished" in caplog.text
    assert model.stat().st_mtime_ns == made


@pytest.mark.parametrize("resume", ["auto", "always", None])
def test_a_run_that_begins_again_has_no_final_model(train, tmp_path, monkeypatch, resume):
    """Without a checkpoint it starts at round 0, and may be killed before its first one."""
    tree = {"checkpoint": {"at_end": False}}
    train(tree)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "run_round", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tree | {"rounds": 4}, resume)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    how, values = train(tree | {"rounds": 4})
    assert (how, values["round"]) == ("finished", 4)


def test_a_model_without_its_final_row_is_no_finished_run(train, tmp_path, caplog):
    """Each row has the rounds that were planned; a machine that lost power may lose the last."""
    train()
    metrics = tmp_path / "out" / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(lines[:-1]))
    with caplog.at_level(logging.INFO, logger="fedctl"):
        assert train()[0] == "finished"
    assert "has already finished" not in caplog.text
    assert json.loads(metrics.read_text().splitlines()[-1])["final"]


def test_the_final_row_is_on_the_disk_before_the_model(train, monkeypatch):
    synced = []
    reached, save_model = recorder.Recorder.reached, loop.save_model

    def note(self):
        synced.append(reached(self))
        return synced[-1]

    def save(rank, path):
        assert synced[-1].bytes == (path.parent / "metrics.jsonl").stat().st_size
        save_model(rank, path)

    monkeypatch.setattr(recorder.Recorder, "reached", note)
    monkeypatch.setattr(loop, "save_model", save)
    assert train()[0] == "finished" and synced


def test_the_folder_of_another_experiment_is_left_alone(train, tmp_path):
    train()
    made = (tmp_path / "out" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="belongs to another experiment: seed is 1"):
        train({"seed": 9})
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == made


def test_the_folder_is_one_that_a_report_reads(train, tmp_path):
    from trainer.config.load import validate

    train()
    mine = validate(json.loads((tmp_path / "out" / "experiment.json").read_text()))
    assert mine.digest() == load(SHORT)[0].digest()


def test_the_last_words_are_one_line_of_json_that_fits(tmp_path):
    record = {"rank": 1, "status": "failed", "exit": 2, "round": 7, "pid": 1}
    path = tmp_path / "termination-log"
    pod.leave_message(path, record | {"message": "x"})
    assert not path.exists()  # not in a pod
    path.touch()
    pod.leave_message(path, record | {"message": "ü" * 5000})
    line = path.read_bytes()
    assert line.count(b"\n") == 1 and len(line) <= 4096
    told = json.loads(line)
    assert set(told.pop("message")) == {"ü"}
    record.pop("pid")
    assert told == record


def test_the_last_words_of_a_finished_run_are_what_it_came_to(train, tmp_path):
    how, values = train()
    last = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    payload = last["payload_bytes_total"]
    path = tmp_path / "termination-log"
    path.touch()
    pod.leave_message(path, values | {"status": how, "exit": 0})
    assert json.loads(path.read_text()) == {
        "rank": 0,
        "status": "finished",
        "exit": 0,
        "round": 3,
        "message": "",
        "final": {
            "test_accuracy_ratio": last["test_accuracy_ratio"],
            "uploaded_bytes": sum(payload.values()) - payload["evaluation"],
            "wire_bytes": sum(last["wire_bytes_total"].values()),
            "dense_equivalent_bytes": last["dense_equivalent_bytes_total"],
        },
    }


def test_a_run_that_was_stopped_has_come_to_nothing_yet(train):
    how, values = train({"rounds": 500}, FEDCTL_DEADLINE_SECONDS="0.01")
    assert how == "deadline" and "final" not in values


@pytest.fixture
def main(tmp_path, monkeypatch):
    """A rank from its start to its exit code, in this process; what the kubelet reads of it."""
    message = tmp_path / "message"
    message.touch()
    monkeypatch.setenv("FEDCTL_TERMINATION_LOG", str(message))
    handlers = logging.getLogger("fedctl").handlers
    kept = list(handlers)

    def start(out):
        monkeypatch.setattr(sys, "argv", ["trainer", "none.json", "--out", str(out)])
        code = entry.main()
        return code, json.loads(message.read_text())

    yield start
    for handler in [h for h in handlers if h not in kept]:
        handlers.remove(handler)
        handler.close()


def test_the_last_words_of_a_wrong_setting_name_it(main, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "two")
    code, told = main(tmp_path)
    assert (code, told["status"], told["exit"]) == (2, "failed", 2)
    assert told["message"] == "RANK: 'two' is not a whole number from 0"


def test_the_records_of_a_run_under_way_are_not_written_over(main, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(entry, "WAIT_SECONDS", 0)
    out = tmp_path / "out"
    Status(out, 0)
    before = {path: path.read_bytes() for path in (out / "logs").iterdir()}
    held = Lock(out)
    code, told = main(out)
    assert (code, told["status"]) == (1, "failed")
    who = f"process {os.getpid()}"
    assert told["message"] == f"{out} is being run by {who}; end that first, or use another folder"
    assert f"rank 0: {told['message']}" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (out / "logs").iterdir()} == before
    held.release()


def test_the_folder_is_held_until_the_last_words_are_written(main, tmp_path, monkeypatch):
    out, held = tmp_path / "out", []
    leave = pod.leave_message

    def note(*args):
        held.append(holder(out))
        leave(*args)

    monkeypatch.setattr(pod, "leave_message", note)
    code, told = main(out)
    assert (code, told["message"][:9]) == (2, "none.json")
    assert held == [f"process {os.getpid()}"] and holder(out) is None


def test_where_a_pod_reads_last_words():
    assert str(pod.termination_log({})) == "/dev/termination-log"
    assert str(pod.termination_log({"FEDCTL_TERMINATION_LOG": "/x"})) == "/x"


def test_where_only_the_trainer_is_the_version_is_the_images(monkeypatch):
    def not_installed(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(pod.metadata, "version", not_installed)
    assert pod.version({"FEDCTL_VERSION": "1.2.3"}) == "1.2.3"
    assert pod.version({}) == "unknown"
