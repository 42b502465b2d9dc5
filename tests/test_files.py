"""Files are written whole or not at all, and JSON is what any reader of JSON can read."""

import errno
import json
import os
from pathlib import Path

import pytest

from trainer import files
from trainer.files import as_json, write_atomically


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
    assert seen[0] == (5, "old")


@pytest.mark.parametrize("lasting", [True, False])
def test_the_name_reaches_the_disk_unless_that_does_not_matter(
    tmp_path: Path, monkeypatch, lasting
) -> None:
    synced = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    write_atomically(tmp_path / "file", "", lasting=lasting)
    assert synced == ([tmp_path] if lasting else [])


def test_a_file_system_that_cannot_sync_a_folder_is_no_failure(tmp_path: Path, monkeypatch) -> None:
    code = errno.EINVAL

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    files.sync_folder(tmp_path)
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        files.sync_folder(tmp_path)


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


@pytest.mark.parametrize("wrong", ["NaN", "Infinity", "-Infinity"])
def test_json_has_null_in_place_of_what_is_not_finite(wrong: str) -> None:
    value = json.loads(f'{{"loss": {wrong}, "rows": [1.5, {{"a": {wrong}}}], "text": "{wrong}"}}')
    text = as_json(value, separators=(",", ":"))
    assert text == f'{{"loss":null,"rows":[1.5,{{"a":null}}],"text":"{wrong}"}}'


def test_finite_json_is_what_it_was() -> None:
    value = {"b": [1, 2.5, None, True], "a": {"ä": "x"}}
    for layout in ({}, {"indent": 2}, {"ensure_ascii": False, "sort_keys": True}):
        assert as_json(value, **layout) == json.dumps(value, **layout)
