"""Runs on text: any number of ranks, resumed, and with every algorithm, policy and format."""

import math

import numpy as np
import pytest

from tests import bounds, checkpoint_jobs, jobs, prose
from tests.products import sampled
from tests.ranks import ranks
from trainer.config.errors import ConfigError
from trainer.engine.evaluate import evaluate, perplexity
from trainer.engine.round import run_round

ALGORITHMS = ("fedavg", "fedprox", "fedga", "scaffold", "fedsgd")
POLICIES = ("full", "apf", "gwpf", "gwpf-released", "streaming", "gaia", "cmfl")
CODECS = ("fp32", "bf16", "int8")
MODELS = ("transformer-tiny", "llama-tiny")


@pytest.fixture
def texts(tmp_path):
    return prose.folder(tmp_path / "texts")


def fits(algorithm: str, policy: str, codec: str, model: str) -> bool:
    try:
        prose_tree = prose.tree("x", algorithm={"name": algorithm}, sync={"name": policy})
        jobs.load(prose_tree | {"codec": {"name": codec}, "model": {"name": model}})
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("algorithm", "policy", "codec", "model"),
    sampled(ALGORITHMS, POLICIES, CODECS, MODELS, fits=fits),
)
def test_every_combination_learns_a_text(texts, algorithm, policy, codec, model):
    changes = {"algorithm": {"name": algorithm}, "sync": {"name": policy}}
    tree = prose.tree(texts, codec={"name": codec}, model={"name": model}, **changes)
    tree["optimizer"] = {"lr": 0.1}  # which no combination overshoots with
    if algorithm == "fedsgd":
        tree["schedule"] = {"batch_size": 4, "phases": [{"steps": 1}]}
    rank = jobs.experiment_run(tree)
    before = evaluate(rank).loss
    for number in (1, 2, 3):
        run_round(rank, number)
    result = evaluate(rank)
    assert math.isfinite(result.loss) and result.loss < before
    assert result.perplexity == pytest.approx(math.exp(result.loss))


@pytest.mark.parametrize("model", MODELS)
def test_coded_messages_end_in_the_same_bits_on_any_number_of_ranks(texts, model):
    tree = prose.tree(texts, codec={"name": "int8"}, model={"name": model})
    one, two = (ranks(size).run(jobs.history, tree, 3)[0] for size in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a["anchor"], b["anchor"])


@pytest.mark.parametrize("placement", ["dealt", "fixed"])
def test_plain_sums_differ_by_rounding_only(texts, placement):
    tree = prose.tree(texts, model={"name": "transformer-tiny", "precision": "fp64"})
    tree |= {"codec": {"name": "fp64"}}
    one, two = (ranks(size).run(jobs.history, tree, 3, placement)[0] for size in (1, 2))
    assert bounds.apart(one, two) < bounds.of_runs(one)
    assert one[-1]["samples"] == two[-1]["samples"]


def test_a_run_resumes_to_the_same_bits(texts, tmp_path):
    tree = prose.tree(texts, sync={"name": "gwpf", "threshold": 0.4, "ema": 0.8})
    straight = jobs.experiment_run(tree)
    for number in range(1, 6):
        run_round(straight, number)
    checkpoint_jobs.saved_after(tree, 3, str(tmp_path / "saved"))
    resumed = checkpoint_jobs.resumed_for(tree, 2, str(tmp_path / "saved"))
    assert np.array_equal(resumed["end"], straight.server.anchor.numpy())


def test_a_run_ends_at_its_target_perplexity(texts, tmp_path):
    tree = prose.tree(texts, rounds=50, evaluation={"target_perplexity": 5.0})
    *before, reached, final = ranks(1).run(jobs.life, tree, str(tmp_path / "run"))[0]
    assert final["final"] and reached["round"] == final["round"] < 50
    assert reached["test_perplexity"] < 5 <= min(row["test_perplexity"] for row in before)


def test_a_changed_text_is_not_resumed(texts, tmp_path):
    tree = prose.tree(texts)
    checkpoint_jobs.saved_after(tree, 1, str(tmp_path / "saved"))
    with (texts / "00.txt").open("a") as file:
        file.write("!")
    with pytest.raises(ConfigError, match="data"):
        checkpoint_jobs.resumed_for(tree, 1, str(tmp_path / "saved"))


def other_texts(tree, folder):
    """Build on two ranks, each with a text of its own at its path."""
    rank = jobs.dist.get_rank()
    tree["data"]["path"] = f"{folder}/{rank}"
    try:
        jobs.experiment_run(tree)
    except ConfigError as error:
        return str(error)
    return ""


def test_ranks_with_different_texts_end(tmp_path):
    for rank in (0, 1):
        prose.folder(tmp_path / str(rank), 12 + rank)
    found = ranks(2).run(other_texts, prose.tree(tmp_path), str(tmp_path))
    assert all("ranks read different data for text" in message for message in found)


def test_rows_have_a_perplexity(texts, tmp_path):
    rows = ranks(2).run(jobs.life, prose.tree(texts, rounds=2), str(tmp_path / "run"))[0]
    assert len(rows) == 3
    for row in rows:
        assert row["test_perplexity"] == pytest.approx(math.exp(row["test_loss"]))
    assert rows[-1]["test_perplexity"] < 30


def test_a_perplexity_is_a_number_or_nothing():
    assert perplexity(0.0) == 1.0
    assert perplexity(690.0) == pytest.approx(math.exp(690))
    for loss in (691.0, 1e6, math.inf, math.nan):
        assert perplexity(loss) is None
