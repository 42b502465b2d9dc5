"""The terminal of a real run is closed, or goes away without a word; the run outlives it."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fedctl.report import runs
from fedctl.terminal import UNWRITABLE
from tests.faults.scene import End, Scene, fault, rows, until
from tests.faults.table import Fault
from tests.fedctl.processes import ended, processes_of, wait_for_round
from tests.fedctl.terminals import Terminal

DISOWNED = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]  # as a shell's `disown`


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


def end_of(process: "subprocess.Popen[str]") -> End:
    """How it ends; its errors without the line about the terminal, which comes first if at all."""
    code, stdout, stderr = ended(process)
    return code, stdout, stderr.removeprefix(f"{UNWRITABLE}\n")


@fault("launcher-stopped", quick=True)
def test_a_terminal_that_is_closed(scene: Scene, fault: Fault, terminal: Terminal) -> None:
    process = scene.run(terminal=terminal)
    scene.reach(4)
    until(lambda: b"round" in terminal.shown)  # the live display is what is lost
    terminal.close()
    scene.judge(fault, end_of(process))
    assert runs.checkpoint_round(scene.out) == rows(scene.out)[-1]


@fault("launcher-stopped")
def test_with_all_that_it_writes(scene: Scene, fault: Fault, terminal: Terminal) -> None:
    """Its last line cannot be written either."""
    process = scene.run(terminal=terminal, errors=subprocess.STDOUT)
    scene.reach(4)
    terminal.close()
    assert ended(process)[0] == fault.code
    assert runs.checkpoint_round(scene.out) == rows(scene.out)[-1]
    assert processes_of(scene.folder) == []


@fault("ctrl-c-before-round-1")
def test_before_the_first_round(scene: Scene, fault: Fault, terminal: Terminal) -> None:
    process = scene.run(terminal=terminal)
    until(lambda: len(processes_of(scene.folder)) >= 2)
    terminal.close()
    scene.judge(fault, end_of(process))
    assert not scene.out.exists()


@fault("terminal-gone")
@pytest.mark.parametrize("errors", [subprocess.PIPE, subprocess.STDOUT], ids=["log", "terminal"])
def test_a_terminal_that_is_gone_without_a_signal(
    scene: Scene, fault: Fault, terminal: Terminal, errors: int
) -> None:
    process = scene.run(rounds=60, prefix=DISOWNED, terminal=terminal, errors=errors)
    scene.reach(4)
    terminal.close()
    code, _, stderr = ended(process)
    assert (code, stderr) == (fault.code, f"{fault.notice}\n" if stderr is not None else None)
    assert runs.finished(scene.out) and (scene.out / runs.REPORT_PAGE).exists()


@fault("terminal-gone")
def test_a_run_by_nohup(scene: Scene, fault: Fault) -> None:
    """What nohup had ignored stays ignored."""
    process = scene.run(rounds=60, prefix=["nohup"])
    scene.reach(4)
    process.send_signal(signal.SIGHUP)
    code, _, _ = ended(process)
    assert code == fault.code and runs.finished(scene.out)


@fault("launcher-stopped")
def test_the_terminal_of_a_sweep(
    scene: Scene, fault: Fault, terminal: Terminal, tmp_path: Path
) -> None:
    """Its runs save though they have no checkpoints of their own, and can all be resumed."""
    tree = {"base": "fedavg-digits", "set": {"rounds": 5000, "clients": 4}, "seeds": 2}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    process = scene.start("sweep", "mine.yaml", "--jobs", 2, "--out", "out", terminal=terminal)
    for seed in (1, 2):
        wait_for_round(scene.out / f"seed={seed}", 2)
    terminal.close()
    code, _, stderr = ended(process)
    assert code == fault.code
    assert stderr.splitlines()[-1] == (
        "stopped; 0 of 2 runs have finished; run the same command again to resume"
    )
    for seed in (1, 2):
        out = scene.out / f"seed={seed}"
        assert runs.checkpoint_round(out) == rows(out)[-1]
    assert processes_of(scene.folder) == []
