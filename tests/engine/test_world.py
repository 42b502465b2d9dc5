"""Who a rank is and where it meets the others: torchrun's words, the operators', a Job's."""

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import patience
from tests.engine.test_resume import free_port
from tests.ranks import MP
from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.config.load import load
from trainer.config.operation import Cluster
from trainer.engine import distributed
from trainer.engine.distributed import World, find, join, world

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "a", "MASTER_PORT": "1234"}
# What Trainer v2 sets, and nothing else (trainer v2.3.0, pkg/runtime/framework/plugins/torch).
TRAINJOB = {
    "PET_NNODES": "4",
    "PET_NPROC_PER_NODE": "1",
    "PET_NODE_RANK": "3",
    "PET_MASTER_ADDR": "run-node-0-0.run",
    "PET_MASTER_PORT": "29500",
}
# The training operator's for a PyTorchJob without a master, beside what our chart sets.
PYTORCHJOB = {
    "PET_NNODES": "4",
    "PET_NPROC_PER_NODE": "1",
    "RANK": "2",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "run-worker-0",
    "MASTER_PORT": "23456",
}
JOB = {
    "JOB_COMPLETION_INDEX": "1",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "run-0.run",
    "MASTER_PORT": "23456",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, World()),
        (TORCHRUN, World(5, 8, "a", 1234, "RANK")),
        (TRAINJOB, World(3, 4, "run-node-0-0.run", 29500, "PET_NODE_RANK")),
        (PYTORCHJOB, World(2, 4, "run-worker-0", 23456, "RANK")),
        (JOB, World(1, 4, "run-0.run", 23456, "JOB_COMPLETION_INDEX")),
        # torchrun under an operator: a node's rank is not a process's
        (TRAINJOB | TORCHRUN | {"PET_NPROC_PER_NODE": "2"}, World(5, 8, "a", 1234, "RANK")),
    ],
)
def test_each_family_of_variables_says_the_same(environment, expected):
    assert world(environment) == expected


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK: 'x' is not a whole number from 0"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK: '-1' is not a whole number from 0"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE: '0' is not a whole number from 1"),
        (TRAINJOB | {"PET_NNODES": "1:4"}, "PET_NNODES: '1:4' is not a whole number from 1"),
        (JOB | {"MASTER_PORT": "tcp"}, "MASTER_PORT: 'tcp' is not a whole number from 1"),
        (
            TRAINJOB | {"PET_NPROC_PER_NODE": "8"},
            "PET_NPROC_PER_NODE: is 8, but a pod holds one rank; set it to 1",
        ),
        (
            {"JOB_COMPLETION_INDEX": "3"},
            "JOB_COMPLETION_INDEX: is 3, but the ranks of a world of 1 count from 0 to 0; set "
            "WORLD_SIZE (or PET_NNODES) to the number of ranks",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(environment, said):
    with pytest.raises(ConfigError) as caught:
        world(environment)
    assert str(caught.value) == said


def test_a_name_that_dns_never_learns_is_an_error_that_names_it():
    for rank in (0, 1):
        here = World(rank, 2, "no-such-pod.invalid", 23456)
        with pytest.raises(EnvironmentFault) as caught:
            find(here, patience=0.05)
        assert str(caught.value).startswith(
            "cannot reach rank 0 at no-such-pod.invalid:23456 after "
        )
        assert "the name does not resolve (" in str(caught.value)


def test_a_port_where_nobody_listens_is_an_error_for_all_but_rank_0():
    port = free_port()
    find(World(0, 2, "127.0.0.1", port), patience=0.05)
    with pytest.raises(
        EnvironmentFault, match=f"127.0.0.1:{port} after 0 s: connection refused; check"
    ):
        find(World(1, 2, "127.0.0.1", port), patience=0.05)


def test_a_rank_waits_for_rank_0_to_listen():
    port = free_port()
    with contextlib.closing(socket.socket()) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        listening = threading.Timer(0.3, server.listen)
        listening.start()
        find(World(1, 2, "127.0.0.1", port), patience=patience.seconds(30))
        listening.join()


def joining(rank: int, port: int, seconds: float, said: Any) -> None:
    """Join as one of three ranks that meet at an address; how that ended, and after how long."""
    group = {"RANK": str(rank), "WORLD_SIZE": "3"}
    os.environ |= group | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    said.send("ready")
    said.recv()
    start = time.monotonic()
    try:
        join(Cluster(), 3, torch.device("cpu"), seconds)
    except EnvironmentFault as error:
        said.send((str(error), time.monotonic() - start))


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_rank_that_is_missing_is_named_and_no_other(first):
    """Over TCP, as in pods: rank 0 is there, and rank 1 sees that as well as rank 0 does."""
    port, limit, ours, started = free_port(), 6.0, {}, []
    for rank, seconds in {first: limit, 1 - first: 600.0}.items():
        ours[rank], theirs = MP.Pipe()
        process = MP.Process(target=joining, args=(rank, port, seconds, theirs), daemon=True)
        process.start()
        started.append(process)
    assert {pipe.recv() for pipe in ours.values()} == {"ready"}
    for pipe in ours.values():
        pipe.send("go")
        time.sleep(limit / 2)
    try:
        assert ours[first].poll(patience.seconds(60))
        said, took = ours[first].recv()
        assert said == "rank 2 did not start within 6 s; look at its log and at its pod"
        assert took < 1.4 * limit, "the time to reach rank 0 counts"
    finally:
        for process in started:
            process.kill()
            process.join()


def test_pods_that_start_in_the_wrong_order_train_all_the_same(tmp_path):
    """A TrainJob's rank and a Job's, the last first, each with what its pod reads of its end."""
    experiment, _ = load({"rounds": 1, "clients": 2, "ranks": 2})
    (tmp_path / "experiment.json").write_text(experiment.canonical())
    command = [sys.executable, "-m", "trainer", str(tmp_path / "experiment.json")]
    command += ["--out", str(tmp_path / "out"), "--resume=auto"]
    port, started = str(free_port()), []
    families = {
        1: {"JOB_COMPLETION_INDEX": "1", "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        0: {"PET_NODE_RANK": "0", "PET_NNODES": "2", "PET_NPROC_PER_NODE": "1",
            "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port},
    }  # fmt: skip
    for rank, family in families.items():
        message = tmp_path / f"message-{rank}"
        message.touch()
        pod = {"FEDCTL_TERMINATION_LOG": str(message), "FEDCTL_DIGEST": experiment.digest()}
        started.append(
            subprocess.Popen(command, env=os.environ | family | pod, stderr=subprocess.PIPE)
        )
        time.sleep(0.5)
    for process in started:
        _, said = process.communicate(timeout=patience.seconds(90))
        assert process.returncode == 0, said.decode()
    assert (tmp_path / "out" / "model.safetensors").exists()
    told = {rank: json.loads((tmp_path / f"message-{rank}").read_text()) for rank in families}
    assert len({json.dumps(words.pop("final")) for words in told.values()}) == 1
    for rank, words in told.items():
        assert words == {
            "rank": rank,
            "status": "finished",
            "exit": 0,
            "round": 1,
            "message": "",
        }


def test_a_rank_that_was_started_alone_names_no_variable(tmp_path):
    experiment, _ = load({"rounds": 1, "clients": 1})
    (tmp_path / "experiment.json").write_text(experiment.canonical())
    words = [str(tmp_path / "experiment.json"), "--out", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "trainer", *words], check=True, capture_output=True)
    log = (tmp_path / "logs" / "rank-0.log").read_text()
    assert "rank 0 of 1, on " in log and ": 1 client on 1 rank, " in log


def test_a_full_disk_where_ranks_meet_is_called_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError(f"write: {os.strerror(errno.ENOSPC)}")

    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "FEDCTL_STORE": f"{tmp_path}/s"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_meet", full)
    with pytest.raises(OSError, match="No space left") as told:
        join(Cluster(), 2, torch.device("cpu"), 1.0)
    assert told.value.filename == f"{tmp_path}/s"
