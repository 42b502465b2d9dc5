"""What people of a shared cluster may do: charts/fedtrain-platform by Helm, its roles used."""

import json
import subprocess
from pathlib import Path

import pytest

from tests import patience
from tests.cluster.harness import LONG, SMALL, Kubernetes, Namespace, until
from tests.cluster.stack.parts import ROOT


@pytest.fixture
def researcher(cluster: Kubernetes, namespace: Namespace) -> Path:
    """The kubeconfig of somebody who has the platform chart's user role, and no other right."""
    if cluster.stack is None:
        pytest.skip("NOT TESTED: whose tokens this cluster has is not known")
    words = [
        cluster.helm, "install", "platform", str(ROOT / "charts/fedtrain-platform"),
        "--namespace", namespace.name, "--kubeconfig", str(cluster.kubeconfig),
        "--set-json", 'access.users=[{"kind": "Group", "name": "researchers"}]',
        "--set", "access.fetch=true", "--set", "monitoring.podMonitor.enabled=false",
    ]  # fmt: skip
    subprocess.run(words, check=True, capture_output=True, timeout=patience.seconds(120))
    return cluster.stack.kubeconfig("researcher", namespace.name)


@pytest.mark.smoke
def test_the_role_of_a_user_suffices_for_all_that_fedctl_does(
    cluster: Kubernetes, namespace: Namespace, researcher: Path
):
    def fedctl(*words: str, **more):
        return namespace.fedctl(*words, kubeconfig=researcher, **more)

    small = ("--gpus", "0", "--ranks", "2", "--image", cluster.image, "--values", str(SMALL))
    run = ("gwpf-digits", *small, *LONG)
    fedctl("submit", *run, "--dry-run", "server")
    fedctl("submit", *run)
    fedctl("diff", *run)
    fedctl("wait", "gwpf-digits", "--for", "running", "--timeout", patience.text(180))
    namespace.wait_for_round("gwpf-digits", 5)
    told = json.loads(fedctl("status", "gwpf-digits", "-o", "json").stdout)
    assert told["state"] == "Running"
    assert "round" in fedctl("logs", "gwpf-digits").stdout
    top = json.loads(fedctl("top", "gwpf-digits", "-o", "json").stdout)
    assert [rank["problem"] for run in top for rank in run["ranks"]] == ["", ""], top
    fedctl("fetch", "gwpf-digits", "--out", "fetched")
    fedctl("suspend", "gwpf-digits")
    fedctl("wait", "gwpf-digits", "--for", "suspended", "--timeout", patience.text(120))
    fedctl("resume", "gwpf-digits")
    fedctl("wait", "gwpf-digits", "--for", "running", "--timeout", patience.text(180))
    doctor = json.loads(fedctl("doctor", "-o", "json").stdout)
    assert "fail" not in json.dumps(doctor)
    fedctl("cancel", "gwpf-digits", "--purge", "--yes")
    until(lambda: namespace.get("pvc")["items"], lambda claims: not claims)
    assert "gwpf-digits" not in fedctl("list").stdout


@pytest.mark.smoke
def test_what_ended_is_cleared_away(cluster: Kubernetes, namespace: Namespace):
    small = ("--gpus", "0", "--ranks", "2", "--set", "rounds=2")
    namespace.submit("gwpf-digits", *small, "--wait")
    kept = namespace.fedctl("gc", "--older-than", "1h", "--yes").stdout
    assert "gwpf-digits" in namespace.fedctl("list").stdout, kept
    dry = namespace.fedctl("gc", "--older-than", "0s", "--dry-run").stdout
    assert "gwpf-digits" in dry
    assert "gwpf-digits" in namespace.fedctl("list").stdout
    namespace.fedctl("gc", "--older-than", "0s", "--yes")
    assert "gwpf-digits" not in namespace.fedctl("list").stdout
    assert len(namespace.get("pvc")["items"]) == 1
    namespace.fedctl("cancel", "gwpf-digits", "--purge", "--yes")
    until(lambda: namespace.get("pvc")["items"], lambda claims: not claims)

    namespace.submit("gwpf-digits", *small, "--wait")
    namespace.fedctl("gc", "--older-than", "0s", "--claims", "--yes")
    until(lambda: namespace.get("pvc")["items"], lambda claims: not claims)


def test_the_doctor_finds_a_whole_cluster_well(namespace: Namespace):
    found = json.loads(namespace.fedctl("doctor", "-o", "json").stdout)
    assert "fail" not in json.dumps(found)
    assert "1.9.4" in json.dumps(found) or "PyTorchJob" in json.dumps(found)
