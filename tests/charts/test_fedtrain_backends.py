"""The three backends of charts/fedtrain: one pod template, and around it what each one needs."""

import pytest

from tests.charts.fedtrain import BACKENDS, container, env, job, pod, render

KUEUE = {"queue.kind": "kueue", "queue.name": "gpus"}
DEADLINE = {"deadlineSeconds": 3600, "gracePeriodSeconds": 100}
FINAL_EXITS = {
    "action": "FailJob",
    "onExitCodes": {"containerName": "", "operator": "In", "values": [2, 3]},
}
NAMES = {"pytorchjob": "pytorch", "trainjob": "node", "job": "trainer"}


def of(backend, options=None, **more):
    return render({"backend": backend} | (options or {}), **more)


def rules(policy, backend):
    expected = {**FINAL_EXITS, "onExitCodes": {**FINAL_EXITS["onExitCodes"]}}
    expected["onExitCodes"]["containerName"] = NAMES[backend]
    assert policy["rules"][0] == expected
    return policy["rules"][1:]


def test_the_pods_differ_only_in_what_a_backend_insists_on():
    specs = {backend: pod(of(backend))["spec"] for backend in BACKENDS}
    inside = {backend: spec.pop("containers")[0] for backend, spec in specs.items()}
    assert specs["job"].pop("subdomain") == "gwpf-digits"
    assert {b: spec.pop("restartPolicy") for b, spec in specs.items()} == {
        "pytorchjob": "OnFailure",
        "trainjob": "Never",  # JobSet starts all ranks again
        "job": "Never",  # what a podFailurePolicy asks for
    }
    assert specs["pytorchjob"] == specs["trainjob"] == specs["job"]
    assert {backend: c.pop("name") for backend, c in inside.items()} == NAMES
    for each in inside.values():
        each.pop("env"), each.pop("ports")
    assert inside["pytorchjob"] == inside["trainjob"] == inside["job"]


def test_a_pytorchjob_has_workers_only_and_each_is_told_its_rank():
    """With a Master the operator would add an init container, and success would be its alone."""
    rendered = of("pytorchjob")
    spec = job(rendered)["spec"]
    assert {kind: r["replicas"] for kind, r in spec["pytorchReplicaSpecs"].items()} == {"Worker": 4}
    assert spec["nprocPerNode"] == "1"
    label = "metadata.labels['training.kubeflow.org/replica-index']"
    told = env(rendered)
    assert told["RANK"] == {"fieldRef": {"fieldPath": label}}
    assert (told["WORLD_SIZE"], told["MASTER_ADDR"]) == ("4", "gwpf-digits-worker-0")
    assert spec["runPolicy"]["cleanPodPolicy"] == "Running"
    assert spec["runPolicy"]["backoffLimit"] == 3 * 4
    assert "suspend" not in spec["runPolicy"]


def test_a_trainjob_finds_its_runtime_and_leaves_ranks_to_the_trainer_operator():
    rendered = of("trainjob")
    runtime, spec = rendered["TrainingRuntime/gwpf-digits"], job(rendered)["spec"]
    assert spec["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert spec["runtimeRef"]["kind"] == runtime["kind"]
    assert spec["trainer"] == {"numNodes": 4, "numProcPerNode": 1}
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} & {*env(rendered)}
    assert not {name for name in env(rendered) if name.startswith("PET_")}  # reserved
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    labels = replicated["template"]["metadata"]["labels"]
    assert labels == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert (replicated["name"], replicated["replicas"]) == ("node", 1)


