"""What a cluster lacks for a run is found, with what to do; who may not look is told so."""

import json
from typing import Any

import pytest

from fedctl.cluster.doctor import examination, operators
from fedctl.cluster.doctor.finding import FAIL, OK, UNKNOWN, WARN, Finding
from fedctl.cluster.doctor.room import number
from fedctl.errors import RunError
from tests.fedctl.apiserver import Refusal
from tests.fedctl.podserver import PodServer
from tests.tools import program

Object = dict[str, Any]
NODES_AND_CLASSES = {("list", "nodes"), ("list", "storageclasses"), ("get", "namespaces")}


def plain(kind: str, name: str, api: str = "v1", **more: Any) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}} | more


def node(name: str, gpus: int = 8) -> Object:
    return plain("Node", name, status={"allocatable": {"nvidia.com/gpu": str(gpus)}}, spec={})


def gpu_pod(name: str, gpus: int, on: str = "n1", phase: str = "Running") -> Object:
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}}
    spec = {"nodeName": on, "containers": [{"name": "c", "resources": resources}]}
    return plain("Pod", name, spec=spec, status={"phase": phase})


def storage_class(name: str, provisioner: str, default: bool = False) -> Object:
    found = plain("StorageClass", name, "storage.k8s.io/v1", provisioner=provisioner)
    mark = "storageclass.kubernetes.io/is-default-class"
    found["metadata"]["annotations"] = {mark: str(default).lower()}
    return found


def open_schema(kind: str, spec: Object | None = None) -> Object:
    """A kind whose spec keeps everything, or has this schema, as /openapi/v3 tells it."""
    spec = spec or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    told = {"properties": {"spec": spec}, "x-kubernetes-group-version-kind": [{"kind": kind}]}
    return {f"io.{kind}": told}


@pytest.fixture
def good(api: PodServer, monkeypatch: pytest.MonkeyPatch) -> PodServer:
    """A cluster that has everything."""
    monkeypatch.setenv("FEDCTL_HELM", program("helm"))
    api.answers["/version"] = {"kind": "Version", "gitVersion": "v1.37.1"}
    api.answers["/openapi/v3/apis/kubeflow.org/v1"] = {
        "components": {"schemas": open_schema("PyTorchJob")}
    }
    api.answers["/openapi/v3/apis/trainer.kubeflow.org/v1alpha1"] = {
        "components": {"schemas": open_schema("TrainJob") | open_schema("TrainingRuntime")}
    }
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    space = plain("Namespace", "lab")
    space["metadata"]["labels"] = level
    frameworks = ["batch/job", "kubeflow.org/pytorchjob", "trainer.kubeflow.org/trainjob"]
    config = plain("ConfigMap", "kueue-manager-config")
    config["metadata"]["namespace"] = "kueue-system"
    text = json.dumps({"integrations": {"frameworks": frameworks}})
    config["data"] = {"controller_manager_config.yaml": text}
    queue = plain("LocalQueue", "gpus", "kueue.x-k8s.io/v1beta2", spec={"clusterQueue": "all"})
    api.add(space, config, queue, node("n1"), storage_class("nfs", "nfs.csi.k8s.io", True))
    for name in operators.DEPLOYMENTS:
        template = {"spec": {"containers": [{"image": f"ghcr.io/{name}:v1"}]}}
        made = plain("Deployment", name, "apps/v1", spec={"template": template})
        api.add(made | {"status": {"availableReplicas": 1}})
    return api


def findings(cluster: Any, check: str) -> list[Finding]:
    return list(examination.examine(cluster, [(check, dict(examination.CHECKS)[check])]))


def levels(cluster: Any, check: str) -> set[str]:
    return {found.level for found in findings(cluster, check)}


def test_a_cluster_that_has_everything_is_well(good: PodServer, fedctl) -> None:
    examined = fedctl("doctor")
    assert examined.exit_code == 0, examined.output
    lines = examined.stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"ok"}, examined.stdout
    assert {line.split()[1] for line in lines} == {name for name, _ in examination.CHECKS}


def test_nothing_is_changed_by_looking(good: PodServer, cluster) -> None:
    before = json.dumps(list(good.objects.values()), sort_keys=True)
    list(examination.examine(cluster))
    assert json.dumps(list(good.objects.values()), sort_keys=True) == before
    written = {r.path for r in good.requests if r.method != "GET"}
    assert written == {"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"}


