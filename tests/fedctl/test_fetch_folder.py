"""A run folder arrives whole or not at all, whatever the stream of a pod brings."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedctl.cluster.transfer import folder, packer
from fedctl.cluster.transfer.folder import arriving, unpack
from fedctl.errors import RunError, UserError

WHAT = ("experiment.json", "metrics.jsonl", "logs")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A run folder in a pod."""
    folder = tmp_path / "pod" / "digits"
    (folder / "logs").mkdir(parents=True)
    (folder / "checkpoints" / "7").mkdir(parents=True)
    (folder / "experiment.json").write_text("{}")
    (folder / "metrics.jsonl").write_text('{"round":1}\n')
    (folder / "logs" / "rank-0.log").write_bytes(bytes(range(256)) * 1000)
    (folder / "model.safetensors").write_bytes(b"\0\r\n\xff" * 50_000)
    (folder / "checkpoints" / "7" / "rank-0.pt").write_bytes(b"weights")
    (folder / "secret").symlink_to("/etc/passwd")
    return folder


def packed(folder: Path, *wanted: str) -> bytes:
    """What the script writes when a pod's Python runs it, without anything of fedctl's."""
    script = Path(packer.__file__).read_text("utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, folder, *wanted], capture_output=True, check=True
    )
    return done.stdout


