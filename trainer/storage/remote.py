"""Checkpoints at a URL, for ranks that share no folder.

Each rank works in a folder of its own, and uploads what it has written; rank 0 uploads the manifest
when all have. An object store renames nothing, so the manifest is what makes a checkpoint one: it
is the last object that is stored, and the first that is deleted.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from trainer import manifest
from trainer.config.errors import EnvironmentFault
from trainer.manifest import Damaged, Seal
from trainer.storage.objects import Objects
from trainer.storage.place import CLIENTS, Place

ASIDE = f"damaged-{manifest.NAME}"  # the manifest of a checkpoint that was passed over


class Remote(Place):
    """The checkpoints at a URL; `scratch`: a folder that no other rank uses."""

    shared = False

    def __init__(self, objects: Objects, scratch: Path) -> None:
        self.objects, self.scratch = objects, scratch

    def __str__(self) -> str:
        return f"{self.objects.url}/{manifest.FOLDER}"

    def numbers(self) -> list[int]:
        return _finished(_by_round(self.objects.names(manifest.FOLDER)))

    def begin(self, number: int) -> None:
        """Remove what an earlier attempt at this round has left."""
        self.discard(number)

    def workspace(self, rank: int) -> Path:
        return self._empty_scratch()

    def deliver(self, number: int, names: Iterable[str]) -> None:
        self.objects.put_all({_in(number, name): self.scratch / name for name in names})

    def finish(self, number: int, files: Mapping[str, Seal]) -> list[int]:
        there = self.objects.names(manifest.FOLDER)
        for name, seal in files.items():
            if there.get(_in(number, name)) != seal.bytes:
                raise EnvironmentFault(
                    f"{self.objects.url}/{_in(number, name)}: is not there as it was uploaded; "
                    "check that nothing else writes to this URL"
                )
        self.objects.put(_in(number, manifest.NAME), self.scratch / manifest.NAME)
        rounds = _by_round(there)
        rounds[number].add(manifest.NAME)
        for other, names in rounds.items():
            if not {manifest.NAME, ASIDE} & names:  # its upload was not finished
                self.outgrow(other)
        return _finished(rounds)

    def leave(self, rank: int) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def opened(self, number: int) -> Path:
        self._empty_scratch()
        self.objects.fetch(_in(number, manifest.NAME), self.scratch / manifest.NAME)
        return self.scratch

    def bring(self, number: int, names: Iterable[str]) -> None:
        wanted = [name for name in names if not (self.scratch / name).exists()]
        if any(".." in PurePosixPath(name).parts for name in wanted):
            raise Damaged(f"{manifest.NAME} names files outside of the checkpoint")
        self.objects.fetch_all({_in(number, name): self.scratch / name for name in wanted})

    def set_aside(self, number: int) -> None:
        """Give its manifest another name."""
        content = self.objects.read(_in(number, manifest.NAME))
        if content is not None:
            self.objects.put(_in(number, ASIDE), content)
            self.objects.delete([_in(number, manifest.NAME)])

    def discard(self, number: int) -> None:
        names = self.objects.names(_in(number))
        self.objects.delete({_in(number, manifest.NAME)} & names.keys())
        self.objects.delete(names.keys() - {_in(number, manifest.NAME)})

    def forget(self) -> None:
        for number in _by_round(self.objects.names(manifest.FOLDER)):
            self.discard(number)

    def _empty_scratch(self) -> Path:
        shutil.rmtree(self.scratch, ignore_errors=True)
        (self.scratch / CLIENTS).mkdir(parents=True)
        return self.scratch


def _by_round(paths: Iterable[str]) -> dict[int, set[str]]:
    """Return the names of the files that there are of each round."""
    found: dict[int, set[str]] = {}
    for path in paths:
        _, folder, *rest = PurePosixPath(path).parts
        number = manifest.number_of(Path(folder))
        if number >= 0:
            found.setdefault(number, set()).add("/".join(rest))
    return found


def _finished(rounds: Mapping[int, set[str]]) -> list[int]:
    return sorted((n for n, names in rounds.items() if manifest.NAME in names), reverse=True)


def _in(number: int, name: str = "") -> str:
    """Return the name of a checkpoint's file below the run's URL."""
    return str(manifest.folder_of(Path(manifest.FOLDER), number) / name)
