"""Saved state: everything that a run needs to resume as if it had never stopped.

When to save is decided in plan.py and loop.py. A checkpoint is a folder: the agreed model (rank 0
writes it), the other state that all ranks agree on, the state of each rank alone, each client's
record, and the manifest, which has the SHA-256 of each of these (trainer/manifest.py). What is in
the files is in state.py; how they become a checkpoint, on a disk or at a URL, in trainer/storage.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from trainer import manifest
from trainer.config.errors import EnvironmentFault
from trainer.engine import changes, plan, pod, state, state_file
from trainer.engine.parts import RankState
from trainer.engine.status import log
from trainer.exchange.group import PeerLost
from trainer.files import as_json
from trainer.manifest import METRICS, Damaged, Manifest, Seal
from trainer.storage.place import CLIENTS, Place

AGREED = "agreed.safetensors"
RECORD = re.compile(rf"{CLIENTS}/([0-9]{{1,7}})(\.stage-[0-9]+)?\.safetensors")  # of a client


def save(rank: RankState, number: int, place: Place, metrics: Seal | None = None) -> None:
    """Save the state after round `number`; every rank calls it.

    metrics: how far rank 0 has written metrics.jsonl.
    """
    world = rank.parts.world
    if rank.overlap:
        with rank.clock.phase("reduce"):
            rank.overlap.settle()
    rank.check_agreement()
    rank.parts.reduction.gather(rank.parts.group)
    if world.rank == 0:
        place.begin(number)
    world.barrier()
    folder = place.workspace(world.rank)
    try:
        names = _write(rank, folder)
        place.deliver(number, names)
        tables = _tables(rank, place, folder, names)
        if world.rank == 0:
            _complete(rank, number, place, folder, tables, metrics)
    except FileNotFoundError as error:
        # Rank 0 has failed, and removes the folder for others to have room: it says why.
        ours = Path(error.filename or "").is_relative_to(folder)
        if world.rank and place.shared and ours and folder.parent.exists():
            raise PeerLost("lost another rank: rank 0 gave this checkpoint up") from error
        raise
    finally:
        place.leave(world.rank)  # also if another rank has failed: it may be for want of room
    world.barrier()


def _write(rank: RankState, folder: Path) -> list[str]:
    """Write this rank's files, and return their names."""
    names = [f"rank-{rank.parts.world.rank}.safetensors"]
    state_file.write(folder / names[0], state.own(rank))
    if rank.parts.group.rank == 0:  # one replica is enough
        names.append(_of_stage(rank, AGREED))
        state_file.write(folder / names[-1], state.agreed(rank))
        rank.parts.worker.enter(rank.server.anchor, rank.server.buffers)
        model = state.whole_tensors(rank)
        if rank.parts.world.rank == 0:
            names.append(manifest.MODEL)
            state_file.write_tensors(folder / manifest.MODEL, dict(model))
    for client in rank.store.clients:
        names.append(_record(rank, client))
        rank.store.write(client, folder / names[-1])
    return names


def _record(rank: RankState, client: int) -> str:
    return _of_stage(rank, f"{CLIENTS}/{client}.safetensors")


def _of_stage(rank: RankState, name: str) -> str:
    """Return the name of a file that each stage of a pipeline has one of."""
    stage, (stem, _, kind) = rank.parts.line.rank, name.rpartition(".")
    return f"{stem}.stage-{stage}.{kind}" if rank.parts.mesh.pipelined else name


def _tables(rank: RankState, place: Place, folder: Path, names: Iterable[str]) -> list[str]:
    """Return on rank 0 what each rank has written, as JSON; on the others nothing."""
    world = rank.parts.world
    table = as_json({name: asdict(manifest.seal(folder / name)) for name in names})
    if not place.shared:
        return [text.decode() for text in world.to_first(table.encode(), "control")]
    paths = [folder / f"rank-{other}.json" for other in range(world.size)]
    paths[world.rank].write_text(table)
    world.barrier()
    if world.rank:
        return []
    tables = [path.read_text() for path in paths]
    for path in paths:
        path.unlink()
    return tables


def _complete(
    rank: RankState,
    number: int,
    place: Place,
    folder: Path,
    tables: Iterable[str],
    metrics: Seal | None,
) -> None:
    """On rank 0: write the manifest, have the place finish it, remove old checkpoints."""
    files: dict[str, Seal] = {}
    for table in tables:
        files |= {name: Seal(**seal) for name, seal in json.loads(table).items()}
    content = Manifest(
        round=number,
        ranks=rank.parts.world.size,
        experiment=rank.experiment.model_dump(mode="json"),
        data=rank.parts.task.fingerprint,
        metrics=metrics,
        files=files,
        versions={"fedctl": pod.version(), "torch": torch.__version__},
        edges=list(rank.parts.worker.edges),
    )
    state_file.write_text(folder / manifest.NAME, content.text())
    finished, lasting = place.finish(number, files), plan.boundaries(rank.experiment)
    for old in finished[rank.experiment.checkpoint.keep :]:
        if old not in lasting:
            place.outgrow(old)


# ---------------------------------------------------------------------------------------------
# resuming


