"""The presets of the homework's part B: the class's ways to train a decoder, on a small one."""

import json
from typing import Any

import pytest

from fedctl import bundled
from tests import jobs, prose
from tests.ranks import ranks
from trainer.config.load import load

ROUNDS = 6


@pytest.fixture
def text(tmp_path):
    """A training text of 900 tokens with its one line end, so that 2, 3 or 6 parts are equal."""
    words = prose.prose(400).split()
    for name, part in (("train", words[:899]), ("test", words[899:1000])):
        (tmp_path / "text" / name).mkdir(parents=True)
        (tmp_path / "text" / name / "0.txt").write_text(" ".join(part) + "\n")
    return tmp_path / "text"


def last(name: str, text: Any, folder: Any, *more: str) -> dict[str, Any]:
    """The last row of a run of the preset, with a small network."""
    sets = [
        *(f"data.path={text}", "data.context=6", "data.tokenizer={name: words}"),
        *("model.name=llama-tiny", f"rounds={ROUNDS}"),
        *more,
    ]
    experiment, _ = load(name, sets=sets, presets=bundled.PRESETS, ineffective_allowed=True)
    tree = json.loads(experiment.canonical())
    return ranks(experiment.ranks).run(jobs.life, tree, str(folder / name))[0][-1]


def test_three_rows_are_one_step_whichever_ranks_have_them(text, tmp_path):
    """One rank, three that average gradients, a pipeline, and one with microbatches."""
    alone = last("homework-primer", text, tmp_path)
    for name in ("homework-gradients", "homework-pipeline", "homework-b1"):
        row = last(name, text, tmp_path, "parallel.layers=null")
        assert row["test_loss"] == pytest.approx(alone["test_loss"], rel=1e-5), name
    apart = last("homework-weights", text, tmp_path)
    assert apart["test_loss"] != pytest.approx(alone["test_loss"], rel=1e-3)


def test_two_pipelines_take_the_steps_of_one_rank_with_six_rows(text, tmp_path):
    joint = last("homework-primer", text, tmp_path, "schedule.batch_size=6")
    both = last("homework-b2", text, tmp_path, "parallel.layers=null")
    assert both["test_loss"] == pytest.approx(joint["test_loss"], rel=1e-5)