def test_a_bare_cluster_runs_plain_jobs(api: PodServer, fedctl, monkeypatch) -> None:
    monkeypatch.setenv("FEDCTL_HELM", program("helm"))
    api.missing |= {"kubeflow.org", "trainer.kubeflow.org", "jobset.x-k8s.io", "kueue.x-k8s.io"}
    api.missing |= {"scheduling.volcano.sh", "monitoring.coreos.com"}
    api.answers["/version"] = {"kind": "Version", "gitVersion": "v1.31.0"}
    api.add(plain("Namespace", "lab"))
    examined = fedctl("doctor", "-o", "json")
    assert examined.exit_code == 0, examined.output
    found = json.loads(examined.stdout)
    backends = [(one["level"], one["text"]) for one in found if one["check"] == "backends"]
    assert backends == [
        ("warn", "--backend pytorchjob: not installed: PyTorchJob"),
        ("warn", "--backend trainjob: not installed: TrainJob, TrainingRuntime, JobSet"),
        ("ok", "--backend job: part of Kubernetes, always available"),
    ]
    assert all(one["remedy"] for one in found if one["level"] in ("warn", "fail"))


def test_an_old_kubernetes_fails(good: PodServer, fedctl) -> None:
    good.answers["/version"] = {"kind": "Version", "gitVersion": "v1.30.4-gke.1"}
    examined = fedctl("doctor")
    assert examined.exit_code == 1
    assert "the chart needs 1.31" in examined.stdout
    assert examined.stderr.startswith("error: 1 of ") and "the first: server" in examined.stderr


def test_a_server_that_is_not_there_is_asked_once(cluster, api: PodServer, monkeypatch) -> None:
    cluster.server = "http://127.0.0.1:9"
    (found,) = examination.examine(cluster)
    assert (found.check, found.level) == ("server", FAIL)
    assert isinstance(examination.verdict([found]), RunError)


def test_a_missing_namespace_fails(good: PodServer, cluster) -> None:
    good.remove("Namespace", "lab")
    (found,) = findings(cluster, "namespace")
    assert (found.level, found.text) == (FAIL, "namespace lab does not exist")


@pytest.mark.parametrize(
    ("denied", "level", "text"),
    [
        (("create", "pods/exec"), WARN, "fetch: no permission to create pods/exec"),
        (("get", "pods/proxy"), WARN, "top: no permission to get pods/proxy"),
        (("get", "pods/log"), FAIL, "logs: no permission to get pods/log"),
        (
            ("create", "pytorchjobs"),
            FAIL,
            "submit: no permission to create pytorchjobs.kubeflow.org",
        ),
    ],
)
def test_each_missing_right_is_said_with_its_command(
    good: PodServer, cluster, denied, level, text
) -> None:
    good.denied.add(denied)
    bad = [found for found in findings(cluster, "rights") if found.level != OK]
    assert [(found.level, found.text) for found in bad] == [(level, text)]
    assert "charts/fedtrain-platform" in bad[0].remedy


def test_a_plain_user_gets_unknowns_and_no_failure(good: PodServer, fedctl) -> None:
    good.denied |= NODES_AND_CLASSES | {("list", "deployments")}
    hidden = Refusal(403, "Forbidden", 'configmaps "kueue-manager-config" is forbidden')
    good.refuse("GET", "/kueue-system/configmaps/", hidden)
    good.denied |= {("list", "resourcequotas"), ("list", "localqueues")}
    examined = fedctl("doctor")
    assert examined.exit_code == 0, examined.output
    unknown = {line.split()[1] for line in examined.stdout.splitlines() if "unknown " in line}
    assert unknown == {
        "namespace", "operators", "integrations", "gpus", "storage", "quota", "kueue",
    }  # fmt: skip
    assert "Traceback" not in examined.output


# --- fields that a cluster would drop -------------------------------------------------------------

POD = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def test_a_field_that_the_kinds_do_not_have_is_named(good: PodServer, cluster) -> None:
    worker = {
        "type": "object",
        "properties": {"replicas": {}, "restartPolicy": {}, "template": POD},
    }
    policy = {"cleanPodPolicy": {}, "backoffLimit": {}, "ttlSecondsAfterFinished": {}}
    policy |= {"activeDeadlineSeconds": {}, "schedulingPolicy": POD}
    spec = {
        "type": "object",
        "properties": {
            "nprocPerNode": {"type": "string"},
            "runPolicy": {"type": "object", "properties": policy},
            "pytorchReplicaSpecs": {"type": "object", "additionalProperties": worker},
        },
    }
    schemas = open_schema("PyTorchJob", spec)
    good.answers["/openapi/v3/apis/kubeflow.org/v1"] = {"components": {"schemas": schemas}}
    bad = [found for found in findings(cluster, "fields") if found.level != OK]
    # Everything but what Kueue needs is there.
    assert [(found.level, found.text) for found in bad] == [
        (WARN, "--backend pytorchjob --queueing kueue: spec.runPolicy.suspend is unknown")
    ]
    del policy["backoffLimit"]
    bad = [found for found in findings(cluster, "fields") if found.level != OK]
    assert bad[0].level == FAIL
    assert bad[0].text == "--backend pytorchjob: spec.runPolicy.backoffLimit is unknown"


