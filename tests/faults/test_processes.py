"""Ranks and fedctl are killed, stopped, frozen and interrupted, in a real run."""

import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from fedctl.report import runs
from tests.faults.conftest import ROUNDS
from tests.faults.scene import Scene, bits, fault, rows, until
from tests.faults.table import Fault
from tests.fedctl.processes import processes_of

TIMEOUT = "cluster.timeout=3"


@fault("rank-killed")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank(scene: Scene, fault: Fault, rank: int, undisturbed: Any) -> None:
    process = scene.run(rounds=ROUNDS)
    scene.reach(4)
    scene.signal(rank, signal.SIGKILL)
    scene.shows(fault, process)
    assert runs.checkpoint_round(scene.out) >= 3
    scene.finishes()
    assert bits(scene.out) == undisturbed


@fault("rank-crashes")
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_is_named(scene: Scene, fault: Fault, number: signal.Signals) -> None:
    process = scene.run()
    scene.reach(4)
    scene.signal(1, number)
    code, _, stderr = process_end = scene.end(process)
    scene.judge(fault, process_end)
    assert f"({number.name})" in stderr and code == 1


@fault("rank-hangs", quick=True)
@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.faults)])
def test_a_rank_that_hangs_is_named(scene: Scene, fault: Fault, rank: int) -> None:
    process = scene.run(TIMEOUT)
    scene.reach(4)
    scene.signal(rank, signal.SIGSTOP)
    end = scene.end(process)
    scene.judge(fault, end)
    assert end[2].startswith(f"error: rank {rank} did not answer")


@fault("rank-hangs")
def test_one_of_three(scene: Scene, fault: Fault) -> None:
    """The ring of three: who waits for the one that waits is no suspect."""
    process = scene.run(TIMEOUT, ranks=3)
    scene.reach(4)
    scene.signal(1, signal.SIGSTOP)
    end = scene.end(process)
    scene.judge(fault, end)
    assert end[2].startswith("error: rank 1 did not answer")


@fault("rank-terminated")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_terminated_rank(scene: Scene, fault: Fault, rank: int) -> None:
    process = scene.run()
    scene.reach(4)
    scene.signal(rank, signal.SIGTERM)
    scene.shows(fault, process)
    assert runs.checkpoint_round(scene.out) == rows(scene.out)[-1]  # nothing is lost


@fault("rank-never-starts")
def test_a_rank_that_never_starts(scene: Scene, fault: Fault) -> None:
    process = scene.run("cluster.start_timeout=5")
    until(lambda: len(processes_of(scene.folder)) >= 2)
    late = max(processes_of(scene.folder))  # rank 1 is started last
    scene.freeze(late)
    end = scene.end(process)
    scene.judge(fault, end)
    assert ": rank 1 did not start within 5 s" in end[2]


@fault("launcher-killed")
def test_without_its_launcher_a_run_saves_and_ends(
    scene: Scene, fault: Fault, undisturbed: Any
) -> None:
    process = scene.run(rounds=ROUNDS)
    scene.reach(4)
    process.kill()
    scene.shows(fault, process)
    until(lambda: processes_of(scene.folder) == [])
    if runs.checkpoint_round(scene.out) < ROUNDS:
        assert runs.checkpoint_round(scene.out) == rows(scene.out)[-1]
        scene.finishes()
    assert bits(scene.out) == undisturbed


@fault("launcher-stopped", quick=True)
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.faults),
        pytest.param(signal.SIGHUP, marks=pytest.mark.faults),
    ],
)
def test_stopped_on_request(scene: Scene, fault: Fault, number: signal.Signals) -> None:
    process = scene.run()
    scene.reach(4)
    process.send_signal(number)
    stdout = scene.shows(fault, process)
    assert "stopping after this round; Ctrl-C again to kill" in stdout
    assert runs.checkpoint_round(scene.out) == rows(scene.out)[-1]


@fault("ctrl-c-twice")
def test_twice_kills_at_once(scene: Scene, fault: Fault) -> None:
    """Even if a rank does not answer, so that the round would never be over."""
    process = scene.run()
    scene.reach(4)
    scene.signal(1, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    scene.shows(fault, process)


@fault("ctrl-c-before-round-1")
def test_before_the_first_round_nothing_is_kept(scene: Scene, fault: Fault) -> None:
    process = scene.run()
    until(lambda: len(processes_of(scene.folder)) >= 2)
    process.send_signal(signal.SIGINT)
    scene.shows(fault, process)
    assert not scene.out.exists()


@fault("failure-after-ctrl-c")
def test_a_failure_is_not_hidden_by_ctrl_c(scene: Scene, fault: Fault) -> None:
    process = scene.run()
    scene.reach(4)
    scene.signal(1, signal.SIGSTOP)  # so that it cannot save
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    scene.signal(1, signal.SIGKILL)
    end = scene.end(process)
    scene.judge(fault, end)
    assert end[2].startswith("error: rank 1 was killed")


@fault("failure-after-ctrl-c")
def test_after_ctrl_c_too_no_rank_is_waited_for_without_end(scene: Scene, fault: Fault) -> None:
    """One is killed, and the other hangs."""
    process = scene.run()
    scene.reach(4)
    scene.signal(1, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    scene.signal(0, signal.SIGKILL)
    end = scene.end(process)
    scene.judge(fault, end)
    assert end[2].startswith("error: rank 0 was killed")


@fault("reader-gone")
def test_a_pipe_that_is_closed(scene: Scene, fault: Fault) -> None:
    process = scene.run(rounds=ROUNDS)
    assert process.stdout
    while not process.stdout.readline().startswith("round "):
        assert process.poll() is None
    process.stdout.close()
    process.stdout = None
    scene.shows(fault, process)
    assert runs.finished(scene.out)


def test_the_stage_sees_what_is_left_behind(scene: Scene) -> None:
    """The law of every fault here, that no process is left, is one that can fail."""
    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)", str(scene.folder)]
    )
    try:
        assert until(lambda: processes_of(scene.folder)) == [left.pid]
    finally:
        left.kill()
        left.wait()
