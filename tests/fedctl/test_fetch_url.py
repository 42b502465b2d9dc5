"""A run at a URL is fetched through a pod with the run's own credentials, which leaves no trace."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedctl.cluster.transfer import fetch as fetching
from tests.engine.test_resume import free_port
from tests.fedctl.objects import job
from tests.fedctl.podserver import PodServer
from tests.fedctl.test_fetch import contents
from tests.objectstore import Server, server
from trainer.storage.objects import Objects

FILES = {
    "experiment.json": b"{}",
    "metrics.jsonl": b"{}\n",
    "logs/rank-0.log": b"round 1\n",
    "logs/rank-1.log": b"round 1\n",
    "model.safetensors": bytes(range(256)) * 100,
    "checkpoints/round-000001/manifest.json": b"{}",
}
SECRET = [{"secretRef": {"name": "store"}}]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "POLL_SECONDS", 0.01)
    with server(tmp_path / "store", free_port()) as made:
        # what the pod has from its Secret and its values, the script has from here
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FEDCTL_RUN_URL", made.url("digits"))
        kept = Objects(made.url("digits"))
        for name, content in FILES.items():
            kept.put(name, content)
        yield made


def ended(store: Server) -> dict[str, Any]:
    """A run at a URL, as its job names it."""
    made = job(end="Succeeded", claim=None)
    spec = made["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    spec["containers"][0]["envFrom"] = SECRET
    spec["containers"][0]["env"] = [
        {"name": "FEDCTL_RUN_URL", "value": store.url("digits")},
        {"name": "AWS_ENDPOINT_URL", "value": store.environment["AWS_ENDPOINT_URL"]},
        {"name": "RANK", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    return made


@pytest.mark.parametrize("what", ["metrics", "model", "all"])
def test_it_comes_from_its_url(
    api: PodServer,
    fedctl,
    store: Server,
    started,
    tmp_path: Path,
    what: str,
) -> None:
    api.add(ended(store))
    api.folders["/runs/digits"] = tmp_path / "of the pod"
    got = fedctl("fetch", "digits", "--what", what, "--out", "mine")
    assert got.exit_code == 0, got.output
    left_out = {"metrics": ("model", "checkpoints"), "model": ("checkpoints",), "all": ()}[what]
    wanted = {name: FILES[name] for name in FILES if not name.startswith(left_out or "/")}
    assert contents(tmp_path / "mine") == wanted
    (helper,) = started
    (container,) = helper["spec"]["containers"]
    assert container["envFrom"] == SECRET
    assert [item["name"] for item in container["env"]] == ["FEDCTL_RUN_URL", "AWS_ENDPOINT_URL"]
    assert helper["spec"]["volumes"] == [{"name": "runs", "emptyDir": {}}]
    assert api.names("Pod") == [], "it is deleted"


def test_what_is_wrong_with_the_store_is_told(
    api: PodServer,
    fedctl,
    store: Server,
    started,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    api.add(ended(store))
    got = fedctl("fetch", "digits", "--out", "mine")
    assert got.exit_code == 1
    assert f"{store.url('digits')}: access is denied" in got.stderr.replace("\n", " ")


def test_nothing_is_said_of_a_claim_that_it_does_not_have(
    api: PodServer, fedctl, store: Server
) -> None:
    def fail(obj: dict[str, Any]) -> None:
        name = obj["spec"]["containers"][0]["name"]
        status = {"name": name, "state": {"waiting": {"reason": "ErrImagePull"}}}
        api.add(obj | {"status": {"phase": "Pending", "containerStatuses": [status]}})

    api.on_create = fail
    api.add(ended(store))
    got = fedctl("fetch", "digits", "--out", "mine")
    assert got.exit_code == 1 and "which reads the run folder, cannot run" in got.stderr
    assert "claim" not in got.output