def test_unknown_fields_are_found_at_any_depth() -> None:
    every = {"Leaf": {"type": "object", "properties": {"kept": {}}}}
    schema = {
        "properties": {
            "list": {"items": {"$ref": "#/components/schemas/Leaf"}},
            "map": {"additionalProperties": {"allOf": [{"$ref": "#/components/schemas/Leaf"}]}},
            "any": {"x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {}}},
            "text": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    }
    value = {
        "list": [{"kept": 1}, {"dropped": 1}],
        "map": {"anything": {"kept": 1, "gone": {"x": 1}}},
        "any": {"a": 1, "b": {"c": 1}},
        "text": {"free": "form"},
        "new": 1,
    }
    lost = list(operators.unknown(value, schema, every, "spec"))
    assert lost == ["spec.list[].dropped", "spec.map.anything.gone", "spec.new"]


# --- operators, queues, room ----------------------------------------------------------------------


def test_an_operator_that_is_down_fails(good: PodServer, cluster) -> None:
    down = good.find("Deployment", "training-operator") or {}
    good.add(down | {"status": {"availableReplicas": 0}})
    bad = [found for found in findings(cluster, "operators") if found.level != OK]
    assert [(found.level, found.text) for found in bad] == [
        (FAIL, "lab/training-operator (training-operator:v1) is not running")
    ]


def test_kinds_that_kueue_leaves_alone_are_warned_of(good: PodServer, cluster) -> None:
    text = json.dumps({"integrations": {"frameworks": ["batch/job"]}})
    config = good.find("ConfigMap", "kueue-manager-config", "kueue-system") or {}
    good.add(config | {"data": {"controller_manager_config.yaml": text}})
    found = findings(cluster, "integrations")
    assert [(one.level, one.text.split(":")[0]) for one in found] == [
        (WARN, "Kueue does not manage PyTorchJobs"),
        (WARN, "Kueue does not manage TrainJobs"),
        (OK, "Kueue manages Jobs"),
    ]


def test_a_queue_that_stands_still_is_warned_of(good: PodServer, cluster) -> None:
    off = {"type": "Active", "status": "False", "message": "ClusterQueue all does not exist"}
    queue = good.find("LocalQueue", "gpus") or {}
    good.add(queue | {"status": {"conditions": [off]}})
    (found,) = findings(cluster, "kueue")
    assert found.level == WARN and "ClusterQueue all does not exist" in found.text


def test_a_quota_that_is_used_up_is_warned_of(good: PodServer, cluster) -> None:
    status = {"hard": {"requests.nvidia.com/gpu": "8", "memory": "1Ti"}}
    status |= {"used": {"requests.nvidia.com/gpu": "8", "memory": "1023Gi"}}
    good.add(plain("ResourceQuota", "ceiling", status=status))
    (found,) = findings(cluster, "quota")
    assert (found.level, found.text) == (WARN, "quota is used up: requests.nvidia.com/gpu 8 of 8")


def test_a_limit_below_what_a_rank_asks_for_is_warned_of(good: PodServer, cluster) -> None:
    limit = {"type": "Container", "max": {"memory": "8Gi"}}
    good.add(plain("LimitRange", "limits", spec={"limits": [limit]}))
    found = findings(cluster, "quota")[-1]
    assert found.level == WARN
    assert found.text == "a container may take 8Gi of memory at most, and a rank requests 18432Mi"


def test_free_gpus_are_counted(good: PodServer, cluster) -> None:
    cordoned = node("n2", 4) | {"spec": {"unschedulable": True}}
    good.add(cordoned, gpu_pod("a", 6), gpu_pod("over", 8, phase="Succeeded"))
    (found,) = findings(cluster, "gpus")
    assert (found.level, found.text) == (OK, "2 of 8 GPUs are free")
    good.add(gpu_pod("b", 2))
    assert levels(cluster, "gpus") == {WARN}
    good.remove("Node", "n1", "")
    (found,) = findings(cluster, "gpus")
    assert "--gpus 0" in found.remedy


def test_storage_that_ranks_cannot_share_is_warned_of(good: PodServer, cluster) -> None:
    good.remove("StorageClass", "nfs", "")
    good.add(storage_class("disk", "ebs.csi.aws.com"))
    found = findings(cluster, "storage")
    assert [one.level for one in found] == [WARN, WARN]
    assert "no storage class is the default (disk)" in found[0].text


@pytest.mark.parametrize(
    ("text", "value"), [("4", 4), ("500m", 0.5), ("16Gi", 2**34), ("2k", 2000), ("1e3", 1000)]
)
def test_quantities_are_read(text: str, value: float) -> None:
    assert float(number(text)) == value


def test_levels_are_the_four_that_the_help_names() -> None:
    from fedctl.commands.upkeep import COLOURS

    assert set(COLOURS) == {OK, WARN, FAIL, UNKNOWN}
