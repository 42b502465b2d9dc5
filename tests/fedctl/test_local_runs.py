"""Real runs on this machine: they finish, diverge, die and resume, and leave no process behind.

How they are stopped is in tests/faults.
"""

import json
import os
import signal
import time
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from fedctl.report import runs
from fedctl.report.history import Change
from tests import patience
from tests.fedctl.processes import Start, ended, processes_of, wait_for_round


def test_a_run_finishes_and_is_reported(start: Start, tmp_path: Path) -> None:
    words = ["run", "gwpf-digits", "--ranks", 2, "--set", "rounds=3", "--out", "out", "-o", "json"]
    code, stdout, stderr = ended(start(*words))
    assert code == 0, stderr
    (result,) = json.loads(stdout)["runs"]
    assert result["finished"] and result["rounds"] == 3
    assert stderr.startswith("starting the ranks ...\n") and "\nround 1/3  accuracy " in stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"experiment.json", "logs", "metrics.jsonl", "model.safetensors"}
    assert names >= {"report.html", "report.png"}
    assert [rank.status for rank in runs.ranks(tmp_path / "out")] == ["finished", "finished"]
    assert processes_of(tmp_path) == []


def test_a_run_that_diverges_fails(start: Start, tmp_path: Path) -> None:
    words = ["--set", "optimizer.lr=1e20", "--set", "rounds=2", "--out", "out", "-o", "json"]
    code, stdout, stderr = ended(start("run", "fedavg-digits", "--ranks", 2, *words))
    assert (code, stdout) == (1, "")
    assert "diverged in round 1: the training loss of client 0 is not finite; " in stderr
    assert (
        "try a smaller optimizer.lr (now 1e+20), clipping (optimizer.clip_norm) or a warm-up "
        "(optimizer.warmup_rounds); divergence=warn would continue" in stderr
    )
    assert [rank.exit for rank in runs.ranks(tmp_path / "out")] == [1, 1]
    assert not (tmp_path / "out" / "model.safetensors").exists()
    (row,) = strictly((tmp_path / "out" / "metrics.jsonl").read_text())
    assert (row["round"], row["train_loss"], row["test_loss"]) == (1, None, None)


def test_a_run_that_diverges_may_go_on(start: Start, tmp_path: Path) -> None:
    words = ["--set", "optimizer.lr=1e20", "--set", "rounds=5", "--set", "divergence=warn"]
    code, stdout, stderr = ended(
        start("run", "fedavg-digits", *words, "--out", "out", "-o", "json")
    )
    assert code == 0, stderr
    (result,) = strictly(stdout.replace("\n", ""))
    assert result["runs"][0]["test_loss"] is None and result["runs"][0]["finished"]
    rows = strictly((tmp_path / "out" / "metrics.jsonl").read_text())
    assert [row["round"] for row in rows] == [1, 2, 3, 4, 5, 5]
    log = runs.log_of(tmp_path / "out", 0).read_text()
    warned = [number for number in range(1, 6) if f"diverged in round {number}: " in log]
    assert warned == [1, 2, 4, 5]  # the first, then each power of two; 5: what is to be saved


def strictly(text: str) -> list[dict]:
    """Lines of JSON, which has neither NaN nor infinity."""
    return [
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
        for line in text.splitlines()
    ]


