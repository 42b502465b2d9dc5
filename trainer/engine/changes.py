"""What has changed since a checkpoint was saved: settings, samples, stages; allowed or refused."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from trainer import manifest
from trainer.config.errors import ConfigError, EnvironmentFault, cut
from trainer.config.load import validate
from trainer.config.parallel import Parallel
from trainer.config.schema import covers
from trainer.engine import state_file
from trainer.engine.parts import RankState
from trainer.manifest import Manifest


def refuse_other_experiment(rank: RankState, content: Manifest, allowed: tuple[str, ...]) -> None:
    """Raise a ConfigError, on every rank, if the experiment or its stages are others than then.

    What is another and allowed is then in `rank.changed`.
    """
    try:
        was = validate(content.experiment)
    except ConfigError as error:
        raise EnvironmentFault(
            f"the experiment of the checkpoint cannot be read ({error}); resume with the version "
            f"of fedctl that saved it ({content.versions.get('fedctl', 'unknown')})"
        ) from None
    differences, unfit = was.differences(rank.experiment), was.unfit(rank.experiment)
    changed = [key for key in differences if not any(covers(name, key) for name in allowed)]
    if keys := unfit or changed:
        old, new = differences[keys[0]]
        more = f" (and {len(keys) - 1} more: {', '.join(keys[1:])})" if keys[1:] else ""
        why = (
            f"the saved state does not fit {new}{more}; start a new run, from its model if you "
            "like (model.weights)"
            if unfit
            else f"{new}{more} would make it a different experiment; start a new run, or resume "
            f"with --allow-changed {keys[0]}"
        )
        raise ConfigError(keys[0], f"is {old} in this run; {why}")
    rank.changed = differences
    _refuse_other_stages(rank, content.edges, was.parallel)


def refuse_other_data(rank: RankState, content: Manifest, allowed: tuple[str, ...]) -> None:
    """Raise a ConfigError, on every rank, if data or rounds do not go on from what was done then.

    It exchanges numbers, so all ranks call it. What is another is added to `rank.changed`.
    """
    if rank.experiment.rounds < content.round:
        raise ConfigError(
            "rounds",
            f"{rank.experiment.rounds} is less than the {content.round} that the run has done; "
            "set it to at least that",
        )
    world = rank.parts.world
    other_data = world.rank == 0 and content.data != rank.parts.task.fingerprint
    if any(world.sum_numbers([float(other_data)], "control")) and "data" not in allowed:
        raise ConfigError(
            "data",
            "the samples are not those that the run began with; give the same data, or resume with "
            "--allow-changed data",
        )
    if other_data:
        rank.changed["data"] = content.data, rank.parts.task.fingerprint


def _refuse_other_stages(rank: RankState, edges: Sequence[int], parallel: Parallel) -> None:
    """Raise a ConfigError if a rank has other layers than then; each rank has files of its own."""
    then, now = (edges, parallel), (rank.parts.worker.edges, rank.experiment.parallel)
    if list(then[0]) == list(now[0]) and then[1].pipeline == now[1].pipeline:
        return
    of_layers = then[1].pipeline == now[1].pipeline and now[1].layers is not None
    raise ConfigError(
        "parallel.layers" if of_layers else "parallel.pipeline",
        f"the checkpoint has the state of {_named(*then)}, and the run now has {_named(*now)}; "
        "resume with parallel as it was, or start a new run from its model "
        f"(model.weights=.../{manifest.MODEL})",
    )


def _named(edges: Sequence[int], parallel: Parallel) -> str:
    """Return how a model is cut, for a message."""
    if not edges:
        return "1 stage"
    layers = cut(" + ".join(str(b - a) for a, b in pairwise(edges)))
    return f"{len(edges) - 1} stages ({layers} layers) on {parallel.pipeline} ranks"


def fitting(rank: RankState, path: Path) -> state_file.Tensors:
    """Read the model; raise a ConfigError if other samples have given this run a different one."""
    saved, own = state_file.read_tensors(path), rank.parts.worker.tensors()
    there, here = ({k: tuple(t.shape) for k, t in side.items()} for side in (saved, own))
    for name in here:  # of a pipeline, this rank's stages; the file has all
        if there.get(name) != here[name]:
            raise ConfigError(
                "data",
                f"the saved model does not fit these samples: its {name} is {there.get(name)}, and "
                f"would be {here[name]}; give samples and classes of the same form, or start "
                "a new run",
            )
    return saved
