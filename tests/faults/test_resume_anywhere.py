"""Runs that are killed at any moment, and resumed, end in the bits of one that never was.

For every algorithm, policy and codec that the schema knows, and for every optimizer at clients and
at the server: a new one is tested by being listed.
"""

import random
import signal
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from fedctl.report import runs
from tests import patience
from tests.engine.test_resume import results
from tests.faults.conftest import ROUNDS
from tests.faults.forked import Forked
from tests.faults.scene import Scene, bits
from tests.fedctl.processes import ended, processes_of
from tests.laws.test_state_laws import CODEC, SYNC
from tests.names import ALGORITHMS, CODECS, OPTIMIZERS, POLICIES, SERVERS
from tests.products import sampled
from trainer.config.errors import ConfigError
from trainer.config.load import load

RANKS = 2
LAST = 10  # rounds
MOST_KILLS = 3
FIRST = 4  # the round in which a run by the command has its first checkpoint


def tree(algorithm: str, policy: str, codec: str) -> dict[str, Any] | None:
    """The smallest run with these that keeps something of everything; None if they do not fit."""
    base = {
        "seed": 5,
        "ranks": RANKS,
        "rounds": LAST,
        "clients": 5,
        "data": {"partition": {"name": "dirichlet", "alpha": 1.0}},
        "model": {"name": "softmax", "precision": "fp64" if codec == "fp64" else "fp32"},
        "schedule": {"batch_size": 16, "phases": [{"steps": 2}]},
        "algorithm": {"name": algorithm},
        "sync": SYNC.get(policy, {"name": policy}),
        "codec": CODEC.get(codec, {"name": codec}),
        "evaluation": {"every": 3},
        "checkpoint": {"every": 2},
        "client_memory": 0,  # clients' records are in files
    }
    momentum = {"optimizer": {"momentum": 0.9, "state": "keep", "lr": 0.05}}
    for more in (momentum | {"participation": 0.6}, {"participation": 0.6}, momentum, {}):
        try:
            load(base | more)
        except ConfigError:
            continue
        return base | more
    return None


def there_is(algorithm: str, policy: str, codec: str) -> bool:
    return tree(algorithm, policy, codec) is not None


@pytest.mark.parametrize(
    "algorithm,policy,codec",
    sampled(ALGORITHMS, POLICIES, CODECS, fits=there_is, rest=pytest.mark.faults),
)
def test_killed_anywhere(algorithm: str, policy: str, codec: str, tmp_path: Path) -> None:
    chosen = tree(algorithm, policy, codec)
    assert chosen is not None
    killed_and_resumed(chosen, f"{algorithm} {policy} {codec}", tmp_path)


@pytest.mark.parametrize(
    "optimizer,kept,server",
    [
        pytest.param(*case, marks=() if case == ("adamw", "keep", "yogi") else pytest.mark.faults)
        for case in product(OPTIMIZERS, ["keep", "reset"], SERVERS)
    ],
)
def test_killed_anywhere_with_any_optimizer(
    optimizer: str, kept: str, server: str, tmp_path: Path
) -> None:
    chosen = tree("fedavg", "gwpf", "int8")
    assert chosen is not None
    momentum = {"momentum": 0.9} if optimizer == "sgd" else {}
    chosen["optimizer"] = {"name": optimizer, "state": kept} | momentum
    chosen["algorithm"] = {"server": {"name": server}}
    killed_and_resumed(chosen, f"{optimizer} {kept} {server}", tmp_path)


def killed_and_resumed(chosen: dict[str, Any], case: str, tmp_path: Path) -> None:
    """Run it whole, and killed up to thrice: the results must be the same; `case` draws when."""
    whole, broken = prepared(tmp_path / "whole", chosen), prepared(tmp_path / "broken", chosen)
    group = Forked(whole, RANKS)
    assert group.wait() == [0, 0], group.output()
    draws = random.Random(case)
    kills = 0
    for _ in range(draws.randint(1, MOST_KILLS)):
        kills += killed_somewhere(broken, draws)
    (broken / "output").write_text("")
    group = Forked(broken, RANKS, "--resume=auto")
    assert group.wait() == [0, 0], group.output()
    assert kills, "no rank was killed before the end: nothing was put to a test"
    assert results(broken) == results(whole)


def prepared(out: Path, chosen: dict[str, Any]) -> Path:
    out.mkdir()
    (out / "given.json").write_text(load(chosen)[0].canonical())
    return out


def killed_somewhere(out: Path, draws: random.Random) -> bool:
    """Start or resume, and kill a rank at some moment; return whether it still ran then."""
    group = Forked(out, RANKS, "--resume=auto")
    victim, at = draws.randrange(RANKS), draws.randint(0, LAST - 1)
    pause = draws.uniform(0, 0.03)
    deadline = time.monotonic() + patience.seconds(60)
    while lines(out) < at and group.running:
        assert time.monotonic() < deadline, group.output()
        time.sleep(0.001)
    time.sleep(pause)
    group.kill(victim)
    codes = group.end()
    assert codes[victim] in (-signal.SIGKILL, 0), (codes, group.output())
    return codes[victim] == -signal.SIGKILL


def lines(out: Path) -> int:
    try:
        return (out / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(6))
def test_by_the_command(scene: Scene, undisturbed: Any, seed: int) -> None:
    """The same by `fedctl run` and `--resume`: a rank or fedctl itself is killed, up to thrice."""
    draws, process = random.Random(seed), scene.run(rounds=ROUNDS)
    for _ in range(draws.randint(1, MOST_KILLS)):
        at, victim = draws.randint(FIRST, ROUNDS - 1), draws.choice(["rank 0", "rank 1", "fedctl"])
        deadline = time.monotonic() + patience.seconds(90)
        while lines(scene.out) < at and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(draws.uniform(0, 0.2))
        if victim == "fedctl":
            process.kill()
        elif process.poll() is None:
            with_pid = {f"rank {record.rank}": record.pid for record in runs.ranks(scene.out)}
            scene.kill(with_pid.get(victim))
        ended(process)
        while processes_of(scene.folder):
            time.sleep(0.1)
        if runs.finished(scene.out):
            break
        process = scene.resume()
    code, _, stderr = ended(process)
    if not runs.finished(scene.out):
        raise AssertionError((code, stderr, scene.log()))
    assert bits(scene.out) == undisturbed
