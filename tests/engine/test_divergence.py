"""What is said of a divergence: the first client or tensor, and settings that may help."""

import re

import pytest
import torch

from tests import jobs
from trainer import __main__ as entry
from trainer.config.errors import Diverged, EnvironmentFault
from trainer.config.keys import settings
from trainer.config.load import load
from trainer.engine.divergence import Judge, _remedies
from trainer.engine.evaluate import Result
from trainer.engine.gradients import Alignment, _alignment
from trainer.engine.round import run_round
from trainer.engine.watch import GRADIENT, KEPT, LOSS, UPDATE, Watch
from trainer.turn import Server

NAN, INFINITY = float("nan"), float("inf")


def watched(*looks: tuple[int, int, float], losses: float = 1.0, anchor: float = 1.0) -> Watch:
    """A round in which these values of clients were looked at: client, what, value."""
    watch = Watch()
    watch.begin(torch.tensor(losses))
    for client, what, value in looks:
        if what == LOSS:
            watch.loss(client, torch.tensor(value))
        else:
            watch.look(client, what, [torch.tensor([1.0, value]), torch.tensor([0])])
    watch.close(Server(torch.tensor([0.0, anchor]), {}, torch.zeros(0)))
    return watch


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("what", [GRADIENT, LOSS, UPDATE, KEPT])
def test_anything_of_a_client_is_noticed(what, value):
    watch = watched((1, what, 3e38), (4, what, value))
    assert watch.client == (4, what) and not watch.finite


def test_large_values_are_finite():
    """Their sum would not be."""
    assert watched(*((client, UPDATE, 3.4e38) for client in range(5))).finite


def test_the_first_client_is_named_by_what_came_first():
    assert watched((5, UPDATE, NAN), (2, LOSS, NAN), (2, UPDATE, NAN)).client == (2, LOSS)


def test_a_full_gradient_spoils_the_mean_that_all_clients_get():
    assert watched((3, GRADIENT, NAN), (0, LOSS, NAN)).client == (3, GRADIENT)


def test_a_loss_of_an_earlier_round_is_nobodys():
    assert watched((0, LOSS, NAN), losses=NAN).finite
    assert watched((0, LOSS, NAN), (1, UPDATE, NAN), losses=NAN).client == (1, UPDATE)


def test_the_agreed_model_is_watched():
    watch = watched((0, UPDATE, 1.0), anchor=NAN)
    assert not watch.agreed and watch.client is None and not watch.finite


def judge(tree=None, saved: int = 0) -> Judge:
    return Judge(jobs.experiment_run(tree or {}), saved)


def test_a_finite_round_passes():
    made = judge()
    run_round(made.rank, 1)
    made.rank.ledger.settle()
    assert made.passes(1, Result(0.5, 1.0, 1.0), Alignment(1.0, 1.0))
    assert made.rounds == 0


@pytest.mark.parametrize(
    "result,alignment,what",
    [
        (Result(0.1, NAN, 1.0), None, "the loss on the test set"),
        (Result(0.1, 1.0, INFINITY), None, "the training loss since the last evaluation"),
        (None, Alignment(INFINITY, 1.0), "the variance of the clients' gradients"),
    ],
)
def test_what_an_evaluation_shows(result, alignment, what):
    with pytest.raises(Diverged, match=f"^diverged in round 3: {what} is not finite; try a"):
        judge().passes(3, result, alignment)


def test_the_model_that_a_run_starts_from():
    made = judge()
    made.rank.server.anchor[-1] = NAN
    with pytest.raises(EnvironmentFault, match=r"round 0: tensor 7\.bias of the agreed model is"):
        made.starts(0)


FEDSGD = {"algorithm": {"name": "fedsgd"}, "optimizer": {"name": "adam"}}  # its state has a count


@pytest.mark.parametrize("where", ["momentum_buffer", "exp_avg", "buffers"])
def test_the_rest_of_the_agreed_state(where):
    tree = FEDSGD if where == "exp_avg" else {"algorithm": {"server": {"momentum": 0.5}}}
    made = Judge(jobs.with_norm(tree), 0)
    server = made.rank.server
    vector = server.buffers if where == "buffers" else server.state[where]
    vector[0] = INFINITY
    made.rank.watch.begin(made.rank.loss.sum)
    made.rank.watch.close(made.rank.server)
    assert not made.rank.watch.finite
    tensor = r"1\.running_mean of the agreed model" if where == "buffers" else "0.weight of the "
    with pytest.raises(Diverged, match=f"tensor {tensor}"):
        made.starts(2)


def test_the_final_model():
    made = Judge(jobs.with_norm({}), 0)
    made.saves(1)
    made.rank.parts.worker.buffers[-1] = INFINITY
    with pytest.raises(Diverged, match=r"tensor 1\.running_var of the final model is not finite"):
        made.saves(1)


def test_a_checkpoint_is_mentioned():
    with pytest.raises(Diverged, match="; to go on from the checkpoint of round 2 with another"):
        judge(saved=2).passes(3, Result(0.1, NAN, 1.0))


@pytest.mark.parametrize(
    "tree,text",
    [
        ({}, "a smaller optimizer.lr (now 0.05), clipping (optimizer.clip_norm) or a warm-up"),
        (
            {"optimizer": {"clip_norm": 1, "warmup_rounds": 2}, "codec": {"name": "int8"}},
            "a smaller optimizer.lr (now 0.05) or codec.name=fp32; divergence=warn",
        ),
        (
            {
                "optimizer": {"clip_norm": 1},
                "algorithm": {"server": {"lr": 2}},
                "model": {"precision": "bf16"},
            },
            "(now 0.05), a smaller algorithm.server.lr (now 2), a warm-up (optimizer.warmup_rounds)"
            " or model.precision=fp32",
        ),
        (
            {"optimizer": {"clip_norm": 1, "warmup_rounds": 1}, "algorithm": {"name": "fedsgd"}},
            "a smaller optimizer.lr (now 0.05); divergence=warn would continue",
        ),
    ],
)
def test_remedies_are_settings_that_exist_and_are_not_in_use(tree, text):
    experiment, _ = load(tree)
    found = _remedies(experiment)
    assert text in found
    known = {setting.key for setting in settings()}
    named = re.findall(r"[a-z]+(?:\.[a-z_]+)+|divergence(?==)", found)
    assert named and set(named) <= known


def test_a_variance_beyond_all_numbers_is_not_finite_and_no_error():
    rank = jobs.experiment_run(
        {"clients": 2, "model": {"precision": "fp64"}, "codec": {"name": "fp64"}}
    )
    mean = torch.zeros_like(rank.server.anchor)
    own = {client: torch.full_like(mean, 1e200) for client in range(2)}
    found = _alignment(rank, rank.clients.cohort(1, {}), own, mean)
    assert found.variance == INFINITY


def test_a_stop_after_a_round_that_is_not_finite_claims_no_checkpoint():
    assert entry._stopped(late=False, done=7, saved=7) == "stopped after a checkpoint"
    assert entry._stopped(late=True, done=7, saved=5) == (
        "stopped at its deadline, after round 7, which was not finite; the newest checkpoint is of "
        "round 5"
    )
    assert entry._stopped(late=False, done=7, saved=0) == (
        "stopped after round 7, which was not finite; there is no checkpoint"
    )
