"""What may be another when a run resumes: each change is refused, or the run goes on with it."""

from pathlib import Path
from typing import Any

import pytest

from tests import jobs
from trainer.config.base import fixed_keys, identity
from trainer.config.errors import ConfigError
from trainer.config.load import load
from trainer.engine import checkpoint
from trainer.engine.parts import RankState
from trainer.engine.round import run_round
from trainer.storage.folder import Folder

SMALL: dict[str, Any] = {
    "rounds": 9,
    "clients": 4,
    "model": {"name": "softmax"},
    "schedule": {"phases": [{"steps": 1}]},
}
MOMENTUM = {
    "optimizer": {"momentum": 0.9, "state": "keep"},
    "algorithm": {"server": {"momentum": 0.5}},
}
ADAM = {"optimizer": {"name": "adam"}, "algorithm": {"server": {"name": "adam"}}}
KEPT = {"optimizer": {"name": "adam", "state": "keep"}, "algorithm": {"server": {"name": "adam"}}}
SCAFFOLD = {"algorithm": {"name": "scaffold"}}
STREAMING = {"sync": {"name": "streaming"}}
CODED = {"codec": {"name": "int8"}}
SIGNS = {"codec": {"name": "sign"}}
LOW_RANK = {"codec": {"name": "lowrank"}}
BUDGET = {"codec": {"name": "lowrank", "budget": {"share": 0.9}}}
UNFIT: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"clients": 6}, "clients"),
    ({"sync": {"name": "gaia"}}, {"clients": 3}, "clients"),
    ({}, {"model": {"name": "digits-cnn"}}, "model.name"),
    ({}, {"sync": {"name": "gwpf"}}, "sync.name"),
    ({"sync": {"name": "apf"}}, {"sync": {"name": "gwpf"}}, "sync.name"),
    ({"sync": {"name": "gaia"}}, {"sync": {"name": "full"}}, "sync.name"),
    (STREAMING, {"sync": {"name": "streaming", "fragments": 2}}, "sync.fragments"),
    ({}, CODED, "codec.name"),
    (CODED, {"codec": {"name": "int8", "error_feedback": False}}, "codec.error_feedback"),
    ({}, {"codec": {"name": "bf16", "error_feedback": True}}, "codec.name"),
    (LOW_RANK, {"codec": {"name": "lowrank", "rank": 3}}, "codec.rank"),
    (LOW_RANK, BUDGET, "codec.budget.share"),
    (BUDGET, {"codec": {"name": "lowrank", "budget": {"share": 0.8}}}, "codec.budget.share"),
    (SIGNS, {"codec": {"name": "sign", "error_feedback": False}}, "codec.error_feedback"),
    ({}, {"optimizer": {"name": "adamw"}}, "optimizer.name"),
    ({}, {"algorithm": {"server": {"name": "yogi"}}}, "algorithm.server.name"),
    (SCAFFOLD, {"algorithm": {"name": "fedavg"}}, "algorithm.name"),
    (SCAFFOLD, {"algorithm": {"name": "scaffold", "controls": "fresh"}}, "algorithm.controls"),
]
FIT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"seed": 9}),
    ({}, {"participation": 0.5}),
    ({}, MOMENTUM),
    (MOMENTUM, {"optimizer": {}, "algorithm": {}}),
    ({}, {"optimizer": {"weight_decay": 0.1, "clip_norm": 1.0}}),
    ({}, {"algorithm": {"weighting": "uniform", "server": {"lr": 0.5}}}),
    (ADAM, KEPT),
    (KEPT, ADAM),
    ({}, {"schedule": {"batch_size": 7, "phases": [{"rounds": 4, "epochs": 1}, {"steps": 2}]}}),
    ({}, {"stragglers": {"slow": 0.5, "unreachable": 0.3}}),
    ({}, {"model": {"name": "softmax", "precision": "bf16"}}),
    ({"sync": {"name": "apf"}}, {"sync": {"name": "apf", "threshold": 0.5, "random": "sharp"}}),
    ({"sync": {"name": "gwpf"}}, {"sync": {"name": "gwpf", "max_frozen_rounds": 1, "ema": 0.1}}),
    (CODED, {"codec": {"name": "int8", "block": 8}}),
    (LOW_RANK, {"codec": {"name": "lowrank", "block": 8, "bits": 8}}),
    (SIGNS, {"codec": {"name": "sign", "block": 64}}),
    ({"codec": {"name": "sparse"}}, {"codec": {"name": "sparse", "share": 0.5, "block": 8}}),
    ({"codec": {"name": "randomk"}}, {"codec": {"name": "randomk", "share": 0.5, "bits": 8}}),
    ({}, {"data": {"partition": {"name": "dirichlet"}, "sampling": "replacement"}}),
    ({}, {"data": {"augment": True, "label_noise": 0.2, "holdout": 0.1}}),
]


