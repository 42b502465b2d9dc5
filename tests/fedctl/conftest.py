"""Run folders as the trainer leaves them, written by hand, and commands run in a folder apart."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fedctl import bundled
from fedctl.chart import helm
from fedctl.cli import main
from tests.fedctl.apiserver import ApiServer, serving
from tests.fedctl.podserver import PodServer, serving_pods
from tests.fedctl.processes import Start, starting_in
from tests.tools import program
from trainer.config.load import load

Invoke = Callable[..., Result]
WriteRun = Callable[..., Path]


@pytest.fixture
def fedctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def invoke(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], prog_name="fedctl")

    return invoke


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `fedctl` in an empty folder, as a process of its own."""
    with starting_in(tmp_path) as start:
        yield start


@pytest.fixture
def apiserver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A cluster as KUBECONFIG names it: context `test`, at namespace `lab`."""
    with serving(tmp_path) as (server, kubeconfig):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield server


@pytest.fixture
def started(api: PodServer) -> list[dict[str, Any]]:
    """A kubelet: every pod that is made runs at once; those that were made."""
    made = []

    def start(obj: dict[str, Any]) -> None:
        if obj["kind"] == "Pod":
            made.append(obj)
            container = obj["spec"]["containers"][0]["name"]
            running = {"name": container, "state": {"running": {}}, "restartCount": 0}
            api.add(obj | {"status": {"phase": "Running", "containerStatuses": [running]}})

    api.on_create = start
    return made


def row(number: int, frozen: float, *, final: bool = False, tested: bool = True) -> dict[str, Any]:
    """Round `number` of a model of 1,000 parameters with ten clients."""
    values = round(40_000 * number * (1 - frozen))
    votes = round(1_250 * number * frozen)
    content = {
        "round": number,
        "time_seconds": 0.5 * number,
        "federated_time_seconds": 0.1 * number if tested else None,
        "messages_total": 20 * number,
        "test_accuracy_ratio": 0.9 - 0.5 / number if tested else None,
        "test_loss": 1.0 / number if tested else None,
        "train_loss": 1.5 / number if tested else None,
        "frozen_parameters_ratio": frozen,
        "labelled_frozen_ratio": frozen,
        "thawed_parameters": 0,
        "clients_sampled": 10,
        "parameters": 1_000,
        "local_steps_total": 50 * number,
        "samples_total": 1_600 * number,
        "payload_bytes_total": {
            "values": values,
            "votes": votes,
            "buffers": 0,
            "control": 0,
            "moves": 0,
            "reconcile": 0,
            "evaluation": 160 * number,
        },
        "wire_bytes_total": {
            "values": round(0.75 * values),
            "votes": votes,
            "moves": round(400 * number * frozen),
            "evaluation": round(200 * number * frozen),
        },
        "dense_equivalent_bytes_total": 40_000 * number,
        "phase_seconds_total": {"local": 0.4 * number},
    }
    return content | ({"final": True} if final else {})


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Writes a run folder of a preset: ten rounds, a share of the parameters frozen throughout."""

    def write(
        name: str, preset: str = "fedavg-digits", frozen: float = 0.0, finished: bool = True
    ) -> Path:
        folder = tmp_path / name
        (folder / "logs").mkdir(parents=True)
        experiment, _ = load(preset, sets=["rounds=10"], presets=bundled.PRESETS)
        (folder / "experiment.json").write_text(experiment.canonical())
        rows = [row(number, frozen, tested=number % 2 == 0) for number in range(1, 11)]
        if finished:
            rows.append(row(10, frozen, final=True))
            (folder / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")  # no tensor at all
        text = "".join(json.dumps(content) + "\n" for content in rows)
        (folder / "metrics.jsonl").write_text(text)
        return folder

    return write


@pytest.fixture
def write_rank() -> Callable[..., None]:
    """Writes the record of a rank."""

    def write(folder: Path, rank: int, status: str, **values: Any) -> None:
        record = {
            "rank": rank,
            "pid": 2**22 - rank,
            "status": status,
            "exit": None,
            "message": "",
            "round": 0,
            "metrics_port": None,
        }
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        (folder / "logs" / f"rank-{rank}.json").write_text(json.dumps(record | values))

    return write


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PodServer]:
    """An API server with pods, which the kubeconfig of this test names; namespace lab."""
    with serving_pods(tmp_path) as (server, kubeconfig):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield server


@pytest.fixture
def cluster(api: PodServer) -> Any:
    """That server, as fedctl asks it."""
    from fedctl.cluster.api.client import connect

    return connect()


@pytest.fixture
def with_helm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Helm of the tests' tools, whatever is on PATH."""
    monkeypatch.setenv("FEDCTL_HELM", program("helm"))
    helm.program.cache_clear()
    yield
    helm.program.cache_clear()
