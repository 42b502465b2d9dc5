"""The manifest of a checkpoint: what belongs to it, and whether all of it is as it was written.

A checkpoint is a folder `round-N`; the manifest is its last file, so a folder without one was never
finished. It is two lines: JSON, and the SHA-256 of the first line. Needs only the standard library,
because fedctl reads it too.
"""

import errno
import hashlib
import json
import os
import re
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.files import not_regular, open_regular

EXPERIMENT, METRICS = "experiment.json", "metrics.jsonl"  # in a run folder
CHANGES = "changes.jsonl"  # there too: a line for each resume with other settings or samples
FOLDER = "checkpoints"  # there too
NAME = "manifest.json"
MODEL = "model.safetensors"  # the agreed model, in a checkpoint and in a finished run
FORMAT = 5  # of a checkpoint; it changes with each change of what is in the files
ROUND = re.compile(r"round-([0-9]{1,10})")
MOST_ROUNDS, MOST_RANKS = 10**9, 10_000  # as in an experiment; trainer/config is not known here
# What the system says of a file that is none or not there. Whatever else it says is about the disk
# or the network at this moment, and no reason to pass a checkpoint over.
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


class Damaged(ValueError):
    """A checkpoint, or a file, that is not what was written; one line, without the folder."""


@dataclass(frozen=True)
class Seal:
    """What a file must be: its length and its SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of and depends on.

    experiment: all settings; data: the fingerprint of the data set; metrics: how far metrics.jsonl
    had been written, None if there was none; files: of this folder, by relative path; versions: of
    fedctl and torch; edges: of a pipeline, the first layer of each stage, and their number.
    """

    round: int
    ranks: int
    experiment: dict[str, Any]
    data: str
    metrics: Seal | None
    files: dict[str, Seal]
    versions: dict[str, str]
    edges: list[int] = field(default_factory=list)

    def text(self) -> str:
        """Return the content of the file."""
        values = asdict(self)
        if not self.edges:  # as in checkpoints from before there were pipelines
            del values["edges"]
        line = json.dumps({"format": FORMAT, **values}, sort_keys=True)
        return f"{line}\n{hashlib.sha256(line.encode()).hexdigest()}\n"


def folder_of(checkpoints: Path, number: int) -> Path:
    """Return the folder of the checkpoint after this round."""
    return checkpoints / f"round-{number:06d}"


def number_of(checkpoint: Path) -> int:
    """Return the round after which a checkpoint was saved, by its name."""
    match = ROUND.fullmatch(checkpoint.name)
    return int(match[1]) if match else -1


def found(checkpoints: Path) -> list[Path]:
    """Return the checkpoints that were saved to the end, the newest first."""
    try:
        paths = [checkpoints / name for name in os.listdir(checkpoints)]
    except OSError as error:
        _raise_unless_absent(error)
        return []
    named = [path for path in paths if number_of(path) >= 0]
    return sorted((p for p in named if _is_file(p / NAME)), key=number_of, reverse=True)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        _raise_unless_absent(error)
        return False


def _raise_unless_absent(error: OSError) -> None:
    if error.errno not in ABSENT:
        raise error


def read(checkpoint: Path) -> Manifest:
    """Read a manifest; raise Damaged if it is not what was written, or of another format."""
    try:
        line, digest, *rest = (checkpoint / NAME).read_bytes().split(b"\n")
        if hashlib.sha256(line).hexdigest().encode() != digest or rest != [b""]:
            raise ValueError
        values = json.loads(line)
        if values.pop("format") != FORMAT:
            raise Damaged("was saved by another version of fedctl")
        values["files"] = {name: Seal(**seal) for name, seal in values["files"].items()}
        values["metrics"] = values["metrics"] and Seal(**values["metrics"])
        return _typed(Manifest(**values))
    except Damaged:
        raise
    except OSError as error:
        _raise_unless_absent(error)
        raise Damaged(f"{NAME} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"{NAME} is damaged") from None


def _typed(found: Manifest) -> Manifest:
    """Return a manifest whose values have the types they claim; raise ValueError otherwise."""
    seals = [*found.files.values(), *filter(None, [found.metrics])]
    counts = [found.round, found.ranks, *found.edges, *(seal.bytes for seal in seals)]
    texts = [found.data, *found.versions.values(), *(seal.sha256 for seal in seals)]
    whole = isinstance(found.experiment, dict) and all(isinstance(text, str) for text in texts)
    if not whole or any(type(count) is not int or count < 0 for count in counts):
        raise ValueError
    if found.round > MOST_ROUNDS or not 0 < found.ranks <= MOST_RANKS:
        raise ValueError
    return found


def seal(path: Path) -> Seal:
    """Return the length and the SHA-256 of a file."""
    with path.open("rb") as file:
        return Seal(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def check(path: Path, wanted: Seal | None, name: str = "") -> None:
    """Raise Damaged unless this file is the one that was sealed."""
    name = name or path.name
    if wanted is None:
        raise Damaged(f"{name} does not belong to it")
    try:
        if not_regular(path):
            raise Damaged(f"{name} is not a file")
        size = path.stat().st_size
        if size == wanted.bytes and seal(path) == wanted:
            return
    except OSError as error:
        _raise_unless_absent(error)
        raise Damaged(f"{name} is missing") from None
    if size != wanted.bytes:
        raise Damaged(f"{name} has {size} bytes, not the {wanted.bytes} that were written")
    raise Damaged(f"{name} is damaged: its SHA-256 does not match")


def begins_with(path: Path, wanted: Seal) -> None:
    """Raise Damaged unless a file that has grown still begins with what was sealed."""
    try:
        if not_regular(path):
            raise Damaged(f"{path.name} is not a file")
        with path.open("rb") as file:
            start = file.read(wanted.bytes)
    except OSError as error:
        _raise_unless_absent(error)
        raise Damaged(f"{path.name} is missing") from None
    if len(start) < wanted.bytes:
        raise Damaged(
            f"{path.name} was cut: it has {len(start)} bytes, and had {wanted.bytes} then"
        )
    if hashlib.sha256(start).hexdigest() != wanted.sha256:
        raise Damaged(f"{path.name} was changed before its byte {wanted.bytes}")


def whole_model(path: Path) -> bool:
    """Return whether a .safetensors file is as long as its header says; its values are not read.

    Raise OSError if it cannot be told at the moment.
    """
    try:
        if not_regular(path):
            return False
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= size - 8:
                return False
            tensors = json.loads(file.read(length))
            tensors.pop("__metadata__", None)
            ends = [tensor["data_offsets"][1] for tensor in tensors.values()]
            return bool(8 + length + max(ends, default=0) == size)
    except OSError as error:
        _raise_unless_absent(error)
        return False
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return False
