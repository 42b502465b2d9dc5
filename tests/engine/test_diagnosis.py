"""Failures in words: what a person can act on is named, and only a bug is called one."""

import errno
import os
from pathlib import Path

import pytest
import torch

from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.engine.diagnosis import explain

RUN = Path("/runs/a")


@pytest.mark.parametrize(
    "error,code,text",
    [
        (ConfigError("rounds", "0 is too few; use 1"), 2, "rounds: 0 is too few; use 1"),
        (EnvironmentFault("lost another rank: closed"), 1, "lost another rank: closed"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/no/such/metrics.jsonl"),
            1,
            "the disk of /no/such is full; make room on it, or use another folder",
        ),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            1,
            "the disk of /runs/a is full; make room on it, or use another folder",
        ),
        (
            OSError(errno.EROFS, os.strerror(errno.EROFS), "/runs/a"),
            1,
            "/runs/a cannot be used: read-only file system; change its permissions, or use "
            "another folder",
        ),
        (
            FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/data/train/1.jpg"),
            1,
            "/data/train/1.jpg does not exist any more; put it back",
        ),
        (ConnectionResetError(), 1, "connectionreseterror (ConnectionResetError)"),
    ],
)
def test_each_has_its_line(error: Exception, code: int, text: str) -> None:
    assert explain(error, RUN) == (code, text)


def test_memory_is_named_by_whichever_library_asked_for_it() -> None:
    with pytest.raises(RuntimeError) as asked:
        torch.empty(2**52)
    code, text = explain(asked.value, RUN) or (0, "")
    assert code == 1 and text.startswith("out of memory (16777216.0 GiB more were needed); use a ")
    code, text = explain(MemoryError(), RUN) or (0, "")
    assert code == 1 and text.startswith("out of memory; use a smaller schedule.batch_size")
    cuda = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"
    assert "2.50 GiB" in (explain(torch.OutOfMemoryError(cuda), RUN) or (0, ""))[1]


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("shapes differ"), AssertionError()])
def test_the_rest_is_a_bug(error: Exception) -> None:
    assert explain(error, RUN) is None
