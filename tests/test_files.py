"""Files are written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from trainer.files import write_atomically


@pytest.mark.parametrize("content", ["naïve\n", b"\x00\xff"])
def test_a_file_is_replaced_by_text_or_bytes(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode("utf-8") if isinstance(content, str) else content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_content_reaches_the_disk_before_the_name(tmp_path: Path, monkeypatch) -> None:
    path, seen = tmp_path / "file", []
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda number: seen.append((os.fstat(number).st_size,
                                                                 path.read_text())))  # fmt: skip
    write_atomically(path, "newer")
    assert seen == [(5, "old")]


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch, place) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if place == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_missing_is_the_error_that_the_caller_sees(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "file", "new")
