"""Some thousand rounds: what ranks and fedctl hold of memory and descriptors does not grow."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fedctl.report import runs
from tests import patience
from tests.faults.scene import Scene, until
from tests.fedctl.processes import ended

ROUNDS, WINDOWS = 3000, 6
WARM = 2  # windows in which allocators and caches fill
GROWTH = 1.001  # of the mean of a window over an earlier one's: 0.6 MB, or 600 bytes a round


@dataclass
class Window:
    """Some hundred rounds of one process: the mean of its memory, the median of its files."""

    bytes: float
    descriptors: float


def watched(out: Path, processes: dict[str, psutil.Process], last: int) -> dict[str, Window]:
    """Sample processes until this round is over."""
    memory: dict[str, list[int]] = {name: [] for name in processes}
    descriptors: dict[str, list[int]] = {name: [] for name in processes}

    def over() -> bool:
        for name, process in processes.items():
            memory[name].append(process.memory_info().rss)
            descriptors[name].append(process.num_fds())
        time.sleep(0.05)
        return lines(out) >= last

    until(over, 600)
    return {
        name: Window(statistics.mean(memory[name]), statistics.median(descriptors[name]))
        for name in processes
    }


def lines(out: Path) -> int:
    return (out / runs.METRICS).read_bytes().count(b"\n")


@pytest.mark.faults
@pytest.mark.timeout(patience.seconds(900))
def test_nothing_grows_with_the_rounds(scene: Scene) -> None:
    """Records in files, checkpoints, evaluations and rows all the time, and late windows alike."""
    process = scene.run(
        *["client_memory=0", "checkpoint.every=25", "sync.name=gwpf", "model.name=softmax"],
        *["optimizer.momentum=0.9", "optimizer.state=keep", "schedule.phases.0.steps=1"],
        rounds=ROUNDS,
    )
    scene.reach(2)
    watching = {"fedctl": psutil.Process(process.pid)}
    watching |= {f"rank {rank}": psutil.Process(scene.pid(rank)) for rank in (0, 1)}
    held: dict[str, list[Window]] = {name: [] for name in watching}
    for window in range(1, WINDOWS):
        last = ROUNDS * window // WINDOWS
        for name, found in watched(scene.out, watching, last).items():
            held[name].append(found)
    code, _, stderr = ended(process)
    assert code == 0, stderr
    for name, windows in held.items():
        print(name, [(round(w.bytes / 1e6, 2), w.descriptors) for w in windows])
        assert flat(windows), (name, windows)


def flat(windows: list[Window]) -> bool:
    """Whether the last window holds no more than the first one after warming up."""
    first, *_, last = windows[WARM:]
    return last.bytes < GROWTH * first.bytes and last.descriptors < first.descriptors + 1


def test_what_grows_is_seen() -> None:
    level = [Window(5e8, 20)] * (WINDOWS - 1)
    assert flat(level)
    assert not flat([Window(w.bytes * 1.001**k, 20) for k, w in enumerate(level)])
    assert not flat([Window(w.bytes, 20 + k) for k, w in enumerate(level)])
