"""Checkpoints in a folder that all ranks share: written beside it, then renamed into place."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from trainer import manifest
from trainer.config.errors import EnvironmentFault
from trainer.files import sync_folder
from trainer.manifest import Seal
from trainer.storage.place import CLIENTS, Place

DAMAGED = "damaged-"  # prefix of a checkpoint that was passed over


class Folder(Place):
    """The checkpoints in a folder."""

    shared = True

    def __init__(self, path: Path) -> None:
        self.path, self.partial = path, path / "partial"

    def __str__(self) -> str:
        return str(self.path)

    def numbers(self) -> list[int]:
        return [manifest.number_of(path) for path in manifest.found(self.path)]

    def cut(self) -> list[int]:
        try:
            there = {manifest.number_of(path) for path in self.path.iterdir()}
        except FileNotFoundError:
            return []
        return sorted(there - {-1, *self.numbers()})

    def begin(self, number: int) -> None:
        _remove(self.partial)
        if not self.path.is_dir():
            self.path.mkdir()  # not the run folder: if it was removed, so is the run
            sync_folder(self.path.parent)
        (self.partial / CLIENTS).mkdir(parents=True)

    def workspace(self, rank: int) -> Path:
        if not self.partial.is_dir():
            raise EnvironmentFault(
                f"{self.path} is not shared: rank {rank} does not see the folder that rank 0 "
                "created; give all ranks one volume that many nodes can write to (ReadWriteMany), "
                "or keep the run at a URL (storage.url)"
            )
        return self.partial

    def deliver(self, number: int, names: Iterable[str]) -> None:
        """Do nothing: they are where they belong."""

    def finish(self, number: int, files: Mapping[str, Seal]) -> list[int]:
        sync_folder(self.partial / CLIENTS)
        sync_folder(self.partial)
        self.set_aside(number)
        self.partial.rename(self.opened(number))
        sync_folder(self.path)
        return self.numbers()

    def leave(self, rank: int) -> None:
        if rank == 0:
            shutil.rmtree(self.partial, ignore_errors=True)

    def opened(self, number: int) -> Path:
        return manifest.folder_of(self.path, number)

    def bring(self, number: int, names: Iterable[str]) -> None:
        """Do nothing: they are on the disk."""

    def set_aside(self, number: int) -> None:
        """Rename it."""
        checkpoint = self.opened(number)
        if os.path.lexists(checkpoint):
            place = checkpoint.with_name(DAMAGED + checkpoint.name)
            _remove(place)
            checkpoint.rename(place)

    def discard(self, number: int) -> None:
        checkpoint = self.opened(number)
        if not checkpoint.is_symlink():
            (checkpoint / manifest.NAME).unlink(missing_ok=True)
        _remove(checkpoint)

    def forget(self) -> None:
        for checkpoint in manifest.found(self.path):
            if checkpoint.is_symlink():
                checkpoint.unlink()
            else:
                (checkpoint / manifest.NAME).unlink()
        shutil.rmtree(self.path, ignore_errors=True)  # what is left of it is never found


def _remove(path: Path) -> None:
    """Remove a folder, or what stands in its place; of a link, not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
