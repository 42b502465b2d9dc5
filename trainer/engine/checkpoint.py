"""Saved state: everything that a run needs to resume as if it had never stopped.

When to save is decided in plan.py and loop.py. A checkpoint is a folder, renamed into place once it
is complete and on the disk: the agreed model (rank 0 writes it), the other state that all ranks
agree on, the state of each rank alone, each client's record, and the manifest, which has the
SHA-256 of each of these (trainer/manifest.py). What is in the files is in state.py.
"""

import json
import shutil
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import load_file

from trainer import manifest
from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.config.load import validate
from trainer.config.schema import covers
from trainer.engine import plan, state, state_file
from trainer.engine.parts import RankState
from trainer.files import sync_folder
from trainer.manifest import Damaged, Manifest, Seal

AGREED, CLIENTS = "agreed.safetensors", "clients"  # records are in a folder, a file each
DAMAGED = "damaged-"  # prefix of a checkpoint that was passed over


def save(rank: RankState, number: int, folder: Path, metrics: Seal | None = None) -> None:
    """Save the state after round `number`; every rank calls it.

    metrics: how far rank 0 has written metrics.jsonl.
    """
    group = rank.parts.group
    assert group.all_equal(rank.server.anchor), "ranks hold different agreed models; this is a bug"
    partial = folder / "partial"
    if group.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        folder.mkdir(exist_ok=True)  # not the run folder: if it was removed, so is the run
        (partial / CLIENTS).mkdir(parents=True)
    group.barrier()
    if not partial.is_dir():
        raise EnvironmentFault(
            f"{folder} is not shared: rank {group.rank} does not see the folder that rank 0 "
            "created; give all ranks one volume that many nodes can write to (ReadWriteMany)"
        )
    try:
        _write(rank, partial)
        group.barrier()
        if group.rank == 0:
            _complete(rank, number, folder, metrics)
    except OSError:
        if group.rank == 0:  # room for what is written about the failure
            shutil.rmtree(partial, ignore_errors=True)
        raise
    group.barrier()


def _write(rank: RankState, partial: Path) -> None:
    """Write this rank's files, and a table of them."""
    names = [f"rank-{rank.parts.group.rank}.safetensors"]
    state_file.write(partial / names[0], state.own(rank))
    if rank.parts.group.rank == 0:
        names += [manifest.MODEL, AGREED]
        rank.parts.worker.enter(rank.server.anchor, rank.server.buffers)
        state_file.write_tensors(partial / manifest.MODEL, dict(rank.parts.worker.tensors()))
        state_file.write(partial / AGREED, state.agreed(rank))
    for client in rank.store.clients:
        names.append(_record(client))
        rank.store.write(client, partial / names[-1])
    table = {name: asdict(manifest.seal(partial / name)) for name in names}
    _table(partial, rank.parts.group.rank).write_text(json.dumps(table))


def _record(client: int) -> str:
    return f"{CLIENTS}/{client}.safetensors"


def _table(partial: Path, rank: int) -> Path:
    return partial / f"rank-{rank}.json"


def _complete(rank: RankState, number: int, folder: Path, metrics: Seal | None) -> None:
    """On rank 0: write the manifest, rename the folder into place, remove old checkpoints."""
    partial = folder / "partial"
    files: dict[str, Seal] = {}
    for other in range(rank.parts.group.size):
        table = json.loads(_table(partial, other).read_text())
        files |= {name: Seal(**seal) for name, seal in table.items()}
        _table(partial, other).unlink()
    content = Manifest(
        round=number,
        ranks=rank.parts.group.size,
        experiment=rank.experiment.model_dump(mode="json"),
        data=rank.parts.task.fingerprint,
        metrics=metrics,
        files=files,
        versions={"fedctl": metadata.version("fedctl"), "torch": torch.__version__},
    )
    state_file.write_text(partial / manifest.NAME, content.text())
    sync_folder(partial / CLIENTS)
    sync_folder(partial)
    final = manifest.folder_of(folder, number)
    _set_aside(final)
    partial.rename(final)
    sync_folder(folder)
    lasting = plan.boundaries(rank.experiment)
    for old in manifest.found(folder)[rank.experiment.checkpoint.keep :]:
        if manifest.number_of(old) not in lasting:
            shutil.rmtree(old)


def _set_aside(checkpoint: Path) -> None:
    """Rename a checkpoint that is not to be used again; a person may want to look at it."""
    if checkpoint.exists():
        place = checkpoint.with_name(DAMAGED + checkpoint.name)
        shutil.rmtree(place, ignore_errors=True)
        checkpoint.rename(place)


def forget(folder: Path) -> None:
    """Remove the checkpoints of an earlier run in the same folder."""
    shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------------------------------------
# resuming


