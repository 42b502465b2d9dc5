"""The lock on a run folder: who only looks at it takes it from nobody."""

import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from trainer.lock import NAME, Lock, Taken, holder


def test_a_look_at_who_holds_it_does_not_make_another_fail(tmp_path: Path) -> None:
    Lock(tmp_path).release()
    looking = os.open(tmp_path / NAME, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)  # as `holder` does, for longer
    ended = threading.Timer(0.05, os.close, [looking])
    ended.start()
    Lock(tmp_path).release()
    ended.join()


def test_a_folder_that_is_held_is_refused_soon(tmp_path: Path) -> None:
    held, start = Lock(tmp_path), time.monotonic()
    with pytest.raises(Taken, match=f"^process {os.getpid()}$"):
        Lock(tmp_path)
    assert time.monotonic() - start < 5
    held.release()
    assert holder(tmp_path) is None


def test_a_lock_file_of_other_signs_names_nobody(tmp_path: Path) -> None:
    held = Lock(tmp_path)
    os.pwrite(held.descriptor, "²\n".encode(), 0)
    os.ftruncate(held.descriptor, 3)
    assert holder(tmp_path) == "process ²"
    held.release()


def test_where_fedctl_was_killed_the_ranks_that_hold_it_are_named(tmp_path: Path) -> None:
    held, logs = Lock(tmp_path), tmp_path / "logs"
    os.ftruncate(held.descriptor, 0)
    os.pwrite(held.descriptor, f"{2**22 + 1} {socket.gethostname()}\n".encode(), 0)
    assert holder(tmp_path) == f"process {2**22 + 1}"
    logs.mkdir()
    for rank, pid, code in ((0, os.getpid(), 1), (1, os.getpid(), None), (2, 2**22 + 2, None)):
        record = {"rank": rank, "pid": pid, "exit": code}
        (logs / f"rank-{rank}.json").write_text(json.dumps(record))
    (logs / "rank-3.json").write_text("no record")
    assert holder(tmp_path) == f"process {os.getpid()} (rank 1)"
    held.release()
