"""A run that is kept at a URL: what of its folder is copied there, and when.

The folder is then this rank's alone, and may be lost with it. Metrics and logs are copied at each
checkpoint and at the end, so what a killed pod loses of them are the rounds that run again. Without
a URL nothing here does anything, and the run folder is the run.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from trainer import manifest
from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.engine.status import log
from trainer.files import as_json, sync_folder, write_atomically
from trainer.manifest import CHANGES, EXPERIMENT, METRICS
from trainer.storage.folder import Folder
from trainer.storage.objects import VARIABLE, Objects
from trainer.storage.place import Place
from trainer.storage.remote import Remote

SCRATCH = "scratch"  # folder of what is on its way to or from the URL


class Mirror:
    """The run folder `out` of one rank, and where the run is kept."""

    def __init__(self, out: Path, rank: int, url: str | None = None) -> None:
        """Only prepare; `url`: of this run, None: it is kept in its folder."""
        self.out, self.rank = out, rank
        self.objects = Objects(url) if url else None

    def __str__(self) -> str:
        return self.objects.url if self.objects else str(self.out)

    @property
    def place(self) -> Place:
        """Where checkpoints are kept."""
        if self.objects is None:
            return Folder(self.out / manifest.FOLDER)
        return Remote(self.objects, self.out / SCRATCH / f"rank-{self.rank}")

    # ------------------------------------------------------------------ the start

    def begin(self, experiment: str) -> None:
        """On rank 0, for a new run: take the URL, which must have none yet."""
        if self.objects is None:
            return
        self._check()
        if self.objects.read(EXPERIMENT) is not None:
            raise ConfigError(
                VARIABLE, f"{self} has a run already; resume that, or use another URL"
            )
        self.own(experiment)

    def bring(self) -> None:
        """Before a run is resumed: have its files here as they are at the URL."""
        if self.objects is None:
            return
        self._check()
        if self.objects.fetch(EXPERIMENT, self.out / EXPERIMENT):
            for name in (METRICS, CHANGES):
                self.objects.fetch(name, self.out / name)

    def has_model(self) -> bool:
        """Return whether the final model is there and whole, as what an object store has is."""
        if self.objects is not None:
            return self.objects.has(manifest.MODEL)
        return manifest.whole_model(self.out / manifest.MODEL)

    def _check(self) -> None:
        assert self.objects is not None
        self.objects.check()
        if manifest.found(self.out / manifest.FOLDER):
            raise ConfigError(
                VARIABLE,
                f"{self.out} has checkpoints of its own, which would not be used; use another "
                f"folder, or copy what is in it to {self}",
            )

    def own(self, experiment: str) -> None:
        """Write on rank 0 which experiment this run belongs to."""
        write_atomically(self.out / EXPERIMENT, experiment)
        self._put(EXPERIMENT)

    def resumes(self, done: int, changed: Mapping[str, tuple[object, object]]) -> None:
        """Write on rank 0 what is another after round `done`; forget what was after later rounds.

        Else all rounds would be taken for those of the experiment with which the run ended.
        """
        path = self.out / CHANGES
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if _after(line) < done]
        if changed:
            kept.append(as_json({"after_round": done, "changed": changed}) + "\n")
        if kept != lines:
            write_atomically(path, "".join(kept))
            self._put(CHANGES)

    def saved(self, experiment: str) -> None:
        """Write on rank 0 that it is this experiment's run: there is something of it to resume."""
        path = self.out / EXPERIMENT
        if not path.exists() or path.read_text() != experiment:
            self.own(experiment)

    def not_finished(self) -> None:
        """Remove on rank 0 the final model of a run that goes on."""
        (self.out / manifest.MODEL).unlink(missing_ok=True)
        sync_folder(self.out)
        if self.objects is not None:
            self.objects.delete([manifest.MODEL])

    # ------------------------------------------------------------------ on the way

    def metrics(self) -> None:
        """Copy the rows; before a checkpoint, whose manifest says how far they had been written."""
        if self.rank == 0:
            self._put(METRICS)

    def logs(self) -> None:
        """Copy this rank's log and status record."""
        for end in ("log", "json"):
            self._put(f"logs/rank-{self.rank}.{end}")

    def result(self) -> None:
        """Copy on rank 0 the final model; it comes last, as it says that the run has finished."""
        self.metrics()
        self._put(manifest.MODEL)

    def last_words(self) -> None:
        """Copy the log and the record of how this rank ended, which must not change how it does."""
        if self.objects is None or self.objects.failed:
            return
        try:
            self.logs()
        except (EnvironmentFault, OSError) as error:
            log.warning("the log was not copied: %s", error)

    def _put(self, name: str) -> None:
        if self.objects is not None and (self.out / name).exists():
            self.objects.put(name, self.out / name)


def _after(line: str) -> float:
    """Return the round after which a line says that something changed; infinity: it is no line."""
    try:
        return int(json.loads(line)["after_round"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("inf")
