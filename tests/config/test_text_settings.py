"""Settings of language models: what fits text, what has no effect on it, and what is said then."""

import pytest

from trainer.config.data import TEXT, Data
from trainer.config.errors import ConfigError
from trainer.config.load import load

TOPICS = ("data.name=python-topics", "model.name=llama-tiny")


def refusal(*sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load({}, sets=sets)
    return str(caught.value)


def test_text_is_contiguous_unless_it_is_said():
    assert load({}, sets=TOPICS)[0].data.partition.name == "contiguous"
    for name in ("iid", "shared", "documents", "lengths"):
        found = load({}, sets=[*TOPICS, f"data.partition.name={name}"])[0]
        assert found.data.partition.name == name
    assert load({}, sets=["data.name=mnist"])[0].data.partition.name == "iid"


def test_a_text_has_a_task_of_its_own():
    assert Data(name="wikitext2", path="x").kind == TEXT
    assert Data(name="python-topics").task != Data().task


def test_the_canonical_form_is_read_back():
    experiment = load({}, sets=[*TOPICS, "data.tokenizer={name: sentencepiece, size: 500}"])[0]
    assert load(experiment.model_dump(mode="json"))[0] == experiment


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            ["evaluation.target_perplexity=9"],
            "evaluation.target_perplexity: only text has a perplexity, and data.name=digits is "
            "images; set evaluation.target to an accuracy",
        ),
        (
            ["data.name=text"],
            "data: name text needs path; set data.path to the file or folder",
        ),
        (
            ["data.name=python-topics"],
            "model.name: digits-cnn takes images, and data.name=python-topics is text; set "
            "model.name to gwpf-transformer, transformer-tiny, llama-26m or another model for it",
        ),
        (
            ["model.name=llama-tiny"],
            "model.name: llama-tiny takes text, and data.name=digits is images; set model.name to "
            "softmax, digits-cnn, lenet or another model for it",
        ),
        (
            [*TOPICS, "data.partition.name=dirichlet"],
            "data.partition.name: dirichlet divides images, and data.name=python-topics is text; "
            "set it to iid, shared, contiguous, documents, lengths",
        ),
        (
            ["data.partition.name=documents"],
            "data.partition.name: documents divides text, and data.name=digits is images; set it "
            "to iid, dirichlet, shards, percentage-iid, shared",
        ),
        (
            [*TOPICS, "data.label_noise=0.1"],
            "data.label_noise: has no effect while data.name is python-topics; drop it, or set "
            "data.name=mnist",
        ),
        (
            ["data.context=7"],
            "data.context: has no effect while data.name is digits; drop it, or set "
            "data.name=python-topics or wikitext2 or text",
        ),
        (
            ["data.tokenizer.name=sentencepiece"],
            "data.tokenizer: has no effect while data.name is digits; drop it, or set "
            "data.name=python-topics or wikitext2 or text",
        ),
        (
            ["data.name=wikitext2", "data.path=x", "model.name=llama-tiny", "data.test_share=0.2"],
            "data.test_share: has no effect while data.name is wikitext2; drop it, or set "
            "data.name=python-topics or text",
        ),
        (
            [*TOPICS, "data.tokenizer={name: sentencepiece, size: 500, model: a.model}"],
            "data.tokenizer.size: has no effect while data.tokenizer.model is a.model; drop it, or "
            "set data.tokenizer.model=null",
        ),
        (
            [*TOPICS, "model.norm=batch"],
            "model.norm: llama-tiny has no choice of normalisation; leave model.norm empty",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(sets, message):
    assert refusal(*sets) == message


@pytest.mark.parametrize("key", ["resize=9", "augment=true", "mean=[0.1]", "std=[0.1]"])
def test_settings_of_images_have_no_effect_on_text(key):
    assert "has no effect while data.name is python-topics" in refusal(*TOPICS, f"data.{key}")


@pytest.mark.parametrize("size", ["words, size: 2", "sentencepiece, size: 299"])
def test_a_vocabulary_has_a_least_size(size):
    assert "data.tokenizer" in refusal(*TOPICS, f"data.tokenizer={{name: {size}}}")