def saved(tree: dict[str, Any], folder: Path) -> RankState:
    rank = jobs.experiment_run(SMALL | tree)
    for number in (1, 2):
        run_round(rank, number)
        rank.ledger.settle()
    checkpoint.save(rank, 2, Folder(folder))
    return rank


@pytest.mark.parametrize("before,after,key", UNFIT)
def test_what_the_saved_state_does_not_fit_is_refused_whatever_is_allowed(
    before: dict[str, Any], after: dict[str, Any], key: str, tmp_path: Path
) -> None:
    was = saved(before, tmp_path).experiment
    now = jobs.experiment_run(SMALL | before | after)
    for allowed in ((), tuple(was.differences(now.experiment)), (key.partition(".")[0],)):
        with pytest.raises(ConfigError) as told:
            checkpoint.restore(now, Folder(tmp_path), allowed=allowed)
        assert str(told.value).startswith(f"{key}: is ")
        assert "in this run; the saved state does not fit " in str(told.value)
        assert "--allow-changed" not in str(told.value)


@pytest.mark.parametrize("before,after", FIT)
def test_with_what_may_change_a_run_goes_on(
    before: dict[str, Any], after: dict[str, Any], tmp_path: Path
) -> None:
    was = saved(before, tmp_path).experiment
    now = jobs.experiment_run(SMALL | before | after)
    changed = tuple(was.differences(now.experiment))
    with pytest.raises(ConfigError, match=f"--allow-changed {changed[0]}$"):
        checkpoint.restore(now, Folder(tmp_path))
    now = jobs.experiment_run(SMALL | before | after)
    assert checkpoint.restore(now, Folder(tmp_path), allowed=(*changed, "data"))[0] == 2
    for number in (3, 4):
        run_round(now, number)
        now.ledger.settle()


def test_data_allows_other_samples_and_no_other_setting(tmp_path: Path) -> None:
    """`--allow-changed data` is documented for samples; a partition is not what was meant."""
    saved({"data": {"partition": {"name": "dirichlet", "alpha": 0.5}}}, tmp_path)
    tree = SMALL | {"data": {"partition": {"name": "dirichlet", "alpha": 5.0}}}
    now = jobs.experiment_run(tree)
    with pytest.raises(
        ConfigError, match=r"^data\.partition\.alpha: is 0\.5 in this run; 5\.0 would"
    ):
        checkpoint.restore(now, Folder(tmp_path), allowed=("data",))
    for name in ("data.partition.alpha", "data.partition"):
        now = jobs.experiment_run(tree)
        assert checkpoint.restore(now, Folder(tmp_path), allowed=(name,))[0] == 2


def test_samples_of_another_form_do_not_fit_the_saved_model(tmp_path: Path) -> None:
    saved({}, tmp_path)
    now = jobs.experiment_run(SMALL | {"data": {"resize": 12}})
    with pytest.raises(ConfigError) as told:
        checkpoint.restore(now, Folder(tmp_path), allowed=("data.resize", "data"))
    assert str(told.value).startswith(
        "data: the saved model does not fit these samples: its 1.weight is (10, 64), and would be "
        "(10, 144); give samples"
    )


def test_each_choice_of_a_part_is_fixed() -> None:
    """A part that is added to the experiment says so, or a resume with another one is a bug."""
    experiment, _ = load({})
    free = {"data.name", "data.partition.name"}  # a sampler's state is a number, of any samples
    choices = {key for key in identity(experiment) if key.endswith(".name")} - free
    assert choices <= fixed_keys(experiment)
