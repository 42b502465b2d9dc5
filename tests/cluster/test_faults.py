"""What goes wrong on clusters, for real: ranks and nodes are lost, queues hold runs, time is up."""

import contextlib
import json
from collections.abc import Iterator

import pytest

from tests import patience
from tests.cluster.harness import BACKENDS, LONG, Kubernetes, Namespace, until

KUEUE = "kueue.x-k8s.io/v1beta1"
# Rounds of a quarter of a second, so that a run is not over before something happens to it.
RESUMED = (
    "--ranks", "2", "--set", "rounds=100", "--set", "schedule.phases.0.steps=50",
    "--set", "checkpoint.every=5", "--set", "evaluation.every=5",
)  # fmt: skip


def finishes_resumed(namespace: Namespace, run: str) -> None:
    """Rank 0's log says from which round it went on, and the run succeeds."""
    logged = until(
        lambda: namespace.fedctl("logs", run, exit_code=None).stdout,
        lambda log: "from round " in log,
        180,
    )
    assert int(logged.split("from round ")[1].split()[0]) > 1, logged
    namespace.fedctl("wait", run, "--timeout", patience.text(360), seconds=400)
    namespace.fedctl("fetch", run, "--out", "fetched")
    rows = (namespace.folder / "fetched/metrics.jsonl").read_text().splitlines()
    rounds = [json.loads(row)["round"] for row in rows]
    assert rounds[-1] == 100
    assert rounds == sorted(rounds), "the rounds that were trained twice are told once"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_goes_on_from_its_checkpoint_after_a_rank_is_lost(namespace: Namespace, backend: str):
    namespace.submit("gwpf-digits", "--backend", backend, *RESUMED)
    namespace.wait_for_round("gwpf-digits", 10)
    lost = next(
        rank["pod"] for rank in namespace.status("gwpf-digits")["ranks"] if rank["rank"] == 1
    )
    namespace.kubectl("delete", "pod", lost, "--grace-period=0", "--force")
    until(lambda: namespace.round_of("gwpf-digits"), lambda now: now < 10, 120)  # a new log
    finishes_resumed(namespace, "gwpf-digits")


def test_a_drained_node_s_ranks_save_and_go_on_elsewhere(cluster: Kubernetes, namespace: Namespace):
    namespace.submit("gwpf-digits", "--backend", "job", *RESUMED)
    namespace.wait_for_round("gwpf-digits", 10)
    node = namespace.status("gwpf-digits")["ranks"][1]["node"]
    try:
        ours = "--pod-selector=app.kubernetes.io/instance=gwpf-digits"
        cluster.kubectl(
            "drain",
            node,
            ours,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            f"--timeout={patience.text(120)}",
        )
        now = namespace.wait_for("gwpf-digits", "Running")
        assert all(rank["node"] != node for rank in now["ranks"])
        finishes_resumed(namespace, "gwpf-digits")
    finally:
        cluster.kubectl("uncordon", node)