def test_a_trainjob_restarts_all_ranks_together_but_not_after_a_wrong_setting():
    template = of("trainjob")["TrainingRuntime/gwpf-digits"]["spec"]["template"]["spec"]
    inner = template["replicatedJobs"][0]["template"]["spec"]
    assert (inner["backoffLimit"], inner["completionMode"]) == (0, "Indexed")
    assert rules(inner["podFailurePolicy"], "trainjob") == []
    assert template["failurePolicy"]["maxRestarts"] == 3
    (rule,) = template["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    never = of("trainjob", {"restart.policy": "Never"})["TrainingRuntime/gwpf-digits"]
    assert never["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] == 0


def test_helm_makes_the_runtime_before_the_trainjob_that_is_refused_without_it():
    annotations = of("trainjob")["TrainingRuntime/gwpf-digits"]["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_a_job_counts_its_ranks_and_gives_them_names():
    rendered = of("job")
    spec, service = job(rendered)["spec"], rendered["Service/gwpf-digits"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 4, 4)
    assert spec["backoffLimit"] == 3 * 4
    assert rules(spec["podFailurePolicy"], "job") == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ]
    assert (env(rendered)["WORLD_SIZE"], env(rendered)["MASTER_ADDR"]) == (
        "4",
        "gwpf-digits-0.gwpf-digits",
    )
    assert "RANK" not in env(rendered)  # Kubernetes sets JOB_COMPLETION_INDEX
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert service["selector"].items() <= pod(rendered)["metadata"]["labels"].items()
    assert pod(rendered)["spec"]["subdomain"] == "gwpf-digits"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_trainer_is_told_to_resume_into_a_folder_of_its_name(backend):
    assert container(of(backend, name="mine"))["args"] == [
        "/etc/fedctl/experiment.json",
        "--out",
        "/runs/mine",
        "--resume=auto",
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_rank_needs_no_other_shape(backend):
    rendered = of(backend, ranks=1)
    assert rendered["PersistentVolumeClaim/gwpf-digits-runs"]["spec"]["accessModes"] == [
        "ReadWriteOnce"
    ]
    assert env(rendered).get("WORLD_SIZE") == (None if backend == "trainjob" else "1")


def suspended(backend, rendered):
    spec = job(rendered)["spec"]
    return (spec["runPolicy"] if backend == "pytorchjob" else spec).get("suspend", False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_waits_in_kueue_is_made_suspended_so_that_it_cannot_jump_the_queue(backend):
    assert suspended(backend, of(backend, KUEUE)) is True
    assert suspended(backend, of(backend)) is False
    labels = job(of(backend, KUEUE | DEADLINE))["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert labels["kueue.x-k8s.io/max-exec-time-seconds"] == "3700"


@pytest.mark.parametrize("backend", BACKENDS)
def test_kueue_is_told_the_topology_by_annotation_and_the_scheduler_by_affinity(backend):
    topology = {"scheduling.topology.key": "rack", "scheduling.topology.required": True}
    queued, free = (pod(of(backend, topology | more)) for more in (KUEUE, {}))
    key = "kueue.x-k8s.io/podset-required-topology"
    assert queued["metadata"]["annotations"][key] == "rack"
    assert "affinity" not in queued["spec"]
    assert key not in free["metadata"]["annotations"]
    assert "podAffinity" in free["spec"]["affinity"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_kueue_keeps_each_pipeline_together_and_prefers_one_place_for_all(backend):
    topology = {"scheduling.topology.key": "rack", "scheduling.topology.required": True}
    given = of(backend, topology | KUEUE, ranks=6, sets=["parallel.pipeline=3"])
    told = pod(given)["metadata"]["annotations"]
    told = {key: told[key] for key in told if key.startswith("kueue.x-k8s.io/podset")}
    prefix = "kueue.x-k8s.io/podset-"
    if backend == "pytorchjob":  # all in one place, as a group of two sets of pods
        assert told == {f"{prefix}required-topology": "rack", f"{prefix}group-name": "ranks"}
    else:
        assert told == {
            f"{prefix}preferred-topology": "rack",
            f"{prefix}slice-required-topology": "rack",
            f"{prefix}slice-size": "3",
        }


def test_volcano_gets_a_gang_from_each_backend_in_its_own_way():
    given = {"queue.kind": "volcano", "queue.name": "gpus"}
    for backend in BACKENDS:
        assert pod(of(backend, given))["spec"]["schedulerName"] == "volcano"
    rendered = of("job", given)
    group = "scheduling.k8s.io/group-name"
    assert pod(rendered)["metadata"]["annotations"][group] == "gwpf-digits"
    assert rendered["PodGroup/gwpf-digits"]["spec"] == {"minMember": 4, "queue": "gpus"}
    runtime = of("trainjob", given)["TrainingRuntime/gwpf-digits"]["spec"]
    assert runtime["podGroupPolicy"] == {"volcano": {}}
    annotations = runtime["template"]["metadata"]["annotations"]
    assert annotations == {"scheduling.volcano.sh/queue-name": "gpus"}
    policy = job(of("pytorchjob", given))["spec"]["runPolicy"]["schedulingPolicy"]
    assert policy == {"minAvailable": 4, "queue": "gpus"}


def test_the_scheduler_s_own_gangs_are_asked_for_in_the_version_that_the_cluster_has():
    for apis, version in (
        ((), "v1beta1"),
        (("scheduling.k8s.io/v1alpha2/PodGroup",), "v1alpha2"),
        (("scheduling.k8s.io/v1alpha2/PodGroup", "scheduling.k8s.io/v1beta1/PodGroup"), "v1beta1"),
    ):
        made = render({"queue.kind": "native"}, *apis)["PodGroup/gwpf-digits"]
        assert made["apiVersion"] == f"scheduling.k8s.io/{version}"


@pytest.mark.parametrize(("backend", "seconds"), [("pytorchjob", 3600), ("trainjob", 3700),
                                                  ("job", 3700)])  # fmt: skip
def test_kubernetes_ends_what_the_trainer_s_own_deadline_has_not(backend, seconds):
    """A PyTorchJob's is looked at only when a pod changes, and by then the trainer's has passed."""
    rendered = of(backend, DEADLINE)
    assert env(rendered)["FEDCTL_DEADLINE_SECONDS"] == "3600"
    spec = job(rendered)["spec"]
    holder = spec["runPolicy"] if backend == "pytorchjob" else spec
    assert holder["activeDeadlineSeconds"] == seconds


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_overlay_knows_the_trainer_s_container_by_one_name(backend):
    overlay = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "containers": [
                {"name": "trainer", "env": [{"name": "HOME", "value": "/data"}], "tty": True},
                {"name": "sidecar", "image": "s"},
            ],
            "tolerations": [{"operator": "Exists"}],
            "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}],
        },
    }
    plain, laid = (of(backend, more) for more in ({}, {"podOverlay": overlay}))
    before, after = pod(plain), pod(laid)
    trainer, sidecar = after["spec"]["containers"]
    assert (trainer["name"], sidecar["name"]) == (NAMES[backend], "sidecar")
    assert trainer["tty"] is True
    changed = {item["name"]: item.get("value") for item in trainer["env"]}
    assert changed == {k: v if isinstance(v, str) else None for k, v in env(plain).items()} | {
        "HOME": "/data"
    }
    assert trainer["volumeMounts"] == container(plain)["volumeMounts"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"] | {"a": "b"}
    volumes = {v["name"]: v for v in after["spec"]["volumes"]}
    assert volumes["tmp"]["emptyDir"] == {"medium": "Memory"}
    assert [*volumes] == [v["name"] for v in before["spec"]["volumes"]]
    assert after["spec"]["tolerations"] == [{"operator": "Exists"}]


def test_only_this_run_s_pods_may_talk_to_each_other():
    rendered = of("pytorchjob")
    spec = rendered["NetworkPolicy/gwpf-digits"]["spec"]
    ours = {"app.kubernetes.io/name": "fedtrain", "app.kubernetes.io/instance": "gwpf-digits"}
    each = {"podSelector": {"matchLabels": ours}}
    assert spec["podSelector"] == each["podSelector"]
    assert spec["ingress"] == [
        {"from": [each]},  # all ports
        {"ports": [{"port": "metrics", "protocol": "TCP"}]},
    ]
    assert spec["egress"] == [
        {"to": [each]},
        {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
    ]
    assert ours.items() <= pod(rendered)["metadata"]["labels"].items()


@pytest.mark.parametrize("level", ["tcp", "oci-roce"])
def test_the_node_s_network_is_used_only_by_a_profile_that_says_so(level):
    given = {"network.profile": level, "podSecurity": "privileged"}
    spec = pod(render(given))["spec"]
    assert spec.get("hostNetwork", False) is (level == "oci-roce")
    assert ("infiniband" in {v["name"] for v in spec["volumes"]}) is (level == "oci-roce")
