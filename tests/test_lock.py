"""The lock on a run folder: who only looks at it takes it from nobody."""

import fcntl
import os
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