def restore(
    rank: RankState, folder: Path, metrics: Path | None = None, allowed: tuple[str, ...] = ()
) -> tuple[int, Seal | None]:
    """Load the newest checkpoint that is whole on all ranks; every rank calls it.

    metrics: metrics.jsonl, which must still have the rows that it had then; allowed: what may have
    changed, settings by key, and "data". Returns the round, 0 if there is no checkpoint, and how
    far metrics.jsonl had been written.
    """
    group = rank.parts.group
    passed: list[str] = []
    numbers = [manifest.number_of(path) for path in manifest.found(folder)]
    while number := int(_from_first(rank, max(numbers, default=0))):
        numbers = [other for other in numbers if other < number]
        checkpoint = manifest.folder_of(folder, number)
        content, problem = _examined(rank, checkpoint, metrics, allowed)
        troubled = [at for at, bad in enumerate(_of_all(rank, bool(problem))) if bad]
        if not troubled:
            assert content is not None
            _refuse_changes(rank, content, allowed)
            _load(rank, checkpoint, content)
            if group.rank == 0:
                for name in passed:
                    _set_aside(folder / name)
            return number, None if "metrics" in allowed else content.metrics
        where = problem or f"rank {troubled[0]} cannot use its part, see its log"
        passed.append(checkpoint.name)
        rank.notice(f"checkpoint {checkpoint.name} is passed over: {where}")
    if passed:
        raise EnvironmentFault(
            f"no checkpoint in {folder} can be used ({rank.notices[0]}); restore the files, or "
            "start a new run"
        )
    return 0, None


def _from_first(rank: RankState, value: float) -> float:
    """Return rank 0's number on every rank."""
    group = rank.parts.group
    return group.sum_numbers([value if group.rank == 0 else 0.0], "control")[0]


def _of_all(rank: RankState, flag: bool) -> list[bool]:
    """Return every rank's flag."""
    group = rank.parts.group
    flags = [float(flag and at == group.rank) for at in range(group.size)]
    return [bool(value) for value in group.sum_numbers(flags, "control")]


def _mine(rank: RankState, content: Manifest) -> list[int]:
    """Return the ranks of then whose state this rank takes over: its own, and those now missing."""
    return list(range(rank.parts.group.rank, content.ranks, rank.parts.group.size))


def _examined(
    rank: RankState, checkpoint: Path, metrics: Path | None, allowed: tuple[str, ...]
) -> tuple[Manifest | None, str]:
    """Return a manifest, and what is wrong with the files that this rank needs (empty: nothing)."""
    try:
        content = manifest.read(checkpoint)
        names = [manifest.MODEL, AGREED]
        names += [f"rank-{at}.safetensors" for at in _mine(rank, content)]
        for name in [*names, *(n for n in content.files if _is_for(rank, n))]:
            manifest.check(checkpoint / name, content.files.get(name), name)
        if rank.parts.group.rank == 0 and metrics and content.metrics and "metrics" not in allowed:
            manifest.begins_with(metrics, content.metrics)
    except Damaged as error:
        return None, str(error)
    return content, ""


def _is_for(rank: RankState, name: str) -> bool:
    """Return whether this rank checks a file: each record is checked by one rank."""
    kind, _, file = name.partition("/")
    number = file.partition(".")[0]
    group = rank.parts.group
    return kind == CLIENTS and number.isdigit() and int(number) % group.size == group.rank


def _refuse_changes(rank: RankState, content: Manifest, allowed: tuple[str, ...]) -> None:
    """Raise a ConfigError, on every rank, if the experiment or its data is another than then."""
    try:
        was = validate(content.experiment)
    except ConfigError as error:
        raise EnvironmentFault(
            f"the experiment of the checkpoint cannot be read ({error}); resume with the version "
            f"of fedctl that saved it ({content.versions.get('fedctl', 'unknown')})"
        ) from None
    differences = was.differences(rank.experiment)
    changed = [key for key in differences if not any(covers(name, key) for name in allowed)]
    if changed:
        old, new = differences[changed[0]]
        more = f" (and {len(changed) - 1} more: {', '.join(changed[1:])})" if changed[1:] else ""
        raise ConfigError(
            changed[0],
            f"was {old}, and is {new} now{more}, which makes it another experiment; start a new "
            f"run, or resume with --allow-changed {changed[0]}",
        )
    if rank.experiment.rounds < content.round:
        raise ConfigError(
            "rounds",
            f"{rank.experiment.rounds} is less than the {content.round} that the run has done; "
            "set it to at least that",
        )
    other_data = rank.parts.group.rank == 0 and content.data != rank.parts.task.fingerprint
    if any(_of_all(rank, other_data)) and "data" not in allowed:
        raise ConfigError(
            "data",
            "the samples are not those that the run began with; give the same data, or resume with "
            "--allow-changed data",
        )


def _load(rank: RankState, checkpoint: Path, content: Manifest) -> None:
    device, server = rank.server.anchor.device, rank.server
    rank.parts.worker.load_tensors(load_file(checkpoint / manifest.MODEL))
    server.anchor.copy_(rank.parts.worker.params)
    server.buffers.copy_(rank.parts.worker.buffers)
    state.load_agreed(rank, state_file.read(checkpoint / AGREED, device))
    paths = [checkpoint / f"rank-{at}.safetensors" for at in _mine(rank, content)]
    state.load_own(rank, [state_file.read(path, device) for path in paths])
    for client, home in rank.store.home.items():
        if home == rank.parts.group.rank and _record(client) in content.files:
            rank.store.read(client, checkpoint / _record(client))
            rank.store.trim()