@contextlib.contextmanager
def queue(cluster: Kubernetes, namespace: Namespace, cpus: str) -> Iterator[str]:
    """A LocalQueue in the namespace, and a ClusterQueue of its own with so many CPUs."""
    name = namespace.name
    everything = {"name": name, "resources": [
        {"name": "cpu", "nominalQuota": cpus},
        {"name": "memory", "nominalQuota": "100Gi"},
    ]}  # fmt: skip
    group = {"coveredResources": ["cpu", "memory"], "flavors": [everything]}
    about = {"apiVersion": KUEUE, "metadata": {"name": name}}
    cluster.apply(
        {**about, "kind": "ResourceFlavor", "spec": {}},
        {
            **about,
            "kind": "ClusterQueue",
            "spec": {"namespaceSelector": {}, "resourceGroups": [group]},
        },
        {
            **about,
            "metadata": {"name": "lab", "namespace": name},
            "kind": "LocalQueue",
            "spec": {"clusterQueue": name},
        },
    )
    try:
        yield name
    finally:
        for kind in ("clusterqueue", "resourceflavor"):
            cluster.kubectl("delete", kind, name, "--wait=false", check=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_kueue_stops_the_whole_run_and_lets_it_go_on(
    cluster: Kubernetes, namespace: Namespace, backend: str
):
    with queue(cluster, namespace, "2") as name:
        namespace.submit("gwpf-digits", "--backend", backend, "--queue", "lab", *RESUMED)
        namespace.wait_for_round("gwpf-digits", 10)
        hold = {"spec": {"stopPolicy": "HoldAndDrain"}}
        cluster.kubectl("patch", "clusterqueue", name, "--type=merge", "-p", json.dumps(hold))
        namespace.wait_for("gwpf-digits", "Queued")
        until(
            lambda: str(namespace.status("gwpf-digits")["problems"]), lambda told: name in told, 30
        )
        until(lambda: namespace.get("pods")["items"], lambda pods: not pods, 120)
        free = {"spec": {"stopPolicy": "None"}}
        cluster.kubectl("patch", "clusterqueue", name, "--type=merge", "-p", json.dumps(free))
        finishes_resumed(namespace, "gwpf-digits")


def test_a_run_that_its_queue_has_no_room_for_says_so(cluster: Kubernetes, namespace: Namespace):
    with queue(cluster, namespace, "0.1"):
        namespace.submit("gwpf-digits", "--queue", "lab")
        until(
            lambda: str(namespace.status("gwpf-digits")["problems"]),
            lambda told: "cpu" in told,
            60,
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_person_suspends_a_run_and_resumes_it(namespace: Namespace, backend: str):
    namespace.submit("gwpf-digits", "--backend", backend, *RESUMED)
    namespace.wait_for_round("gwpf-digits", 10)
    namespace.fedctl("suspend", "gwpf-digits")
    namespace.fedctl("wait", "gwpf-digits", "--for", "suspended", "--timeout", patience.text(120))
    until(lambda: namespace.get("pods")["items"], lambda pods: not pods, 120)
    namespace.fedctl("resume", "gwpf-digits")
    finishes_resumed(namespace, "gwpf-digits")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_whose_time_is_up_saves_and_fails(namespace: Namespace, backend: str):
    namespace.submit("gwpf-digits", "--backend", backend, "--deadline", "25", *LONG)
    ended = namespace.fedctl("wait", "gwpf-digits", "--timeout", patience.text(240), exit_code=1)
    assert "deadline" in (ended.stderr + ended.stdout).lower()
    told = namespace.status("gwpf-digits")
    assert told["state"] == "Failed"
    assert "deadline" in json.dumps(told["problems"]).lower()


def test_a_run_whose_operator_is_away_says_so(cluster: Kubernetes, namespace: Namespace):
    # A PyTorchJob's webhook is the operator's, so it is refused at once.
    where = ("--namespace", "kubeflow", "deployment/training-operator")
    cluster.kubectl("scale", *where, "--replicas=0")
    try:
        cluster.kubectl(
            "wait",
            "--namespace",
            "kubeflow",
            "pods",
            "--all",
            "--for=delete",
            f"--timeout={patience.text(60)}",
        )
        refused = namespace.submit("gwpf-digits", exit_code=1)
        assert "webhook" in refused.stderr and "operator" in refused.stderr
        assert not namespace.get("configmaps", "-l", "app.kubernetes.io/instance=gwpf-digits")[
            "items"
        ]
        assert not namespace.get("pvc")["items"], "nothing half-done"
    finally:
        cluster.kubectl("scale", *where, "--replicas=1")
        cluster.kubectl("rollout", "status", *where, f"--timeout={patience.text(120)}")
    until(
        lambda: namespace.submit("gwpf-digits", exit_code=None).returncode,
        lambda code: code == 0,
        60,
    )


def test_the_scheduler_starts_all_ranks_or_none(cluster: Kubernetes, namespace: Namespace):
    """`--queueing native`, on a cluster that has the gate."""
    if "podgroups.scheduling.k8s.io" not in cluster.kubectl("api-resources", "-o", "name"):
        return  # another cluster than ours
    (namespace.folder / "large.yaml").write_text("resources: {cpus: 1.2}")  # one on a node
    gang = ("--queueing", "native", "--backend", "job")
    namespace.submit("gwpf-digits", *gang, "--name", "large", "--values", "large.yaml")
    namespace.submit("gwpf-digits", *gang, "--wait")
    now = namespace.status("large")
    assert now["state"] == "Pending"
    assert not any(rank["node"] for rank in now["ranks"]), "two would have fitted"