@pytest.mark.slow
def test_unreadable_data_leaves_nothing_behind(start: Start, tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"not a zip file")
    words = ["run", "gwpf-mnist", "--set", "data.path=broken.npz", "--out", "out"]
    code, _, stderr = ended(start(*words))
    assert code == 2 and stderr.startswith("error: data.path: ") and stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_killed_rank_ends_the_run_and_it_resumes(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--set", "rounds=60", "--set", "checkpoint.every=5", "--out", "out"]
    process = start("run", "gwpf-digits", "--ranks", 2, *words)
    wait_for_round(out, 6)
    killed = time.monotonic()
    os.kill(runs.ranks(out)[1].pid, signal.SIGKILL)
    code, _, stderr = ended(process)
    assert time.monotonic() - killed < patience.seconds(20)
    assert code == 1 and stderr.count("\n") == 1
    assert stderr.startswith("error: rank 1 was killed in round ")
    assert stderr.endswith("; the others stopped; continue with: fedctl run --resume out\n")
    assert processes_of(tmp_path) == []

    code, stdout, stderr = ended(start("run", "--resume", "out"))
    assert code == 0, stderr
    assert "round 60/60" in stdout and "round 1/60" not in stdout
    assert [row["round"] for row in runs.read(out).rows] == list(range(1, 61))


def test_nobody_gets_in(start: Start, tmp_path: Path) -> None:
    """What torchrun's variables say of other machines is not for this run, and nothing listens."""
    out = tmp_path / "out"
    foreign = {"PET_NNODES": "2", "RANK": "7", "WORLD_SIZE": "9", "MASTER_ADDR": "no.such.host"}
    foreign |= {"FEDCTL_METRICS_PORT": "1", "GLOO_SOCKET_IFNAME": "none0"}
    words = ["run", "fedavg-digits", "--ranks", 2, "--set", "rounds=5000", "--out", "out"]
    process = start(*words, environment=foreign)
    wait_for_round(out, 2)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert {rank.pid for rank in runs.ranks(out)} <= {member.pid for member in family}
    listening = [
        connection.laddr.ip
        for member in family
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 4  # gloo's and the metrics' of two ranks
    assert all(ip_address(ip).is_loopback for ip in listening), listening
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 130


@pytest.mark.slow
def test_one_run_at_a_time_in_a_folder(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--set", "rounds=5000", "--set", "checkpoint.every=1", "--out", "out"]
    process = start("run", "fedavg-digits", "--ranks", 2, *words)
    wait_for_round(out, 2)
    code, _, stderr = ended(start("run", "--resume", "out"))
    assert (code, stderr) == (
        2,
        f"error: --resume out: is still running (process {process.pid})\n",
    )
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 130


@pytest.mark.slow
def test_a_finished_run_goes_on_as_if_it_had_never_ended(start: Start, tmp_path: Path) -> None:
    """Twelve rounds at once, or eight and then four more under other settings of operation."""
    words = ["run", "gwpf-digits", "--ranks", 2, "--quiet"]
    assert ended(start(*words, "--set", "rounds=12", "--out", "whole"))[0] == 0
    assert ended(start(*words, "--set", "rounds=8", "--out", "parts"))[0] == 0
    more = ["--set", "rounds=12", "--set", "checkpoint.every=3", "--set", "metrics.port=null"]
    code, _, stderr = ended(start("run", "--resume", "parts", "--quiet", *more))
    assert code == 0, stderr
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert (whole / runs.MODEL).read_bytes() == (parts / runs.MODEL).read_bytes()
    rows = [[row["test_accuracy_ratio"] for row in runs.read(run).tests] for run in (whole, parts)]
    assert rows[0] == rows[1] and len(rows[0]) == 13
    assert runs.read(parts).experiment["rounds"] == 12
    assert not (parts / runs.NEXT).exists()


def test_an_extension_that_fails_leaves_the_run_to_resume_as_it_was(
    start: Start, tmp_path: Path
) -> None:
    run = tmp_path / "a"
    words = ["run", "fedavg-digits", "--ranks", 1, "--quiet", "--set", "rounds=2"]
    assert ended(start(*words, "--out", "a"))[0] == 0
    other = ["--set", "optimizer.lr=1e6", "--allow-changed", "optimizer.lr"]
    more = ["run", "--resume", "a", "--quiet", "--set", "rounds=4"]
    code, _, stderr = ended(start(*more, *other))
    assert code == 1 and "diverged in round 3" in stderr
    assert runs.read(run).experiment["optimizer"]["lr"] == 0.05
    code, _, stderr = ended(start(*more))
    assert code == 0, stderr
    assert runs.read(run).changes == () and runs.read(run).final["round"] == 4
    other = ["--set", "rounds=5", "--set", "optimizer.lr=0.01", "--allow-changed", "optimizer.lr"]
    assert ended(start("run", "--resume", "a", "--quiet", *other))[0] == 0
    assert runs.read(run).changes == (Change(5, "optimizer.lr", 0.05, 0.01),)
    assert runs.read(run).experiment["optimizer"]["lr"] == 0.01
