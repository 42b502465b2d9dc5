"""What saving and resuming ask of the place where checkpoints are kept.

The process that saves has its files in a folder on its disk first. How they become a checkpoint,
which is finished or not there, is the place's business: it differs between a folder that all ranks
share and a URL.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path

from trainer.config.errors import EnvironmentFault
from trainer.manifest import Seal, folder_of

log = logging.getLogger("fedctl")
CLIENTS = "clients"  # folder of the clients' records, in a checkpoint


class Place(ABC):
    """The checkpoints of a run, by the number of their round.

    All ranks call `workspace`, `deliver`, `opened`, `bring` and `leave`; only rank 0 the others.
    """

    shared: bool  # whether all ranks work in one folder

    @abstractmethod
    def numbers(self) -> list[int]:
        """Return the rounds of the checkpoints that were finished, the newest first."""

    def cut(self) -> list[int]:
        """Return the rounds of those that were finished and have lost their manifest since.

        At a URL they cannot be told from uploads that ended midway.
        """
        return []

    # ------------------------------------------------------------------ saving, in this order

    @abstractmethod
    def begin(self, number: int) -> None:
        """Prepare for a checkpoint; others may go on after this."""

    @abstractmethod
    def workspace(self, rank: int) -> Path:
        """Return the folder on the disk in which a rank writes its files."""

    @abstractmethod
    def deliver(self, number: int, names: Iterable[str]) -> None:
        """Hand over the files that this rank has written."""

    @abstractmethod
    def finish(self, number: int, files: Mapping[str, Seal]) -> list[int]:
        """Make it a checkpoint, of these files and of the manifest, which is in the workspace.

        Return the rounds of all finished checkpoints, the newest first.
        """

    @abstractmethod
    def leave(self, rank: int) -> None:
        """Give back the room on the disk that is not needed any more."""

    # ------------------------------------------------------------------ resuming

    @abstractmethod
    def opened(self, number: int) -> Path:
        """Return a folder on the disk with the manifest of a checkpoint."""

    @abstractmethod
    def bring(self, number: int, names: Iterable[str]) -> None:
        """Have these files of the opened checkpoint in its folder, if they exist."""

    # ------------------------------------------------------------------ what is not wanted

    @abstractmethod
    def set_aside(self, number: int) -> None:
        """Have a checkpoint not used again; a person may want to look at it."""

    @abstractmethod
    def discard(self, number: int) -> None:
        """Delete a checkpoint, its manifest first, so that no part of it is taken for a whole."""

    def outgrow(self, number: int) -> None:
        """Delete a checkpoint that a newer one replaces; if that fails, the run does not."""
        try:
            self.discard(number)
        except (OSError, EnvironmentFault) as error:
            name = folder_of(Path(), number).name
            problem = (isinstance(error, OSError) and error.strerror) or error
            log.warning("%s/%s was not deleted: %s", self, name, problem)

    @abstractmethod
    def forget(self) -> None:
        """Delete all of an earlier run's checkpoints; raise if one would still be found."""
