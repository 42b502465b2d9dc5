"""Secrets in text: none gets into an experiment, none out of a message."""

import json
import logging
import sys

import pytest

from trainer import __main__ as entry
from trainer.config import documents
from trainer.config.errors import ConfigError
from trainer.config.load import load
from trainer.config.secrets import in_url, redact, redacted

WORD = "hunter2hunter2"
SECRET = [
    f"https://me:{WORD}@host/x",
    f"https://{WORD}@host",
    f"postgresql://me:{WORD}@db/runs",
    f"postgresql:///runs?user=me&password={WORD}",
    f"s3://bucket/key?X-Amz-Algorithm=a&X-Amz-Signature={WORD}",
    f"https://x.blob.example/data.npz?sv=1&sig={WORD}",
    f"https://host/?access_token={WORD}",
]
PLAIN = [
    "http://host:5000",
    "https://host/a@b?x=1",
    "postgresql://me@db/runs",
    "sqlite:////data/mlflow.db",
    "/data/me:you@home.npz",
    "data/set?token=odd-file-name",
    "written by me@host",
]


@pytest.mark.parametrize("text", SECRET)
def test_a_secret_in_a_url_is_recognised_and_hidden(text):
    assert in_url(text)
    hidden = redacted(f"HTTPError: {text} failed; try again")
    assert WORD not in hidden and "***" in hidden
    assert hidden.endswith(" failed; try again")


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text):
    assert not in_url(text)


def test_a_header_is_hidden():
    for kind in ("Bearer", "basic"):
        for name in ("Authorization: ", "proxy-authorization: ", '"Authorization": "', ""):
            for secret in (WORD, "bWU6c2VjcmV0Cg=="):
                assert redacted(f"{name}{kind} {secret}") == f"{name}{kind} ***"
        assert redacted(f"Authorization: {kind} letters") == f"Authorization: {kind} ***"


@pytest.mark.parametrize(
    "text",
    [
        "a basic example",
        "runs/basic training-run: no such",
        "basic digits-run-2",
        "bearer unknown!",
    ],
)
def test_words_that_follow_these_names_are_none(text):
    assert redacted(text) == text


KEYS = ("data.path", "model.weights", "description", "metrics.mlflow.uri", "metrics.host")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("url", SECRET)
def test_an_experiment_with_a_secret_in_a_url_is_refused_without_showing_it(key, url):
    with pytest.raises(ConfigError) as error:
        load({"data": {"name": "mnist"}}, sets=[f"{key}={json.dumps(url)}"])
    line = str(error.value)
    assert line.startswith(f"{key}: ") and "remove it" in line
    assert WORD not in line


@pytest.mark.parametrize("key", ["rounds", "data.name", "data.mean"])
def test_a_mistake_quotes_no_secret_either(key):
    with pytest.raises(ConfigError) as error:
        load({}, sets=[f"{key}=https://me:{WORD}@host"])
    assert "https://***@host" in str(error.value)


@pytest.mark.parametrize("url", [text for text in PLAIN if "://" in text])
def test_other_addresses_are_accepted(url):
    experiment, _ = load(
        {}, sets=["metrics.mlflow.enabled=true", f"metrics.mlflow.uri={json.dumps(url)}"]
    )
    assert experiment.metrics.mlflow.uri == url


@pytest.mark.parametrize("key", ["metrics.wandb.api_key", "metrics.mlflow.password", "token"])
def test_no_setting_takes_a_secret(key):
    with pytest.raises(ConfigError) as error:
        load({}, sets=[f"{key}={WORD}"])
    line = str(error.value)
    assert line.startswith(f"{key}: unknown key; no setting holds a secret: pass it in an envir")
    assert "did you mean" not in line and WORD not in line


@pytest.mark.parametrize("key", ["extends", "rounds", "optimizer", "sync.name"])
@pytest.mark.parametrize("value", [[WORD], {"token": WORD}, [{"name": "KEY", "value": WORD}]])
def test_what_is_in_a_map_or_list_in_a_wrong_place_is_not_shown(key, value):
    with pytest.raises(ConfigError) as error:
        load(_at(key, value))
    assert WORD not in str(error.value)


def _at(key, value):
    section, _, leaf = key.partition(".")
    return {section: {leaf: value} if leaf else value}


def test_a_log_hides_what_a_library_said(caplog):
    log = logging.getLogger("fedctl-test-secrets")
    log.addFilter(redact)
    log.warning("%s: %s of %d%%", "metrics.mlflow", SECRET[0], 5)
    assert caplog.messages == ["metrics.mlflow: https://***@host/x of 5%"]


def test_neither_log_nor_last_words_nor_record_of_a_rank_have_a_secret(
    tmp_path, monkeypatch, capfd
):
    """Whatever an error says that the trainer did not expect."""

    def fail(*_):
        logging.getLogger("fedctl").warning("metrics.mlflow: %s", SECRET[0])
        raise RuntimeError(f"cannot reach {SECRET[0]}")

    message = tmp_path / "message"
    message.touch()
    monkeypatch.setenv("FEDCTL_TERMINATION_LOG", str(message))
    monkeypatch.setattr(sys, "argv", ["trainer", "none.json", "--out", str(tmp_path)])
    monkeypatch.setattr(entry, "train", fail)
    log = logging.getLogger("fedctl")
    kept = list(log.handlers)
    try:
        assert entry.main() == 1
    finally:
        for handler in [h for h in log.handlers if h not in kept]:
            log.removeHandler(handler)
            handler.close()
    written = [path.read_text() for path in (message, *(tmp_path / "logs").iterdir())]
    written += capfd.readouterr()
    assert WORD not in "".join(written)
    assert sum("***@host" in text for text in written) == 4  # and on stderr


@pytest.mark.parametrize("value", ["0123456", "1:30", "!0123456x y", "*1:30", "&x 1:30"])
def test_a_secret_that_yaml_reads_as_something_else_is_not_shown(value):
    with pytest.raises(ConfigError) as error:
        documents.parse(f"a: b\nenv: {{WANDB_API_KEY: {value}}}\n", "--values FILE")
    line = str(error.value)
    assert line.startswith("--values FILE: line 2: ") and "quote" in line
    assert "0123456" not in line and "1:30" not in line
