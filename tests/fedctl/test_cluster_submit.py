"""`fedctl submit` and `diff`: what goes over the wire, in which order, and what never happens."""

import json
import threading
import time
from pathlib import Path

import pytest
import yaml

from fedctl.cluster.change import submit
from tests import patience
from tests.fedctl.apiserver import PlainRefusal, Refusal

ROOT = Path(__file__).parent.parent.parent
RUN = ("gwpf-digits", "--ranks", "2", "--set", "checkpoint.every=5")


pytestmark = pytest.mark.usefixtures("with_helm")


def made(apiserver):
    """What is there, as kind/name."""
    return sorted(f"{obj['kind']}/{obj['metadata']['name']}" for obj in apiserver.objects.values())


def kinds_sent(apiserver, dry=False):
    return [request.content["kind"] for request in apiserver.sent(dry=dry)]


@pytest.mark.parametrize(
    ("words", "order"),
    [
        ((), ["ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "PyTorchJob"]),
        (("--backend", "trainjob"),
         ["ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "TrainingRuntime", "TrainJob"]),
        (("--backend", "job"),
         ["ConfigMap", "PersistentVolumeClaim", "Service", "NetworkPolicy", "Job"]),
        (("--queueing", "native"),
         ["ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "PodGroup", "PyTorchJob"]),
    ],
)  # fmt: skip
def test_what_goes_over_the_wire_are_the_bytes_of_render_in_an_order_that_works(
    fedctl, apiserver, words, order
):
    done = fedctl("submit", *RUN, *words)
    assert done.exit_code == 0, done.stderr
    assert kinds_sent(apiserver) == order
    rendered = fedctl(
        "render", *RUN, *words, "-n", "lab",
        *(word for api in API_VERSIONS for word in ("--api-versions", api)),
    ).stdout  # fmt: skip
    texts = [text for text in rendered.split("---\n") if yaml.safe_load(text)]
    assert sorted(request.body for request in apiserver.sent()) == sorted(texts)


API_VERSIONS = [
    "monitoring.coreos.com/v1/PodMonitor",
    "scheduling.k8s.io/v1alpha2/PodGroup",
    "scheduling.k8s.io/v1beta1/PodGroup",
]


def test_the_kinds_that_the_chart_looks_at_are_looked_up(fedctl, apiserver):
    from fedctl.cluster.api.client import connect

    assert submit.api_versions(connect()) == API_VERSIONS
    asked = {f"{api.split('/')[0]}/{api.split('/')[2]}" for api in API_VERSIONS}
    templates = (ROOT / "charts" / "fedtrain" / "templates").iterdir()
    looked = {
        f"{word.split('/')[0]}/{word.split('/')[2]}"
        for path in templates
        for word in path.read_text().replace('"', " ").split()
        if word.count("/") == 2 and word.startswith(("monitoring.", "scheduling.k8s", "kueue."))
    }
    assert looked == asked
    apiserver.missing |= {"monitoring.coreos.com", "scheduling.k8s.io"}
    assert submit.api_versions(connect()) == []


def test_a_monitor_is_made_where_the_cluster_has_the_kind(fedctl, apiserver, tmp_path):
    (tmp_path / "auto.yaml").write_text("podMonitor: {enabled: auto}")
    assert fedctl("submit", *RUN, "--values", "auto.yaml").exit_code == 0
    assert "PodMonitor/gwpf-digits" in made(apiserver)


def test_the_namespace_is_the_context_s_where_none_is_named(fedctl, apiserver):
    done = fedctl("submit", *RUN)
    assert done.stdout.splitlines() == [
        "configmap/gwpf-digits-experiment created",
        "persistentvolumeclaim/gwpf-digits-runs created",
        "networkpolicy.networking.k8s.io/gwpf-digits created",
        "pytorchjob.kubeflow.org/gwpf-digits created",
        "gwpf-digits is in namespace lab of test; see fedctl status gwpf-digits",
    ]
    assert {obj["metadata"]["namespace"] for obj in apiserver.objects.values()} == {"lab"}
    assert fedctl("submit", *RUN, "--context", "bare").exit_code == 0
    assert apiserver.find("PyTorchJob", "gwpf-digits", "default")


def test_the_same_run_again_changes_nothing_even_where_kueue_has_started_it(fedctl, apiserver):
    queued = (*RUN, "--queue", "gpus")
    apiserver.put(local_queue())
    assert fedctl("submit", *queued).exit_code == 0
    job = apiserver.find("PyTorchJob", "gwpf-digits")
    apiserver.put(patched(job, {"runPolicy": {"suspend": False}}), owner="kueue")
    done = fedctl("submit", *queued)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == (
        "gwpf-digits already exists in namespace lab of test and is identical; nothing was changed"
    )
    assert apiserver.find("PyTorchJob", "gwpf-digits")["spec"]["runPolicy"]["suspend"] is False


def patched(obj, spec):
    return {key: obj[key] for key in ("apiVersion", "kind", "metadata")} | {"spec": spec}


def local_queue():
    api = "kueue.x-k8s.io/v1beta2"
    return {"apiVersion": api, "kind": "LocalQueue", "metadata": {"name": "gpus"}, "spec": {}}


@pytest.mark.parametrize(
    ("ended", "words", "state"),
    [
        ("", ("--deadline", "60"), "is running"),
        ("Succeeded", ("--set", "rounds=7"), "has finished"),
        ("Failed", ("--backend", "job"), "has failed"),
    ],
)
def test_a_run_that_has_the_name_is_never_changed(fedctl, apiserver, ended, words, state):
    fedctl("submit", *RUN)
    job = apiserver.find("PyTorchJob", "gwpf-digits")
    if ended:
        conditions = [{"type": ended, "status": "True"}]
        apiserver.put(patched(job, {}) | {"status": {"conditions": conditions}})
    before = json.dumps(list(apiserver.objects.values()))
    done = fedctl("submit", *RUN, *words)
    assert done.exit_code == 2
    assert done.stderr == (
        "error: gwpf-digits: another run in namespace lab has this name and "
        f"{state}; choose another --name, or remove it with `fedctl cancel gwpf-digits`\n"
    )
    assert json.dumps(list(apiserver.objects.values())) == before


@pytest.mark.parametrize("dry", [(), ("--dry-run", "server")])
def test_a_run_that_is_being_removed_is_not_taken_for_the_same_one(fedctl, apiserver, dry):
    fedctl("submit", *RUN)
    job = apiserver.find("PyTorchJob", "gwpf-digits")
    job["metadata"]["deletionTimestamp"] = "2026-11-21T11:00:00Z"
    apiserver.put(job)
    done = fedctl("submit", *RUN, *dry)
    assert (done.exit_code, done.stderr) == (
        2,
        "error: gwpf-digits is still being deleted; choose another --name, or submit it after "
        "`fedctl wait gwpf-digits --for deleted`\n",
    )


def test_a_claim_that_another_experiment_has_left_is_not_written_to(fedctl, apiserver):
    fedctl("submit", *RUN)
    fedctl("cancel", "gwpf-digits", "--yes")
    done = fedctl("submit", *RUN, "--set", "rounds=7")
    assert done.exit_code == 2
    assert "claim gwpf-digits-runs holds a run of another experiment" in done.stderr
    assert made(apiserver) == ["PersistentVolumeClaim/gwpf-digits-runs"]
    assert fedctl("submit", *RUN).exit_code == 0  # it goes on from its checkpoint


def test_a_claim_that_is_being_removed_is_not_run_on(fedctl, apiserver):
    fedctl("submit", *RUN)
    fedctl("cancel", "gwpf-digits", "--yes")
    claim = apiserver.find("PersistentVolumeClaim", "gwpf-digits-runs")
    claim["metadata"]["deletionTimestamp"] = "2026-11-21T11:00:00Z"
    done = fedctl("submit", *RUN)
    assert done.exit_code == 2
    assert "claim gwpf-digits-runs is still being deleted" in done.stderr
    assert made(apiserver) == ["PersistentVolumeClaim/gwpf-digits-runs"]


def test_what_the_server_would_refuse_is_found_before_anything_is_made(fedctl, apiserver):
    refusal = Refusal(403, "Forbidden", 'admission webhook "v" denied the request: no')
    apiserver.refuse("PATCH", "/pytorchjobs/", refusal)
    done = fedctl("submit", *RUN)
    assert (done.exit_code, done.stderr) == (2, "error: refused by v: no\n")
    assert apiserver.objects == {} and apiserver.sent() == []


def test_when_the_job_cannot_be_made_what_was_made_for_it_is_removed_again(fedctl, apiserver):
    quota = Refusal(500, "InternalError", "etcdserver: request timed out")
    apiserver.refuse("PATCH", "/pytorchjobs/", quota, dry=False)
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "gwpf-digits-experiment"},
    }
    apiserver.put(config, owner="fedctl")
    done = fedctl("submit", *RUN)
    assert done.exit_code == 1 and "etcdserver: request timed out" in done.stderr
    assert made(apiserver) == ["ConfigMap/gwpf-digits-experiment"]  # it was there before


def test_what_cannot_be_removed_again_is_named(fedctl, apiserver):
    apiserver.refuse("PATCH", "/pytorchjobs/", Refusal(500, "InternalError", "no"), dry=False)
    denied = 'User "jane" cannot delete resource "persistentvolumeclaims" in API group "" in the '
    apiserver.refuse(
        "DELETE", "/persistentvolumeclaims/", Refusal(403, "Forbidden", denied + 'namespace "lab"')
    )
    done = fedctl("submit", *RUN)
    assert done.exit_code == 1
    assert done.stderr.endswith("; left behind: persistentvolumeclaim/gwpf-digits-runs\n")
    assert made(apiserver) == ["PersistentVolumeClaim/gwpf-digits-runs"]


def test_a_trainjob_is_sent_though_a_rehearsal_of_it_wants_its_runtime_first(fedctl, apiserver):
    words = (
        'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: '
        "spec.runtimeRef: Invalid value: TrainingRuntime.trainer.kubeflow.org gwpf-digits not found"
    )
    apiserver.refuse("PATCH", "/trainjobs/", Refusal(403, "Forbidden", words), dry=True)
    rehearsed = fedctl("submit", *RUN, "--backend", "trainjob", "--dry-run", "server")
    assert rehearsed.exit_code == 0 and apiserver.objects == {}
    assert rehearsed.stderr == (
        "warning: trainjob.trainer.kubeflow.org/gwpf-digits: checked only once its "
        "TrainingRuntime exists\n"
    )
    assert fedctl("submit", *RUN, "--backend", "trainjob").exit_code == 0
    assert "TrainJob/gwpf-digits" in made(apiserver)


def test_of_two_submits_of_one_name_the_second_changes_nothing(fedctl, apiserver):
    said = 'configmaps "gwpf-digits-experiment" already exists'
    apiserver.refuse("POST", "/configmaps", Refusal(409, "AlreadyExists", said))
    done = fedctl("submit", *RUN)
    assert (done.exit_code, made(apiserver)) == (2, [])
    assert done.stderr == (
        "error: configmap/gwpf-digits-experiment was created by another submit just now; choose "
        "another --name, or check with `fedctl list`\n"
    )


def test_a_trainjob_waits_until_trainer_has_seen_its_runtime(fedctl, apiserver, monkeypatch):
    words = "admission webhook \"vtrainjob.kb.io\" denied the request: runtime 'digits' not found"
    apiserver.refuse("PATCH", "/trainjobs/", Refusal(403, "Forbidden", words), dry=False)
    waited = []

    def see(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            apiserver.faults.clear()

    monkeypatch.setattr("fedctl.cluster.change.submit.time.sleep", see)
    assert fedctl("submit", *RUN, "--backend", "trainjob").exit_code == 0
    assert len(waited) == 2 and "TrainJob/gwpf-digits" in made(apiserver)


def test_a_client_dry_run_prints_what_would_be_sent(fedctl, apiserver):
    done = fedctl("submit", *RUN, "--dry-run", "client")
    assert done.stdout_bytes == fedctl("render", *RUN, "-n", "lab").stdout_bytes
    as_json = json.loads(fedctl("submit", *RUN, "--dry-run", "client", "-o", "json").stdout)
    assert [obj["kind"] for obj in as_json][-1] == "PyTorchJob"
    assert apiserver.sent() == apiserver.sent(dry=True) == []


def test_a_server_dry_run_tells_what_would_happen_and_every_warning(fedctl, apiserver):
    apiserver.warnings["PyTorchJob"] = "spec.old is deprecated"
    done = fedctl("submit", *RUN, "--dry-run", "server")
    assert done.exit_code == 0
    assert done.stderr == "warning: pytorchjob.kubeflow.org/gwpf-digits: spec.old is deprecated\n"
    assert done.stdout.splitlines()[-2:] == [
        "pytorchjob.kubeflow.org/gwpf-digits created (server dry run)",
        "gwpf-digits: namespace lab of test accepts it",
    ]
    assert apiserver.objects == {} and apiserver.sent() == []
    assert {r.query["fieldValidation"] for r in apiserver.sent(dry=True)} == {"Strict"}


def test_submit_as_json_says_what_was_done(fedctl, apiserver):
    tree = json.loads(fedctl("submit", *RUN, "-o", "json").stdout)
    assert tree.pop("objects")[-1] == {
        "object": "pytorchjob.kubeflow.org/gwpf-digits", "result": "created", "warnings": []
    }  # fmt: skip
    assert tree == {
        "name": "gwpf-digits", "namespace": "lab", "context": "test", "backend": "pytorchjob",
        "digest": tree["digest"], "dry_run": False, "changed": True,
    }  # fmt: skip


def test_a_run_that_lint_refuses_is_not_sent(fedctl, apiserver):
    done = fedctl("submit", *RUN, "--set", "cluster.backend=nccl", "--gpus", "0")
    assert done.exit_code == 2 and done.stderr.startswith("error: resources.gpus: is 0, but ")
    assert done.stderr.endswith("error: gwpf-digits: 1 problem(s) found; nothing was submitted\n")
    assert apiserver.sent(dry=True) == []


@pytest.mark.parametrize(
    ("missing", "queues", "line"),
    [
        ("kueue.x-k8s.io", [], "--queue gpus: the cluster has no Kueue; install Kueue, or drop "
         "--queue"),
        ("", [], "--queue gpus: namespace lab has no such LocalQueue; "
         "charts/fedtrain-platform can create one"),
        ("", ["a", "b"], "--queue gpus: namespace lab has no such LocalQueue; it has: a, b"),
    ],
)  # fmt: skip
def test_a_queue_that_is_not_there_is_said_before_a_run_waits_in_it(
    fedctl, apiserver, missing, queues, line
):
    apiserver.missing.add(missing)
    for name in queues:
        apiserver.put(local_queue() | {"metadata": {"name": name}})
    done = fedctl("submit", *RUN, "--queue", "gpus")
    assert (done.exit_code, done.stderr) == (2, f"error: {line}\n")
    assert apiserver.sent(dry=True) == []


def test_a_claim_that_is_not_there_is_said_before_pods_wait_for_it(fedctl, apiserver, tmp_path):
    (tmp_path / "v.yaml").write_text("storage: {data: {kind: claim, claim: imagenet}}")
    done = fedctl("submit", *RUN, "--values", "v.yaml")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: storage.data.claim: namespace lab has no claim imagenet; create it, or set "
        "storage.data.kind to new\n",
    )


def test_without_the_operator_it_says_which_to_install(fedctl, apiserver):
    apiserver.missing.add("trainer.kubeflow.org")
    done = fedctl("submit", *RUN, "--backend", "trainjob")
    assert (done.exit_code, done.stderr) == (
        1,
        "error: the cluster has no trainingruntimes.trainer.kubeflow.org "
        "(trainer.kubeflow.org/v1alpha1); install Kubeflow Trainer v2, 2.3 or newer, or use "
        "--backend job\n",
    )
    assert apiserver.objects == {}


def test_a_timeout_without_a_wait_is_refused(fedctl, apiserver):
    done = fedctl("submit", *RUN, "--timeout", "5m")
    assert (done.exit_code, done.stderr) == (
        2, "error: --timeout limits the wait; give it with --wait or --logs\n"
    )  # fmt: skip
    done = fedctl("submit", *RUN, "--dry-run", "server", "--wait")
    assert (done.exit_code, done.stderr) == (
        2, "error: --dry-run server starts no run to wait for; drop --wait and --logs\n"
    )  # fmt: skip


def test_hooks_for_other_times_than_an_install_are_no_part_of_a_run():
    def document(hook):
        return yaml.safe_dump(
            {"apiVersion": "v1", "kind": "ConfigMap",
             "metadata": {"name": hook, "annotations": {"helm.sh/hook": hook}}}
        )  # fmt: skip

    rendered = "---\n".join(map(document, ("test", "pre-install,pre-upgrade", "post-delete")))
    (kept,) = submit.documents(rendered)
    assert kept.obj["metadata"]["name"] == "pre-install,pre-upgrade"


# --- diff -----------------------------------------------------------------------------------------


def test_a_diff_of_the_same_run_is_nothing_and_of_another_shows_the_setting(fedctl, apiserver):
    fedctl("submit", *RUN)
    apiserver.put(patched(apiserver.find("PyTorchJob", "gwpf-digits"), {}) | {"status": {"a": 1}})
    assert (fedctl("diff", *RUN).exit_code, fedctl("diff", *RUN).stdout) == (0, "")
    before = json.dumps(list(apiserver.objects.values()))
    done = fedctl("diff", *RUN, "--set", "rounds=7")
    assert done.exit_code == 1
    assert "-    rounds: 120\n+    rounds: 7\n" in done.stdout
    assert "--- configmap/gwpf-digits-experiment on the cluster\n" in done.stdout
    assert "managedFields" not in done.stdout and "resourceVersion" not in done.stdout
    assert json.dumps(list(apiserver.objects.values())) == before


def test_a_diff_shows_what_somebody_else_has_changed(fedctl, apiserver):
    fedctl("submit", *RUN)
    job = apiserver.find("PyTorchJob", "gwpf-digits")
    apiserver.put(patched(job, {"runPolicy": {"backoffLimit": 99}}), owner="kubectl-edit")
    (change,) = json.loads(fedctl("diff", *RUN, "-o", "json").stdout)
    assert change["object"] == "pytorchjob.kubeflow.org/gwpf-digits"
    assert "-    backoffLimit: 99\n+    backoffLimit: 6\n" in change["diff"]


def test_a_diff_that_cannot_be_made_is_no_difference(fedctl, apiserver):
    apiserver.refuse("GET", "/configmaps/", Refusal(401, "Unauthorized", "Unauthorized"))
    done = fedctl("diff", *RUN)
    assert done.exit_code == 2 and "rejects the context's credentials" in done.stderr
    apiserver.refuse("GET", "/configmaps/", PlainRefusal("no"))
    assert fedctl("diff", *RUN).exit_code == 1  # nothing of it is there yet


# --- to its end -----------------------------------------------------------------------------------


def test_a_submit_that_waits_ends_with_the_run(fedctl, apiserver, monkeypatch):
    monkeypatch.setattr("fedctl.cluster.watch.follow.SETTLE_SECONDS", 0)
    end = {"status": {"conditions": [{"type": "Succeeded", "status": "True"}]}}

    def operator():
        while not (job := apiserver.find("PyTorchJob", "gwpf-digits")):
            time.sleep(0.05)
        apiserver.put(patched(job, {}) | end)

    threading.Thread(target=operator).start()
    done = fedctl("submit", *RUN, "--wait", "--timeout", patience.text(60))
    assert done.exit_code == 0, done.stderr
    assert "gwpf-digits  Succeeded" in done.stdout.splitlines()
    end["status"]["conditions"][0] |= {"type": "Failed", "message": "no room"}
    apiserver.remove("PyTorchJob", "gwpf-digits")
    threading.Thread(target=operator).start()
    done = fedctl("submit", *RUN, "--wait", "--timeout", patience.text(60))
    assert done.exit_code == 1
    assert done.stderr.endswith("error: gwpf-digits failed: its PyTorchJob failed: no room\n")


def test_a_submit_whose_time_is_over_leaves_the_run_alone(fedctl, apiserver):
    done = fedctl("submit", *RUN, "--wait", "--timeout", "1s")
    assert done.exit_code == 124
    assert apiserver.find("PyTorchJob", "gwpf-digits")


def test_the_log_of_rank_0_is_printed_while_it_is_waited_for(fedctl, apiserver, monkeypatch):
    from fedctl.cluster.watch.logs import Line

    said = threading.Event()

    def follow(_cluster, run, ranks):
        yield Line(ranks[0], f"{run}-worker-0", "round 1/7")
        said.set()

    def operator():
        said.wait(patience.seconds(30))
        job = apiserver.find("PyTorchJob", "gwpf-digits")
        apiserver.put(
            patched(job, {}) | {"status": {"conditions": [{"type": "Succeeded", "status": "True"}]}}
        )

    monkeypatch.setattr("fedctl.cluster.watch.logs.follow", follow)
    threading.Thread(target=operator).start()
    done = fedctl("submit", *RUN, "--logs", "--timeout", patience.text(60))
    assert done.exit_code == 0, done.stderr
    assert "round 1/7" in done.stdout.splitlines()
