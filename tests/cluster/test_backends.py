"""`fedctl submit` on each backend: real operators make pods that train what `fedctl run` trains."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import patience
from tests.cluster.harness import BACKENDS, LONG, MAIN, Namespace

# Each gives four ranks on CPUs.
HERE = ("--ranks", "4", "--set", "cluster.backend=gloo", "--set", "name=gwpf-digits")


@pytest.fixture(scope="session")
def here(tmp_path_factory) -> Path:
    """The same experiment, run on this machine."""
    folder = tmp_path_factory.mktemp("here") / "run"
    words = ["run", "gwpf-digits", *HERE, "--out", str(folder), "--quiet"]
    subprocess.run([sys.executable, "-c", MAIN, *words], check=True, timeout=patience.seconds(300))
    return folder


def last(folder: Path) -> dict:
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.smoke
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_submitted_run_trains_what_a_run_here_trains(
    namespace: Namespace, here: Path, backend: str
):
    words = ("gwpf-digits", "--backend", backend, "--set", "cluster.backend=gloo")
    logged = namespace.submit(*words, "--wait", "--logs").stdout
    assert "round 120/120" in logged
    assert "Succeeded" in logged

    told = namespace.status("gwpf-digits")
    assert told["state"] == "Succeeded"
    assert [rank["state"] for rank in told["ranks"]] == ["Succeeded"] * 4

    pods = namespace.get("pods", "-l", "app.kubernetes.io/instance=gwpf-digits")["items"]
    assert len(pods) == 4
    assert all(pod["spec"]["securityContext"]["runAsUser"] == 10001 for pod in pods)
    by_kubectl = [namespace.kubectl("logs", pod["metadata"]["name"]) for pod in pods]
    assert sum("round 120/120" in log for log in by_kubectl) == 1  # rank 0 speaks for all

    namespace.fedctl("fetch", "gwpf-digits", "--out", "fetched")
    fetched = namespace.folder / "fetched"
    assert (fetched / "experiment.json").read_text() == (here / "experiment.json").read_text()
    there, ours = last(fetched), last(here)
    for name in ("round", "test_accuracy_ratio", "test_loss", "frozen_parameters_ratio"):
        assert there[name] == ours[name], name
    assert (fetched / "model.safetensors").read_bytes() == (here / "model.safetensors").read_bytes()
    report = [sys.executable, "-c", MAIN, "report", str(fetched)]
    subprocess.run(report, check=True, capture_output=True, cwd=namespace.folder)


def test_two_pipelines_of_three_ranks_train_what_they_train_here(namespace: Namespace):
    """Six pods: rank r is stage r mod 3 of pipeline r div 3, and one model comes out."""
    words = ("pipelines-digits", "--set", "rounds=6", "--set", "cluster.backend=gloo")
    words += ("--set", "cluster.timeout=300", "--ranks", "6")
    folder = namespace.folder / "here"
    here = [sys.executable, "-c", MAIN, "run", *words, "--out", str(folder), "--quiet"]
    subprocess.run(here, check=True, timeout=patience.seconds(300))

    logged = namespace.submit(*words, "--backend", "job", "--wait", "--logs").stdout
    assert "round 6/6" in logged and "idle" in logged
    told = namespace.status("pipelines-digits")
    assert [rank["state"] for rank in told["ranks"]] == ["Succeeded"] * 6
    namespace.fedctl("fetch", "pipelines-digits", "--out", "fetched")
    fetched = namespace.folder / "fetched"
    assert last(fetched)["test_loss"] == last(folder)["test_loss"]
    model = (folder / "model.safetensors").read_bytes()
    assert (fetched / "model.safetensors").read_bytes() == model


def test_what_render_prints_is_what_the_cluster_has(namespace: Namespace):
    words = ("gwpf-digits", "--gpus", "0", "--image", "localhost/none:1")
    rendered = namespace.fedctl("render", *words).stdout
    assert namespace.fedctl("submit", *words, "--dry-run", "client").stdout == rendered
    namespace.fedctl("submit", *words)
    # Server-side apply of the same text changes nothing of what the cluster holds.
    before = namespace.get("pytorchjob", "gwpf-digits")["metadata"]["generation"]
    (namespace.folder / "rendered.yaml").write_text(rendered)
    file = str(namespace.folder / "rendered.yaml")
    namespace.kubectl("apply", "--server-side", "--field-manager=fedctl", "-f", file)
    assert namespace.get("pytorchjob", "gwpf-digits")["metadata"]["generation"] == before
    namespace.fedctl("diff", *words)
    assert "nothing was changed" in namespace.fedctl("submit", *words).stdout
    changed = namespace.fedctl("diff", *words, "--set", "rounds=7", exit_code=1).stdout
    assert "+" in changed and "rounds" in changed
    refused = namespace.fedctl("submit", *words, "--set", "rounds=7", exit_code=2).stderr
    assert "--name" in refused


def test_a_run_is_watched_while_it_trains_and_stopped(namespace: Namespace):
    namespace.submit("gwpf-digits", *LONG)
    namespace.fedctl("wait", "gwpf-digits", "--for", "running", "--timeout", patience.text(180))
    namespace.wait_for_round("gwpf-digits", 5)
    top = json.loads(namespace.fedctl("top", "gwpf-digits", "-o", "json").stdout)
    assert "gwpf-digits" in json.dumps(top)
    assert "gwpf-digits" in namespace.fedctl("list").stdout
    late = namespace.fedctl("wait", "gwpf-digits", "--timeout", "2s", exit_code=124)
    assert "2s" in late.stderr or "2 s" in late.stderr
    every = namespace.fedctl("logs", "gwpf-digits", "--all", "--tail", "2").stdout
    assert all(f"rank {rank}" in every for rank in range(4))
    namespace.fedctl("fetch", "gwpf-digits", "--out", "partial")  # of a run that goes on
    assert (namespace.folder / "partial" / "metrics.jsonl").exists()
    namespace.fedctl("cancel", "gwpf-digits", "--yes")
    namespace.fedctl("wait", "gwpf-digits", "--for", "deleted", "--timeout", patience.text(120))
    claims = namespace.get("pvc")["items"]
    assert len(claims) == 1  # the run folder stays