def restore(
    rank: RankState,
    place: Place,
    metrics: Path | None = None,
    allowed: tuple[str, ...] = (),
) -> tuple[int, Seal | None]:
    """Load the newest checkpoint that is whole on all ranks; every rank calls it.

    metrics: metrics.jsonl, which must still have the rows that it had then; allowed: what may have
    changed, settings by key, and "data". Returns the round, 0 if there is no checkpoint, and how
    far metrics.jsonl had been written.
    """
    world = rank.parts.world
    passed: list[int] = []
    numbers = [] if world.rank else place.numbers()
    newest = max(numbers, default=0)
    for other in [] if world.rank else place.cut():
        if other > newest:
            name = manifest.folder_of(Path(), other).name
            rank.notice(f"checkpoint {name} is passed over: {manifest.NAME} is missing")
    while number := int(_from_first(rank, max(numbers, default=0))):
        numbers = [other for other in numbers if other < number]
        content, checkpoint, problem = _examined(rank, place, number, metrics, allowed)
        troubled = [at for at, bad in enumerate(_of_all(rank, bool(problem))) if bad]
        if not troubled:
            assert content is not None
            changes.refuse_other_data(rank, content, allowed)
            _load(rank, place, checkpoint, content)
            place.leave(world.rank)
            if world.rank == 0:
                for other in passed:
                    _set_aside(place, other)
            return number, None if "metrics" in allowed else content.metrics
        problem = problem or f"rank {troubled[0]} cannot use its part, see its log"
        name = manifest.folder_of(Path(), number).name
        passed.append(number)
        rank.notice(f"checkpoint {name} is passed over: {problem}")
    if passed:
        rows = any(METRICS in text for text in rank.notices)
        remedy = " resume without the lost rows (--allow-changed metrics)," if rows else ""
        raise EnvironmentFault(
            f"no checkpoint in {place} can be used ({rank.notices[0]}); restore the files,{remedy} "
            "or start a new run"
        )
    return 0, None


def _set_aside(place: Place, number: int) -> None:
    """Have a damaged checkpoint not used again; where that fails it is passed over again."""
    try:
        place.set_aside(number)
    except OSError as error:
        name = manifest.folder_of(Path(), number).name
        log.warning("%s/%s was not renamed: %s", place, name, error.strerror or error)


def _from_first(rank: RankState, value: float) -> float:
    """Return rank 0's number on every rank."""
    world = rank.parts.world
    return world.sum_numbers([value if world.rank == 0 else 0.0], "control")[0]


def _of_all(rank: RankState, flag: bool) -> list[bool]:
    """Return every rank's flag."""
    world = rank.parts.world
    flags = [float(flag and at == world.rank) for at in range(world.size)]
    return [bool(value) for value in world.sum_numbers(flags, "control")]


def edges(where: Place) -> list[int]:
    """Return on rank 0 how the newest checkpoint's model is cut into stages; empty: it is not."""
    for number in where.numbers():
        try:
            return manifest.read(where.opened(number)).edges
        except Damaged:
            continue
    return []


def _mine(rank: RankState, content: Manifest) -> list[int]:
    """Return the ranks of then whose state this rank takes over: its own, and those now missing."""
    return list(range(rank.parts.world.rank, content.ranks, rank.parts.world.size))


def _examined(
    rank: RankState,
    place: Place,
    number: int,
    metrics: Path | None,
    allowed: tuple[str, ...],
) -> tuple[Manifest | None, Path, str]:
    """Return a manifest, its folder, and what is wrong with the files that this rank needs."""
    checkpoint = place.opened(number)
    try:
        content = manifest.read(checkpoint)
        if content.round != number:  # renamed by a person: rounds between would never be trained
            raise Damaged(f"its {manifest.NAME} is of round {content.round}")
        changes.refuse_other_experiment(rank, content, allowed)
        names = [manifest.MODEL, _of_stage(rank, AGREED)]
        names += [f"rank-{at}.safetensors" for at in _mine(rank, content)]
        names += [name for name in content.files if _is_for(rank, name)]
        place.bring(number, names)
        for name in names:
            manifest.check(checkpoint / name, content.files.get(name), name)
        if rank.parts.world.rank == 0 and metrics and content.metrics and "metrics" not in allowed:
            manifest.begins_with(metrics, content.metrics)
    except Damaged as error:
        return None, checkpoint, str(error)
    except OSError as error:
        raise EnvironmentFault(
            f"{error.filename or checkpoint}: cannot be read at the moment "
            f"({(error.strerror or str(error)).lower()}); try again, or move the checkpoint away "
            "to resume from the one before"
        ) from error
    return content, checkpoint, ""


def _is_for(rank: RankState, name: str) -> bool:
    """Return whether this rank checks a file: each record is checked by one rank."""
    found = RECORD.fullmatch(name)
    if found is None or name != _record(rank, int(found[1])):
        return False
    return int(found[1]) % rank.parts.group.size == rank.parts.group.rank


def _load(rank: RankState, place: Place, checkpoint: Path, content: Manifest) -> None:
    device, server = rank.server.anchor.device, rank.server
    rank.parts.worker.load_tensors(changes.fitting(rank, checkpoint / manifest.MODEL))
    server.anchor.copy_(rank.parts.worker.params)
    server.buffers.copy_(rank.parts.worker.buffers)
    state.load_agreed(rank, state_file.read(checkpoint / _of_stage(rank, AGREED), device))
    paths = [checkpoint / f"rank-{at}.safetensors" for at in _mine(rank, content)]
    state.load_own(rank, [state_file.read(path, device) for path in paths])
    kept = [client for client in rank.store.home if _record(rank, client) in content.files]
    mine = [client for client in kept if rank.store.home[client] == rank.parts.group.rank]
    place.bring(content.round, (_record(rank, client) for client in mine))
    for client in mine:
        name = _record(rank, client)
        if not place.shared:  # another rank checked its own download, not this one
            _check_again(checkpoint / name, content.files[name], place)
        rank.store.read(client, checkpoint / name)
        rank.store.trim()


def _check_again(path: Path, wanted: Seal, place: Place) -> None:
    try:
        manifest.check(path, wanted)
    except Damaged as error:
        raise EnvironmentFault(f"{place}: {error}, and was whole a moment ago; try again") from None