def in_pieces(stream: bytes, size: int = 1009) -> Iterator[bytes]:
    return (stream[start : start + size] for start in range(0, len(stream), size))


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_every_byte_arrives(there: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with arriving(tmp_path / "here" / "digits") as into:
        sizes = unpack(in_pieces(packed(there, ".")), into, lambda *n: told.append(n))
    expected = contents(there)
    del expected["secret"]  # a link may lead anywhere
    assert contents(tmp_path / "here" / "digits") == expected
    assert sizes == {name: len(content) for name, content in expected.items()}
    assert told[-1] == (sum(sizes.values()), sum(sizes.values()))
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["digits"]


def test_only_what_was_asked_for_arrives(there: Path, tmp_path: Path) -> None:
    with arriving(tmp_path / "here") as into:
        unpack([packed(there, *WHAT, "there-is-no-such")], into, lambda *_: None)
    assert set(contents(tmp_path / "here")) == {
        "experiment.json",
        "metrics.jsonl",
        "logs/rank-0.log",
    }


def test_a_file_that_goes_while_it_is_packed_is_left_out(there: Path, tmp_path: Path) -> None:
    class Removing(io.BytesIO):
        """Rank 0 removes an old checkpoint as soon as something is sent."""

        def write(self, content) -> int:
            (there / "checkpoints" / "7" / "rank-0.pt").unlink(missing_ok=True)
            (there / "model.safetensors").unlink(missing_ok=True)
            return super().write(content)

    stream = Removing()
    stream_size = tarfile.RECORDSIZE  # what tarfile gathers before it writes
    (there / "a").write_bytes(b"x" * 2 * stream_size)
    packer.pack(str(there), ["."], stream)
    with arriving(tmp_path / "here") as into:
        unpack([stream.getvalue()], into, lambda *_: None)
    assert "model.safetensors" not in contents(tmp_path / "here")
    assert "metrics.jsonl" in contents(tmp_path / "here")


@pytest.mark.parametrize("cut_off", [0.0, 0.3, 0.9, 0.98])
def test_a_stream_that_breaks_off_leaves_nothing(
    there: Path, tmp_path: Path, cut_off: float
) -> None:
    stream = packed(there, ".")
    end = stream.index(packer.LAST.encode())  # after it is only padding
    with pytest.raises(RunError, match="try again"), arriving(tmp_path / "here") as into:
        unpack([stream[: int(end * cut_off)]], into, lambda *_: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pod"]


def test_a_changed_byte_is_noticed(there: Path, tmp_path: Path) -> None:
    stream = packed(there, ".").replace(b"weights", b"wEights")
    with (
        pytest.raises(RunError, match=r"checkpoints/7/rank-0\.pt: damaged in transfer; try again"),
        arriving(tmp_path / "here") as into,
    ):
        unpack([stream], into, lambda *_: None)
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("name", ["../outside", "logs/../../outside"])
def test_no_file_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w|") as tar:
        packer.add(tar, packer.FIRST, 1)
        packer.add(tar, name, "gotcha")
    with (
        pytest.raises(RunError, match="outside of the folder"),
        arriving(tmp_path / "here") as into,
    ):
        unpack([stream.getvalue()], into, lambda *_: None)
    assert list(tmp_path.iterdir()) == []


def test_no_link_arrives(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w|") as tar:
        link = tarfile.TarInfo("model.safetensors")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(RunError, match="not a plain file"), arriving(tmp_path / "here") as into:
        unpack([stream.getvalue()], into, lambda *_: None)


def stream_of(*members: tuple[tarfile.TarInfo, bytes], total: Any = 100) -> bytes:
    """A stream of members with any header, whether or not so many bytes follow."""
    first = io.BytesIO()
    with tarfile.open(fileobj=first, mode="w|") as tar:
        packer.add(tar, packer.FIRST, total)
    head = first.getvalue()[: 2 * tarfile.BLOCKSIZE]  # without the blocks that end an archive
    return head + b"".join(
        member.tobuf(tarfile.PAX_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")
        for member, content in members
    )


def member(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size, found.type = size, kind
    return found


HOSTILE = {
    "too large": ([(member("a", 10**12), b"x" * 100)], 100, "sent more than the 0 MB that it ann"),
    "no room": ([], 10**18, "has room for .* MB, but the run folder has 1,000,000,000,000 MB"),
    "negative": ([], -1, "is damaged .its size is no number.; try again"),
    "no number": ([], "x", "is damaged .its size is no number.; try again"),
    "device": ([(member("a", 0, tarfile.CHRTYPE), b"")], 100, "sent a, which is not a plain file"),
    "pipe": ([(member("a", 0, tarfile.FIFOTYPE), b"")], 100, "sent a, which is not a plain file"),
    "hard link": ([(member("a", 0, tarfile.LNKTYPE), b"")], 100, "a, which is not a plain file"),
    "folder": ([(member("a", 0, tarfile.DIRTYPE), b"")], 100, "a, which is not a plain file"),
    "sparse": ([(member("a", 9, tarfile.GNUTYPE_SPARSE), b"")], 100, "pod|damaged|connection"),
    "long header": ([(member("a", 8 * 10**9, tarfile.XHDTYPE), b"")], 100, "header of 8,000,000,0"),
    "long name": ([(member("a", 8 * 10**9, tarfile.GNUTYPE_LONGNAME), b"")], 100, "a header of"),
    "long list": ([(member(packer.LAST, 8 * 10**9), b"")], 100, "a list of 8,000,000,000 bytes"),
    "list of lists": ([(member(packer.LAST, 2), b"[]")], 100, "is damaged .no checksums."),
    "deep list": ([(member(packer.LAST, 9999), b"[" * 9999)], 100, "is damaged"),
    "twice": ([(member("a", 1), b"x")] * 2, 100, "cannot be written: File exists"),
}  # fmt: skip


@pytest.mark.parametrize(("members", "total", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_a_pod_sends_is_trusted(
    tmp_path: Path, members: Any, total: Any, problem: str
) -> None:
    with pytest.raises(RunError, match=problem) as error, arriving(tmp_path / "here") as into:
        unpack([stream_of(*members, total=total)], into, lambda *_: None)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_the_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MOST_FILES", 3)
    files = [(member(str(number), 1), b"x") for number in range(4)]
    with pytest.raises(RunError, match="more than 3 files"), arriving(tmp_path / "here") as into:
        unpack([stream_of(*files)], into, lambda *_: None)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o755), (0o077, 0o700), (0o000, 0o777)])
def test_the_folder_has_the_rights_of_any_new_one(
    there: Path, tmp_path: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        with arriving(tmp_path / "here") as into:
            unpack([packed(there, ".")], into, lambda *_: None)
    finally:
        os.umask(before)
    assert (tmp_path / "here").stat().st_mode & 0o777 == mode


def test_a_folder_with_something_in_it_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(UserError, match=r"^--out .*mine: exists and is not empty"),
        arriving(tmp_path / "mine"),
    ):
        raise AssertionError("nothing may be asked of a cluster by now")
    assert contents(tmp_path / "mine") == {"thesis.tex": b"years of work"}


def test_a_folder_that_cannot_be_replaced_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    with (
        pytest.raises(RunError, match=r"^--out .*link: cannot be replaced: "),
        arriving(tmp_path / "link") as into,
    ):
        (into / "metrics.jsonl").write_text("")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]


def test_the_script_fits_into_an_address() -> None:
    from urllib.parse import urlencode

    script = Path(packer.__file__).read_text("utf-8")
    assert len(urlencode({"command": script})) < 4096  # proxies allow 8 KiB or more
