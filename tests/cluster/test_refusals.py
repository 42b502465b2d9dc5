"""What a cluster refuses or leaves undone, and the one line that a person reads of it."""

import json
from pathlib import Path

import pytest

from tests.cluster.harness import BACKENDS, Kubernetes, Namespace, until

RUN = ("gwpf-digits", "--gpus", "0", "--image", "localhost/none:1")


def says(namespace: Namespace, *words: str) -> None:
    """`fedctl status` names the problem within a minute."""
    until(
        lambda: json.dumps(namespace.status("gwpf-digits")["problems"]).lower(),
        lambda told: all(word.lower() in told for word in words),
        90,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_image_that_is_nowhere(namespace: Namespace, backend: str):
    namespace.fedctl("submit", *RUN, "--backend", backend)
    says(namespace, "image", "localhost/none:1")


@pytest.mark.parametrize("backend", BACKENDS)
def test_ranks_that_no_node_has_room_for(namespace: Namespace, backend: str):
    (namespace.folder / "large.yaml").write_text("resources: {cpus: 900}")
    namespace.fedctl("submit", *RUN, "--backend", backend, "--values", "large.yaml")
    says(namespace, "cpu")


def test_gpus_where_there_are_none(namespace: Namespace):
    namespace.fedctl("submit", "gwpf-digits", "--image", "localhost/none:1")
    says(namespace, "nvidia.com/gpu")


def test_a_claim_that_nothing_provides(namespace: Namespace):
    namespace.fedctl("submit", *RUN, "--storage-class", "nowhere")
    says(namespace, "nowhere")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_quota_that_is_used_up(cluster: Kubernetes, namespace: Namespace, backend: str):
    about = {"name": "small", "namespace": namespace.name}
    hard = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": about,
        "spec": {"hard": {"pods": "0"}},
    }
    cluster.apply(hard)
    until(lambda: namespace.get("resourcequota", "small").get("status", {}).get("hard"), bool, 30)
    namespace.fedctl("submit", *RUN, "--backend", backend)
    says(namespace, "quota", "small")


def test_a_quota_that_refuses_the_claim_leaves_nothing_behind(
    cluster: Kubernetes, namespace: Namespace
):
    about = {"name": "small", "namespace": namespace.name}
    none = {"hard": {"persistentvolumeclaims": "0"}}
    cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": about, "spec": none})
    until(lambda: namespace.get("resourcequota", "small").get("status", {}).get("hard"), bool, 30)
    refused = namespace.fedctl("submit", *RUN, exit_code=1).stderr
    assert "quota" in refused and "small" in refused
    assert len(refused.strip().splitlines()) <= 2
    kept = namespace.get(
        "configmaps,networkpolicies,pytorchjobs", "-l", "app.kubernetes.io/instance"
    )
    assert not kept["items"]


def test_a_fabric_that_a_restricted_namespace_forbids(namespace: Namespace):
    refused = namespace.fedctl("submit", *RUN, "--profile", "infiniband", exit_code=2).stderr
    assert "infiniband" in refused and "privileged" in refused
    forced = ("--profile", "infiniband", "--pod-security", "privileged")
    refused = namespace.fedctl("submit", *RUN, *forced, exit_code=None)
    assert refused.returncode or "restricted" in json.dumps(namespace.status("gwpf-digits"))


def test_a_queueing_system_that_is_not_there(namespace: Namespace):
    refused = namespace.fedctl("submit", *RUN, "--queueing", "volcano", exit_code=2).stderr
    assert "volcano" in refused.lower()


def test_a_queue_that_is_not_there(namespace: Namespace):
    refused = namespace.fedctl("submit", *RUN, "--queue", "nowhere", exit_code=None)
    assert refused.returncode in (1, 2)
    assert "nowhere" in refused.stderr


def test_a_person_without_rights_is_told_which(cluster: Kubernetes, namespace: Namespace):
    if cluster.stack is None:
        return  # whose tokens another cluster has is not ours to know
    config = cluster.stack.kubeconfig("researcher", namespace.name)
    refused = namespace.fedctl("submit", *RUN, kubeconfig=config, exit_code=1).stderr
    assert "researcher" in refused or "forbidden" in refused.lower() or "right" in refused
    told = namespace.fedctl("doctor", "-o", "json", kubeconfig=config, exit_code=None).stdout
    assert json.loads(told)


def test_a_context_or_server_that_is_not_there(namespace: Namespace, tmp_path: Path):
    wrong = namespace.fedctl("list", "--context", "nobody", exit_code=None)
    assert wrong.returncode and "nobody" in wrong.stderr and len(wrong.stderr.splitlines()) == 1
    none = namespace.fedctl("list", kubeconfig=tmp_path / "absent", exit_code=None)
    assert none.returncode and len(none.stderr.splitlines()) == 1
