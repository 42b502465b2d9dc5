"""List of the image files in class folders: made once, then read from a cache.

No other module reads such folders, and no image is opened here. A file costs its name and about ten
bytes of memory: a million paths as Python strings would cost hundreds of megabytes in every rank.
"""

import hashlib
import io
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.config.errors import ConfigError
from trainer.data.images import cache
from trainer.files import write_atomically

SUFFIXES = (b".jpg", b".jpeg")
LAYOUT = "data.path needs train/ and val/, each with a sub-folder of JPEG files for each class"
VERSION = "1"  # of the cached file

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Files:
    """The images of one part; a label is the position of the class among the sorted names."""

    root: Path
    classes: tuple[str, ...]  # sorted
    labels: Numbers  # (n,)
    names: bytes  # of all files, one after the other
    ends: Numbers  # (n,) the end of each name in `names`

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> str:
        begin = self.ends[row - 1] if row else 0
        name = os.fsdecode(self.names[begin : self.ends[row]])
        return os.path.join(self.root, self.classes[self.labels[row]], name)


def listed(root: Path) -> tuple[Files, Files]:
    """List the files of root/train and root/val, which must have the same classes."""
    train, val = _part(root, "train"), _part(root, "val")
    for one, other in ((train, val), (val, train)):
        if lacking := sorted(set(one.classes) - set(other.classes)):
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            raise ConfigError(
                "data.path",
                f"{one.root} has classes that {other.root} lacks: {', '.join(lacking[:5])}{more}; "
                "both need the same sub-folders",
            )
    return train, val


def _part(root: Path, name: str) -> Files:
    folder = root / name
    try:
        stamps = sorted(
            (entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(folder) if entry.is_dir()
        )
    except OSError as error:
        raise ConfigError("data.path", f"{folder} cannot be read ({error}); {LAYOUT}") from error
    if not stamps:
        raise ConfigError("data.path", f"{folder} has no sub-folders; {LAYOUT}")
    classes = tuple(name for name, _ in stamps)
    # The time of a folder changes with each file added or removed, so it shows a stale list.
    fingerprint = hashlib.sha256(repr((VERSION, stamps)).encode(errors="surrogateescape"))
    places = _places(folder)
    for place in places:
        if (found := _read(place, fingerprint.hexdigest(), len(classes))) is not None:
            return Files(folder, classes, *found)
    files = _walk(folder, classes)
    _write(places, fingerprint.hexdigest(), files)
    return files


def _walk(folder: Path, classes: tuple[str, ...]) -> Files:
    names: list[bytes] = []
    counts = []
    for name in classes:
        found = sorted(
            entry
            for entry in os.listdir(os.fsencode(folder / name))
            if entry.lower().endswith(SUFFIXES)
        )
        if not found:
            raise ConfigError(
                "data.path", f"{folder / name} holds no .jpg or .jpeg file; add some or remove it"
            )
        names += found
        counts.append(len(found))
    return Files(
        folder,
        classes,
        labels=np.repeat(np.arange(len(classes)), counts),
        names=b"".join(names),
        ends=np.cumsum([len(name) for name in names]),
    )


# ---------------------------------------------------------------------------------------------
# the cache


def _places(folder: Path) -> list[Path]:
    """Return where a list may be: next to the data, for all ranks and pods, or the user's cache."""
    places = [folder.parent / f".fedctl-{folder.name}.npz"]
    try:
        number = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        places.append(cache() / f"listing-{number}.npz")
    except RuntimeError:  # the user has no home folder, as in many pods
        pass
    return places


def _read(place: Path, fingerprint: str, classes: int) -> tuple[Numbers, bytes, Numbers] | None:
    try:
        with np.load(place, allow_pickle=False) as file:
            if str(file["fingerprint"]) != fingerprint:
                return None
            labels, names, ends = file["labels"], file["names"], file["ends"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError):
        return None  # absent or damaged: the folder is listed again
    whole = (
        labels.ndim == 1
        and labels.shape == ends.shape
        and len(labels) > 0
        and labels.dtype == ends.dtype == np.int64
        and names.dtype == np.uint8
        and labels.min() >= 0
        and labels.max() < classes
        and ends[0] > 0
        and (np.diff(ends) > 0).all()
        and ends[-1] == len(names)
    )
    return (labels, names.tobytes(), ends) if whole else None


def _write(places: list[Path], fingerprint: str, files: Files) -> None:
    """Write the list to the first place that is writable; if none is, the next run lists again."""
    content = io.BytesIO()
    np.savez(
        content,
        fingerprint=np.array(fingerprint),
        labels=files.labels,
        names=np.frombuffer(files.names, np.uint8),
        ends=files.ends,
    )
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, content.getvalue())
            return
        except OSError:
            continue
