"""Real ranks for tests: processes in a gloo group that run the functions they are handed.

Started once per size and session from a fork server that has imported torch already, so that a law
costs milliseconds, not the seconds that four fresh interpreters need.
"""

import copy
import json
import multiprocessing as mp
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

from tests import patience

MP = mp.get_context("forkserver")
MP.set_forkserver_preload(["tests.jobs", "tests.pipeline_jobs", "sklearn.datasets"])


class Ranks:
    """`size` processes; `run` calls a function on each and returns what each returned."""

    def __init__(self, size: int) -> None:
        self.folder = tempfile.mkdtemp(prefix="fedctl-test-group-")
        rendezvous = os.path.join(self.folder, "rendezvous")
        self.pipes = []
        self.processes = []
        for rank in range(size):
            ours, theirs = MP.Pipe()
            process = MP.Process(target=_serve, args=(rank, size, rendezvous, theirs), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        for pipe in self.pipes:
            pipe.send((function, args))
        answers = [pipe.recv() for pipe in self.pipes]
        failed = [text for ok, text in answers if not ok]
        if failed:
            raise AssertionError("a rank failed:\n" + "\n".join(failed))
        return [value for _, value in answers]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(patience.seconds(10))
        shutil.rmtree(self.folder, ignore_errors=True)


STARTED: dict[int, Ranks] = {}


def ranks(size: int) -> Ranks:
    """The session's group of this size; one process for size 1 too, so that all run alike."""
    if size not in STARTED:
        STARTED[size] = Ranks(size)
    return STARTED[size]


ANSWERED: dict[str, list[Any]] = {}  # what the group of a size answered when it was asked something
MOST_ANSWERS = 32


def once(size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What a group answers; if it was asked the same lately, what it answered then.

    For jobs whose answer depends on nothing but these arguments, which are plain values: several
    laws look at the same run.
    """
    asked = json.dumps([size, function.__module__, function.__qualname__, args], sort_keys=True)
    answers = ANSWERED.pop(asked, None)
    if answers is None:
        answers = ranks(size).run(function, *args)
    ANSWERED[asked] = answers  # behind all others: the first ones go
    for old in [*ANSWERED][:-MOST_ANSWERS]:
        del ANSWERED[old]
    return copy.deepcopy(answers)


def close_all() -> None:
    """End every process that was started."""
    while STARTED:
        STARTED.popitem()[1].close()


def _serve(rank: int, size: int, rendezvous: str, pipe: Any) -> None:
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{rendezvous}",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=patience.seconds(30)),
        )
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            break
        try:
            pipe.send((True, function(*args)))
        except BaseException:
            pipe.send((False, f"rank {rank}: {traceback.format_exc()}"))
    if size > 1:
        dist.destroy_process_group()
