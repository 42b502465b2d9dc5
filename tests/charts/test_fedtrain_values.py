"""Every value of charts/fedtrain does what it says: a check that holds with it, and not without."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from fedctl.chart.schema import Values
from tests.charts.fedtrain import MONITORED, container, env, job, pod, render
from trainer.config.load import flatten

Check = Callable[[dict[str, Any]], bool]
ZONE = "topology.kubernetes.io/zone"
ANYWHERE = [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]
MONITORING = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "mon"}}}]
KUEUE = {"queue.kind": "kueue", "queue.name": "gpus"}


@dataclass(frozen=True)
class Case:
    """`check` holds with `value` at the key under test, beside `around`; not with the default."""

    value: Any
    check: Check
    around: dict[str, Any] = field(default_factory=dict)


def claim(rendered: dict[str, Any], which: str) -> Any:
    return rendered.get(f"PersistentVolumeClaim/gwpf-digits-{which}", {})


def volume(rendered: dict[str, Any], name: str) -> Any:
    return next(v for v in pod(rendered)["spec"]["volumes"] if v["name"] == name)


def policy(rendered: dict[str, Any]) -> Any:
    return rendered["NetworkPolicy/gwpf-digits"]["spec"]


def secrets(rendered: dict[str, Any]) -> list[str]:
    return [source["secretRef"]["name"] for source in container(rendered).get("envFrom", [])]


def resources(rendered: dict[str, Any], kind: str = "limits") -> dict[str, Any]:
    return container(rendered)["resources"][kind]


def monitor(rendered: dict[str, Any]) -> Any:
    return rendered.get("PodMonitor/gwpf-digits", {"metadata": {"labels": {}}})


def of_volume(which: str) -> dict[str, Case]:
    new = {f"storage.{which}.kind": "new"}
    return {
        f"storage.{which}.claim": Case(
            "mine",
            lambda r: volume(r, which).get("persistentVolumeClaim") == {"claimName": "mine"},
            {f"storage.{which}.kind": "claim"},
        ),
        f"storage.{which}.storageClass": Case(
            "fast", lambda r: claim(r, which)["spec"].get("storageClassName") == "fast", new
        ),
        f"storage.{which}.size": Case(
            "1Ti",
            lambda r: claim(r, which)["spec"]["resources"]["requests"]["storage"] == "1Ti",
            new,
        ),
        f"storage.{which}.accessMode": Case(
            "ReadWriteOnce",
            lambda r: claim(r, which)["spec"]["accessModes"] == ["ReadWriteOnce"],
            new,
        ),
        f"storage.{which}.keep": Case(
            False,
            lambda r: "helm.sh/resource-policy" not in claim(r, which)["metadata"].get(
                "annotations", {}
            ),
            new,
        ),
    }  # fmt: skip


CASES: dict[str, Case] = {
    "backend": Case("job", lambda r: "Job/gwpf-digits" in r),
    "experiment": Case(None, lambda r: "ConfigMap/gwpf-digits-experiment" in r),
    "image.reference": Case("a/b@sha256:1", lambda r: container(r)["image"] == "a/b@sha256:1"),
    "image.pullPolicy": Case("Always", lambda r: container(r)["imagePullPolicy"] == "Always"),
    "image.pullSecrets": Case(
        ["s"], lambda r: pod(r)["spec"].get("imagePullSecrets") == [{"name": "s"}]
    ),
    "resources.gpus": Case(0, lambda r: "nvidia.com/gpu" not in resources(r)),
    "resources.gpuResource": Case("amd.com/gpu", lambda r: resources(r).get("amd.com/gpu") == 1),
    "resources.cpus": Case(0.5, lambda r: resources(r, "requests")["cpu"] == "0.5"),
    "resources.memoryMiB": Case(
        1024, lambda r: {resources(r, k)["memory"] for k in ("limits", "requests")} == {"3072Mi"}
    ),
    "resources.sharedMemoryMiB": Case(
        4096,
        lambda r: (
            volume(r, "shm")["emptyDir"] == {"medium": "Memory", "sizeLimit": "4096Mi"}
            and resources(r)["memory"] == f"{16384 + 4096}Mi"
        ),
    ),
    "network.profile": Case(
        "aws-efa",
        lambda r: (
            resources(r).get("vpc.amazonaws.com/efa") == 1
            and env(r)["FI_PROVIDER"] == "efa"
            and env(r)["NCCL_DEBUG"] == "INFO"
            and "NCCL_IB_DISABLE" not in env(r)
            and container(r)["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]
            and near(r, required=True)
        ),
        {"podSecurity": "privileged"},
    ),
    "network.interface": Case(
        "eth1",
        lambda r: [env(r).get(f"{of}_SOCKET_IFNAME") for of in ("NCCL", "GLOO")] == ["eth1"] * 2,
    ),
    "network.rdmaResource": Case(
        "rdma/hca",
        lambda r: resources(r).get("rdma/hca") == 1 and "rdma/ib" not in resources(r),
        {"network.profile": "infiniband", "podSecurity": "privileged"},
    ),
    "podSecurity": Case("privileged", lambda r: True, {"network.profile": "infiniband"}),
    "runAsUser": Case(
        1000650000,
        lambda r: (
            {
                pod(r)["spec"]["securityContext"].get(k)
                for k in ("runAsUser", "runAsGroup", "fsGroup")
            }
            == {1000650000}
        ),
    ),
    "serviceAccount": Case("sa", lambda r: pod(r)["spec"].get("serviceAccountName") == "sa"),
    "env": Case({"NCCL_DEBUG": "TRACE"}, lambda r: env(r)["NCCL_DEBUG"] == "TRACE"),
    "envFromSecrets": Case(["wandb", "hf"], lambda r: secrets(r) == ["wandb", "hf"]),
    "storage.runs.kind": Case(
        "ephemeral", lambda r: not claim(r, "runs") and volume(r, "runs").get("emptyDir") == {}
    ),
    "storage.data.kind": Case(
        "new",
        lambda r: (
            bool(claim(r, "data"))
            and volume(r, "data").get("persistentVolumeClaim") == {"claimName": "gwpf-digits-data"}
        ),
    ),
    **of_volume("runs"),
    **of_volume("data"),
    "storage.url": Case(
        "s3://runs/team-a/",
        lambda r: (
            env(r).get("FEDCTL_RUN_URL") == "s3://runs/team-a/gwpf-digits"
            and not claim(r, "runs")
            and volume(r, "runs").get("emptyDir") == {}
        ),
        {"networkPolicy.egressTo": ANYWHERE},
    ),
    "storage.endpoint": Case(
        "http://10.1.2.3:7070", lambda r: env(r).get("AWS_ENDPOINT_URL") == "http://10.1.2.3:7070"
    ),
    "storage.region": Case("eu-north-1", lambda r: env(r).get("AWS_REGION") == "eu-north-1"),
    "storage.objectStoreSecret": Case("s3", lambda r: secrets(r) == ["s3"]),
    "scheduling.nodeSelector": Case(
        {"gpu": "h200"}, lambda r: pod(r)["spec"].get("nodeSelector") == {"gpu": "h200"}
    ),
    "scheduling.tolerations": Case(
        [{"operator": "Exists"}],
        lambda r: pod(r)["spec"].get("tolerations") == [{"operator": "Exists"}],
    ),
    "scheduling.topology.key": Case(ZONE, lambda r: near(r, required=False)),
    "scheduling.topology.required": Case(
        True, lambda r: near(r, required=True), {"scheduling.topology.key": ZONE}
    ),
    "scheduling.priorityClass": Case(
        "high", lambda r: pod(r)["spec"].get("priorityClassName") == "high"
    ),
    "scheduling.schedulerName": Case(
        "mine", lambda r: pod(r)["spec"].get("schedulerName") == "mine", {"queue.kind": "volcano"}
    ),
    "queue.kind": Case(
        "native",
        lambda r: (
            pod(r)["spec"].get("schedulingGroup") == {"podGroupName": "gwpf-digits"}
            and r["PodGroup/gwpf-digits"]["spec"] == {"schedulingPolicy": {"gang": {"minCount": 4}}}
        ),
    ),
    "queue.name": Case(
        "gpus",
        lambda r: (
            job(r)["spec"]["runPolicy"]["schedulingPolicy"] == {"minAvailable": 4, "queue": "gpus"}
        ),
        {"queue.kind": "volcano"},
    ),
    "queue.priorityClass": Case(
        "now",
        lambda r: job(r)["metadata"]["labels"].get("kueue.x-k8s.io/priority-class") == "now",
        KUEUE,
    ),
    "restart.policy": Case(
        "Never",
        lambda r: (
            job(r)["spec"]["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] == "Never"
            and pod(r)["spec"]["restartPolicy"] == "Never"
            and job(r)["spec"]["runPolicy"]["backoffLimit"] == 0
        ),
    ),
    "restart.limit": Case(5, lambda r: job(r)["spec"]["runPolicy"]["backoffLimit"] == 5 * 4),
    "deadlineSeconds": Case(
        2_000_000,
        lambda r: (
            env(r).get("FEDCTL_DEADLINE_SECONDS") == "2000000"
            and job(r)["spec"]["runPolicy"].get("activeDeadlineSeconds") == 2_000_000
        ),
    ),
    "gracePeriodSeconds": Case(77, lambda r: pod(r)["spec"]["terminationGracePeriodSeconds"] == 77),
    "rendezvousSeconds": Case(60, lambda r: env(r)["FEDCTL_RENDEZVOUS_SECONDS"] == "60"),
    "ttlSecondsAfterFinished": Case(
        0, lambda r: job(r)["spec"]["runPolicy"].get("ttlSecondsAfterFinished") == 0
    ),
    "metricsPort": Case(
        9999,
        lambda r: (
            env(r)["FEDCTL_METRICS_PORT"] == "9999"
            and {"name": "metrics", "containerPort": 9999} in container(r)["ports"]
        ),
    ),
    "rendezvousPort": Case(
        2222,
        lambda r: (
            env(r)["MASTER_PORT"] == "2222"
            and {"name": "pytorchjob-port", "containerPort": 2222} in container(r)["ports"]
        ),
    ),
    "networkPolicy.enabled": Case(False, lambda r: "NetworkPolicy/gwpf-digits" not in r),
    "networkPolicy.metricsFrom": Case(
        MONITORING, lambda r: policy(r)["ingress"][1].get("from") == MONITORING
    ),
    "networkPolicy.restrictEgress": Case(
        False, lambda r: policy(r)["policyTypes"] == ["Ingress"] and "egress" not in policy(r)
    ),
    "networkPolicy.egressTo": Case(ANYWHERE, lambda r: ANYWHERE[0] in policy(r)["egress"]),
    "podMonitor.enabled": Case(True, lambda r: "spec" in monitor(r)),
    "podMonitor.labels": Case(
        {"release": "stack"},
        lambda r: monitor(r)["metadata"]["labels"].get("release") == "stack",
        {"podMonitor.enabled": True},
    ),
    "podMonitor.interval": Case(
        "30s",
        lambda r: monitor(r)["spec"]["podMetricsEndpoints"][0]["interval"] == "30s",
        {"podMonitor.enabled": True},
    ),
    "labels": Case(
        {"team": "a"},
        lambda r: (
            all(item["metadata"]["labels"].get("team") == "a" for item in r.values())
            and pod(r)["metadata"]["labels"].get("team") == "a"
        ),
    ),
    "podLabels": Case({"x": "y"}, lambda r: pod(r)["metadata"]["labels"].get("x") == "y"),
    "podAnnotations": Case({"x": "y"}, lambda r: pod(r)["metadata"]["annotations"].get("x") == "y"),
    "podOverlay": Case(
        {"spec": {"runtimeClassName": "gvisor"}},
        lambda r: pod(r)["spec"].get("runtimeClassName") == "gvisor",
    ),
}
REFUSED_WITHOUT = {"podSecurity", "storage.runs.claim", "storage.data.claim"}


def near(rendered: dict[str, Any], required: bool) -> bool:
    """Whether the ranks are told to be in one zone."""
    kind = "required" if required else "preferred"
    terms = pod(rendered)["spec"].get("affinity", {}).get("podAffinity", {})
    if [*terms] != [f"{kind}DuringSchedulingIgnoredDuringExecution"]:
        return False
    (term,) = terms[f"{kind}DuringSchedulingIgnoredDuringExecution"]
    term = term if required else term["podAffinityTerm"]
    selected = term["labelSelector"]["matchLabels"].items()
    return term["topologyKey"] == ZONE and selected <= pod(rendered)["metadata"]["labels"].items()


def test_every_value_has_a_case():
    assert sorted(CASES) == sorted(key for key, _ in flatten(json.loads(DEFAULTS)))


DEFAULTS = Values().model_dump_json(by_alias=True)


@pytest.mark.parametrize("key", [key for key in CASES if key != "experiment"])
def test_a_value_does_what_it_says_and_its_default_does_not(key):
    case = CASES[key]
    assert case.check(render({**case.around, key: case.value}))
    if key in REFUSED_WITHOUT:
        with pytest.raises(Exception, match=f"{key}|{key.rpartition('.')[0]}"):
            render(case.around)
    else:
        assert not case.check(render(case.around))


def test_a_null_user_leaves_the_choice_to_the_cluster(tmp_path):
    file = tmp_path / "openshift.yaml"
    file.write_text("runAsUser: null")
    context = pod(render(files=[str(file)]))["spec"]["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_a_pod_monitor_is_made_where_it_is_wanted_and_known():
    for enabled, apis, made in (
        (False, MONITORED, False),
        ("auto", (), False),
        ("auto", MONITORED, True),
        (True, (), True),
    ):
        assert ("spec" in monitor(render({"podMonitor.enabled": enabled}, *apis))) is made
