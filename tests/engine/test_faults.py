"""What goes wrong in the environment is one line in the rank's record, never a bug's traceback."""

import json
import socket

import pytest

from tests import patience
from tests.starts import Rank
from trainer.config.load import load


def fail(tmp_path, tree, *more, text=None, **env) -> dict[str, object]:
    """Start rank 0 alone; its record after it failed."""
    experiment, _ = load({"rounds": 2} | tree)
    path = tmp_path / "experiment.json"
    path.write_text(experiment.canonical() if text is None else text)
    rank = Rank([str(path), "--out", str(tmp_path), *more], env, tmp_path / "output")
    code = rank.wait(patience.seconds(60))
    record = json.loads((tmp_path / "logs" / "rank-0.json").read_text())
    assert code == record["exit"]
    said = (tmp_path / "output").read_text()
    assert "Traceback" not in said and "bug" not in record["message"]
    assert "\n" not in record["message"]
    return record


def test_an_experiment_that_is_no_json(tmp_path):
    record = fail(tmp_path, {}, text="{")
    assert record["exit"] == 2
    assert "line 1: not JSON: expecting property name" in record["message"]


def test_more_ranks_in_the_experiment_than_processes(tmp_path):
    record = fail(tmp_path, {"ranks": 2})
    assert (record["exit"], record["message"]) == (
        2,
        "ranks: 2 in the experiment, but 1 processes were started; start one for each rank",
    )


def test_a_rendezvous_port_that_is_taken(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": "0", "WORLD_SIZE": "2"}
        record = fail(tmp_path, {"ranks": 2, "cluster": {"timeout": 3}}, **group)
    assert record["exit"] == 1
    assert record["message"].startswith(f"cannot join the process group at 127.0.0.1:{port}: ")


def test_a_metrics_port_that_is_taken(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        record = fail(tmp_path, {"metrics": {"port": taken.getsockname()[1]}})
    assert record["exit"] == 2
    assert record["message"].startswith("metrics.port: 127.0.0.1:")


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_an_unreadable_npz(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    record = fail(tmp_path, {"data": {"name": "npz", "path": str(tmp_path / "x.npz")}})
    assert record["exit"] == 2
    assert record["message"].startswith("data.path: ")
