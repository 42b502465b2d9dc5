"""The claims of docs/security.md: those that are tested nowhere else, and that its tests exist."""

import ast
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.charts import fedtrain, platform
from trainer.config.base import Section
from trainer.config.errors import ConfigError
from trainer.config.keys import settings
from trainer.config.load import load
from trainer.config.schema import Experiment
from trainer.data import images
from trainer.engine import state_file
from trainer.manifest import Damaged

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/security.md").read_text("utf-8")


class Hostile:
    """Whoever unpickles this runs code."""

    def __reduce__(self) -> Any:
        return print, ("code of the file was run",)


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", PAGE))
    assert len(named) > 30
    missing = []
    for file, name in sorted(named):
        path = ROOT / file
        found = {
            node.name
            for node in (ast.parse(path.read_text("utf-8")).body if path.exists() else [])
            if isinstance(node, ast.FunctionDef)
        }
        if name not in found:
            missing.append(f"{file}::{name}")
    assert missing == []


def test_every_path_of_a_test_in_the_page_is_one_of_a_test() -> None:
    """A name that the line broke, or without its file, would be checked by nobody."""
    assert len(re.findall(r"\btest_\w+", re.sub(r"tests/[\w/]+\.py::", "", PAGE))) == len(
        re.findall(r"tests/[\w/]+\.py::test_\w+", PAGE)
    )


# --- files of others ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:builtins.print [code of the file was run]",
        "!!python/object/new:builtins.print [code of the file was run]",
        "name: !!python/name:os.system",
    ],
)
def test_yaml_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match="unknown tag"):
        load(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="unknown tag"):
        load({}, sets=[text.replace(": ", "=", 1) if text.startswith("name") else f"name={text}"])
    assert capsys.readouterr().out == ""


def test_no_setting_names_code() -> None:
    """Classes are named by `implementation`, which no experiment can set."""
    assert "implementation" in vars(Section) and "implementation" not in Experiment.model_fields
    assert [s.key for s in settings() if "implementation" in s.key.split(".")] == []
    for key in ("algorithm.implementation", "sync.implementation", "model.path"):
        with pytest.raises(ConfigError, match="unknown key"):
            load({}, sets=[f"{key}=os:system"])
    for key in ("algorithm.name", "sync.name", "codec.name", "data.name", "model.name"):
        with pytest.raises(ConfigError):
            load({}, sets=[f"{key}=os:system"])


def test_a_forged_cifar_is_refused_unread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, folder, files in (
        ("cifar10", "cifar-10-batches-py", [*(f"data_batch_{n}" for n in range(1, 6))]),
        ("cifar100", "cifar-100-python", ["train"]),
    ):
        for file in (*files, "test_batch", "test", "batches.meta", "meta"):
            path = tmp_path / folder / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(pickle.dumps(Hostile()))
        with pytest.raises(ConfigError, match="not found, or damaged"):
            images.named(name, tmp_path, download=False)
    assert capsys.readouterr().out == ""


def test_a_checkpoint_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of a checkpoint is unpickled, whoever has sealed it."""
    torch.save({"format": Hostile()}, tmp_path / "saved.pt")
    (tmp_path / "pickled.pt").write_bytes(pickle.dumps(Hostile()))
    for name in ("saved.pt", "pickled.pt"):
        with pytest.raises(Damaged):
            state_file.read(tmp_path / name, torch.device("cpu"))
    assert capsys.readouterr().out == ""


# --- pods -----------------------------------------------------------------------------------------


def test_metrics_are_on_loopback_unless_a_pod_asks() -> None:
    assert Experiment().metrics.host == "127.0.0.1"
    (container,) = fedtrain.pod(fedtrain.render())["spec"]["containers"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env["FEDCTL_METRICS_HOST"] == "0.0.0.0"


@pytest.mark.parametrize("backend", fedtrain.BACKENDS)
def test_only_a_runs_own_pods_may_connect_but_for_metrics(backend: str) -> None:
    rendered = fedtrain.render({"backend": backend})
    spec = rendered["NetworkPolicy/gwpf-digits"]["spec"]
    own = {"app.kubernetes.io/name": "fedtrain", "app.kubernetes.io/instance": "gwpf-digits"}
    assert own.items() <= fedtrain.pod(rendered)["metadata"]["labels"].items()
    peers = [{"podSelector": {"matchLabels": own}}]
    assert spec["podSelector"]["matchLabels"] == own
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [
        {"from": peers},
        {"ports": [{"port": "metrics", "protocol": "TCP"}]},
    ]
    to_peers, names = spec["egress"]
    assert to_peers == {"to": peers}
    assert {port["port"] for port in names["ports"]} == {53}


@pytest.mark.parametrize("backend", fedtrain.BACKENDS)
def test_pods_have_no_token_of_the_api_server(backend: str) -> None:
    spec = fedtrain.pod(fedtrain.render({"backend": backend}))["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


def test_the_platforms_policy_joins_the_runs_of_a_namespace() -> None:
    """Policies add up: the page warns of it, as long as it is so."""
    labels = fedtrain.pod(fedtrain.render())["metadata"]["labels"]
    spec = platform.render({})["NetworkPolicy/platform"]["spec"]
    for rule in (spec, spec["ingress"][0]["from"][0]):
        assert rule["podSelector"]["matchLabels"].items() <= labels.items()
    assert "all runs of its namespace" in PAGE
