"""Ranks in network namespaces, as two pods: the link between them is cut, or slow."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fedctl.report import runs
from tests import patience
from tests.engine.test_resume import results
from tests.faults.conftest import ROUNDS
from tests.faults.lines import fits
from tests.faults.scene import fault, until
from tests.faults.spaces import NOT_TESTED, Namespace
from tests.faults.table import Fault
from trainer.config.load import load

TREE: dict[str, Any] = {
    "rounds": ROUNDS,
    "ranks": 2,
    "clients": 4,
    "schedule": {"phases": [{"steps": 2}]},
    "checkpoint": {"every": 3},
    "cluster": {"timeout": 600.0},
}
ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = "29511"


class Pods:
    """Two network namespaces with a link between them, and a rank in each."""

    def __init__(self, out: Path) -> None:
        self.out, self.spaces = out, [Namespace("--net"), Namespace("--net")]
        self.ranks: list[subprocess.Popen[bytes]] = []
        first, second = self.spaces
        add = ["ip", "link", "add", "pod0", "type", "veth", "peer", "name", "pod1"]
        done = subprocess.run([*first.enter, *add], capture_output=True, text=True)
        if done.returncode:
            self.close()
            pytest.skip(f"{NOT_TESTED}: no veth pairs: {done.stderr.strip()}")
        first.do("ip", "link", "set", "pod1", "netns", second.pid)
        for number, space in enumerate(self.spaces):
            space.do("ip", "addr", "add", f"{ADDRESSES[number]}/24", "dev", f"pod{number}")
            space.do("ip", "link", "set", "lo", "up")
            space.do("ip", "link", "set", f"pod{number}", "up")

    def start(self, tree: dict[str, Any], *numbers: int) -> None:
        """Start ranks as pods: who they are is in their environment."""
        self.out.mkdir(exist_ok=True)
        given = self.out / "given.json"
        given.write_text(load(tree)[0].canonical())
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": PORT}
        words = ["-m", "trainer", given, "--out", self.out, "--resume=auto"]
        self.ranks = []
        for number in numbers or (0, 1):
            own = {"RANK": str(number), "GLOO_SOCKET_IFNAME": f"pod{number}"}
            command = [*self.spaces[number].enter, sys.executable, *map(str, words)]
            with (self.out / "output").open("ab") as log:
                environment = {**os.environ, **group, **own}
                self.ranks.append(
                    subprocess.Popen(command, stdout=log, stderr=log, env=environment)
                )

    def wait(self) -> list[int]:
        return [process.wait(patience.seconds(90)) for process in self.ranks]

    def cut(self) -> None:
        self.spaces[0].do("ip", "link", "set", "pod0", "down")

    def cut_after(self, number: int, timeout: float = 600.0) -> None:
        """Start both, and cut the link between them once this round is over."""
        self.start(TREE | {"cluster": {"timeout": timeout}})
        until(lambda: rounds(self.out) >= number)
        self.cut()

    def mend(self) -> None:
        self.spaces[0].do("ip", "link", "set", "pod0", "up")

    def slow_down(self) -> None:
        """Delay, loss and 2 Mbit/s if the kernel has netem, else 2 Mbit/s by a token bucket."""
        best = ["netem", "delay", "20ms", "loss", "0.5%", "rate", "2mbit"]
        plain = ["tbf", "rate", "2mbit", "burst", "16kb", "latency", "400ms"]
        for number, space in enumerate(self.spaces):
            root = [*space.enter, "tc", "qdisc", "add", "dev", f"pod{number}", "root"]
            tried = [subprocess.run([*root, *how], capture_output=True) for how in (best, plain)]
            if all(done.returncode for done in tried):
                pytest.skip(f"{NOT_TESTED}: the kernel has neither netem nor tbf")

    def messages(self) -> list[str]:
        return [record.message for record in runs.ranks(self.out)]

    def output(self) -> str:
        return (self.out / "output").read_text("utf-8", "replace")[-3000:]

    def close(self) -> None:
        for process in self.ranks:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
        for space in self.spaces:
            space.close()


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    made = Pods(tmp_path / "out")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def over_a_fast_link(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Model and rows of the run of two pods that nothing happens to."""
    made = Pods(tmp_path_factory.mktemp("pods") / "out")
    try:
        made.start(TREE)
        assert made.wait() == [0, 0], made.output()
        return results(made.out)
    finally:
        made.close()


def rounds(out: Path) -> int:
    path = out / runs.METRICS
    return path.read_bytes().count(b"\n") if path.exists() else 0


@fault("partition")
def test_a_partition_ends_both_and_they_resume(
    pods: Pods, fault: Fault, over_a_fast_link: Any
) -> None:
    pods.cut_after(4, timeout=patience.seconds(5))
    assert pods.wait() == [fault.code] * 2, pods.output()
    assert all(fits(str(fault.sees), text) for text in pods.messages()), pods.messages()
    assert 3 <= runs.checkpoint_round(pods.out) < TREE["rounds"]
    pods.mend()
    pods.start(TREE)
    assert pods.wait() == [0, 0], pods.output()
    assert results(pods.out) == over_a_fast_link


@fault("partition-at-start")
def test_no_way_to_rank_0(pods: Pods, fault: Fault) -> None:
    pods.cut()
    pods.start(TREE | {"cluster": {"start_timeout": 3.0}}, 1)
    assert pods.wait() == [fault.code], pods.output()
    (message,) = pods.messages()
    assert fits(str(fault.sees), message), message


@fault("slow-link")
def test_a_slow_link_changes_no_bit(pods: Pods, fault: Fault, over_a_fast_link: Any) -> None:
    pods.slow_down()
    pods.start(TREE)
    assert pods.wait() == [fault.code] * 2, pods.output()
    assert results(pods.out) == over_a_fast_link


@pytest.mark.faults
def test_a_cut_that_is_mended_in_time_is_nothing(pods: Pods, over_a_fast_link: Any) -> None:
    """TCP sends again what was lost."""
    pods.cut_after(4)
    time.sleep(0.2)  # what was on its way when the link was cut
    before = rounds(pods.out)
    time.sleep(1)
    assert rounds(pods.out) == before < TREE["rounds"]
    pods.mend()
    assert pods.wait() == [0, 0], pods.output()
    assert results(pods.out) == over_a_fast_link
