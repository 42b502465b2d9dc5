"""`fedctl list`, `status`, `wait`, `suspend`, `resume` and `cancel`, over real HTTP."""

import json
import threading

import pytest

from fedctl.cluster.watch import waiting
from fedctl.commands import cluster as commands
from fedctl.commands.options import Duration
from tests import patience
from tests.fedctl import objects
from tests.fedctl.apiserver import Refusal

KINDS = ("PyTorchJob", "TrainJob", "Job")
EXPERIMENT = {"algorithm": {"name": "fedavg"}, "sync": {"name": "gwpf"}}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Changes come alone here."""
    monkeypatch.setattr("fedctl.cluster.watch.follow.SETTLE_SECONDS", 0)


@pytest.fixture
def put(apiserver):
    """Puts a run with its pods there, and gives back its job."""

    def run(*states, name="digits", kind="PyTorchJob", namespace="lab", **job):
        parts = [objects.config_map(name), objects.claim(name)]
        parts[0]["data"]["experiment.json"] = json.dumps(EXPERIMENT)
        parts += [objects.pod(name, k, kind, state) for k, state in enumerate(states)]
        made = objects.job(name, kind, **job)
        for obj in [made, *parts]:
            obj["metadata"]["namespace"] = namespace
            apiserver.put(obj)
        return made

    return run


def later(seconds, action):
    threading.Timer(seconds, action).start()


def ended(apiserver, condition, kind="PyTorchJob"):
    job = apiserver.find(kind, "digits")
    conditions = [{"type": condition, "status": "True", "message": "over"}]
    return apiserver.put(job | {"status": {"conditions": conditions}})


# --- list -----------------------------------------------------------------------------------------


def test_the_list_has_the_runs_of_every_backend_and_no_other_jobs(fedctl, apiserver, put):
    put("running", "running", name="a", at="2026-11-21T11:00:00Z")
    put("running", "unschedulable", name="b", kind="TrainJob", at="2026-11-21T11:01:00Z")
    put(name="c", kind="Job", end="Failed", at="2026-11-21T11:02:00Z")
    inner = objects.job("b", "Job")
    inner["metadata"]["name"] = "b-node-0"  # which JobSet has made of the TrainJob's ranks
    apiserver.put(inner)
    stranger = objects.job("d", "Job")
    stranger["metadata"]["labels"] = {}
    apiserver.put(stranger)
    runs = json.loads(fedctl("list", "-o", "json").stdout)
    shown = [
        (r["name"], r["backend"], r["state"], r["ranks_ready"], r["ranks_total"]) for r in runs
    ]
    assert shown == [
        ("c", "job", "Failed", 0, 2),
        ("b", "trainjob", "Pending", 1, 2),
        ("a", "pytorchjob", "Running", 2, 2),
    ]
    assert {(r["algorithm"], r["sync"], r["digest"]) for r in runs} == {
        ("fedavg", "gwpf", "80e9865219ff")
    }


def test_the_list_is_of_one_namespace_or_of_all(fedctl, put):
    put("running", "running")
    put(namespace="other", name="far")
    text = fedctl("list").stdout
    assert "digits" in text and "fedavg + gwpf" in text and "far" not in text
    every = fedctl("list", "-A").stdout
    assert "namespace" in every and "digits" in every and "other" in every
    assert fedctl("list", "-n", "empty").stdout == "no runs in namespace empty\n"
    refused = fedctl("list", "-A", "-n", "lab")
    assert (refused.exit_code, refused.stderr) == (
        2, "error: --namespace lab: conflicts with -A; drop one of them\n"
    )  # fmt: skip


def test_kinds_that_one_may_not_see_or_that_are_not_there_are_left_out(fedctl, apiserver, put):
    put("running", "running")
    apiserver.missing.add("trainer.kubeflow.org")
    apiserver.refuse("GET", "/jobs$", Refusal(403, "Forbidden", "no"))
    assert [run["name"] for run in json.loads(fedctl("list", "-o", "json").stdout)] == ["digits"]
    apiserver.refuse("GET", "/pods$", Refusal(403, "Forbidden", "no"))
    assert fedctl("list").exit_code == 1


# --- status ---------------------------------------------------------------------------------------


def test_the_status_has_the_ranks_and_what_is_wrong(fedctl, put):
    put("running", "unschedulable")
    done = fedctl("status", "digits")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[:3] == [
        "digits  Pending  1 of 2 ranks run",
        "  namespace lab  backend pytorchjob  experiment 80e9865219ff",
        "  ! rank 1 fits no node: too little nvidia.com/gpu is free (0/3 nodes are available: 3 "
        "Insufficient nvidia.com/gpu); wait, or request less",
    ]
    assert "digits-worker-1" in done.stdout and "Unschedulable" in done.stdout


def test_a_run_that_is_not_there_has_no_status(fedctl, apiserver):
    done = fedctl("status", "digits")
    assert (done.exit_code, done.stderr) == (
        1,
        "error: digits: no such run in namespace lab; `fedctl list` shows the runs there\n",
    )


def test_the_events_of_the_run_and_no_other_s_are_read(fedctl, apiserver, put):
    put(at="2026-11-21T11:00:00Z")
    for about, text in (("digits", "exceeded quota"), ("digits-2", "something else")):
        apiserver.put(
            {"apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": "FailedCreatePod",
             "metadata": {"name": f"e-{about}"}, "message": f"Error creating: {text}",
             "involvedObject": {"name": about}}
        )  # fmt: skip
    (problem,) = json.loads(fedctl("status", "digits", "-o", "json").stdout)["problems"]
    assert "exceeded quota" in problem


def test_what_went_wrong_with_an_earlier_run_of_the_name_is_not_told(fedctl, apiserver, put):
    put(at="2026-11-21T11:00:00Z")
    apiserver.put(
        {"apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": "FailedCreatePod",
         "metadata": {"name": "e", "creationTimestamp": "2026-11-21T10:20:00Z"},
         "lastTimestamp": "2026-11-21T10:59:59Z", "message": "Error creating: exceeded quota",
         "involvedObject": {"name": "digits"}}
    )  # fmt: skip
    problems = json.loads(fedctl("status", "digits", "-o", "json").stdout)["problems"]
    assert "exceeded quota" not in str(problems)


def test_who_may_not_look_into_the_queue_is_told_nothing_of_it(fedctl, apiserver, put):
    put(queue="gpus", suspend=True)

    def problems():
        return json.loads(fedctl("status", "digits", "-o", "json").stdout)["problems"]

    (told,) = problems()
    assert told.startswith("Kueue does not manage PyTorchJobs here")
    apiserver.missing.add("kueue.x-k8s.io")
    (told,) = problems()
    assert told.startswith("it waits for queue gpus, but the cluster has no Kueue")
    apiserver.refuse("GET", "/workloads$", Refusal(403, "Forbidden", "no"))
    assert problems() == []


# --- wait -----------------------------------------------------------------------------------------


def test_what_can_be_waited_for_is_in_the_help():
    assert tuple(waiting.TARGETS) == commands.TARGETS


@pytest.mark.parametrize(
    ("target", "condition", "code"),
    [
        ("succeeded", "Succeeded", 0),
        ("finished", "Failed", 0),
        ("succeeded", "Failed", 1),
        ("suspended", "Succeeded", 3),
    ],
)
def test_a_wait_ends_with_the_run_and_says_how(fedctl, apiserver, put, target, condition, code):
    put("running", "running")
    later(0.3, lambda: ended(apiserver, condition))
    done = fedctl("wait", "digits", "--for", target, "--timeout", patience.text(60))
    assert done.exit_code == code, done.stderr
    watched = [r.path for r in apiserver.requests if r.query.get("watch")]
    assert any(path.endswith("/pytorchjobs") for path in watched)


def test_a_wait_for_running_ends_when_the_last_rank_runs(fedctl, apiserver, put):
    put("running", "unschedulable")
    late = objects.pod("digits", 1)
    late["metadata"]["namespace"] = "lab"
    late["status"]["conditions"] = []
    later(0.3, lambda: apiserver.put(late))
    done = fedctl("wait", "digits", "--for", "running", "--timeout", patience.text(60))
    assert (done.exit_code, done.stdout) == (0, "digits  Running\n")


def test_a_run_that_is_removed_meanwhile_will_not_succeed(fedctl, apiserver, put):
    put()
    later(0.3, lambda: apiserver.remove("PyTorchJob", "digits"))
    done = fedctl("wait", "digits", "--timeout", patience.text(60))
    assert done.exit_code == 3
    assert done.stderr.endswith("error: digits: no such run in namespace lab\n")


def test_a_wait_for_a_run_to_be_gone_ends_when_it_is(fedctl, apiserver, put):
    put()
    later(0.3, lambda: apiserver.remove("PyTorchJob", "digits"))
    assert (
        fedctl("wait", "digits", "--for", "deleted", "--timeout", patience.text(60)).exit_code == 0
    )


@pytest.mark.parametrize("condition", ["Succeeded", "Failed"])
def test_a_run_that_has_ended_may_still_be_removed(fedctl, apiserver, put, condition):
    put("done", "done", end=condition)
    later(0.3, lambda: [apiserver.remove("Pod", f"digits-worker-{k}") for k in (0, 1)])
    later(0.3, lambda: apiserver.remove("PyTorchJob", "digits"))
    assert (
        fedctl("wait", "digits", "--for", "deleted", "--timeout", patience.text(60)).exit_code == 0
    )


def test_a_server_that_has_never_answered_is_not_waited_for(fedctl, apiserver, put, monkeypatch):
    put("running", "running")
    apiserver.refuse("GET", "/pods$", Refusal(503, "ServiceUnavailable", "starting"))
    monkeypatch.setattr("fedctl.cluster.watch.follow.time.sleep", lambda _: pytest.fail("it waits"))
    done = fedctl("wait", "digits", "--timeout", patience.text(60))
    assert done.exit_code == 1
    assert "did not answer in time (starting); try again" in done.stderr


def test_a_server_that_is_away_for_a_moment_ends_no_wait(fedctl, apiserver, put):
    put("running", "unschedulable")
    late = objects.pod("digits", 1)
    late["metadata"]["namespace"] = "lab"
    away = Refusal(503, "ServiceUnavailable", "starting")

    def back():
        apiserver.faults.clear()

    later(0.3, lambda: [apiserver.refuse("GET", "/pods$", away), apiserver.put(late)])
    later(0.9, back)
    done = fedctl("wait", "digits", "--for", "running", "--timeout", patience.text(60))
    assert (done.exit_code, done.stdout) == (0, "digits  Running\n")


def test_a_wait_of_no_time_looks_once(fedctl, put):
    put("running", "running")
    assert fedctl("wait", "digits", "--for", "running", "--timeout", "0").exit_code == 0
    assert fedctl("wait", "digits", "--timeout", "0").exit_code == 124


def test_ctrl_c_ends_the_wait_and_not_the_run(fedctl, apiserver, put, monkeypatch):
    put("running", "running")

    def interrupted(*_words):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedctl.cluster.watch.waiting.wait", interrupted)
    done = fedctl("wait", "digits")
    assert done.exit_code == 130
    assert done.stderr == "digits was not stopped; `fedctl wait digits` waits for it again\n"
    monkeypatch.setattr("fedctl.cluster.status.snapshot.read", interrupted)
    done = fedctl("status", "digits")
    assert (done.exit_code, done.stderr) == (130, "stopped by Ctrl-C\n")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("status", "digits/status"), "'RUN': 'digits/status' is not a valid run name"),
        (("cancel", "", "--yes"), "'RUN': '' is not a valid run name"),
        (("fetch", "../digits"), "'RUN': '../digits' is not a valid run name"),
        (("top", "a,b"), "'[RUN]...': 'a,b' is not a valid run name"),
        (("list", "-n", "lab/pods"), "'lab/pods' is not a valid namespace name"),
    ],
)
def test_what_can_be_no_name_is_asked_of_no_cluster(fedctl, apiserver, words, what):
    done = fedctl(*words)
    assert done.exit_code == 2
    assert what in done.stderr
    assert apiserver.requests == []


def test_a_wait_whose_time_is_over_says_what_keeps_the_run(fedctl, put):
    put("running", "unschedulable")
    done = fedctl("wait", "digits", "--timeout", "1s", "-o", "json")
    assert (done.exit_code, done.stdout) == (124, "")
    assert done.stderr.splitlines()[-1].startswith(
        "error: timed out after 1 s waiting for digits to be succeeded; it is pending: rank 1 fits "
        "no node: too little nvidia.com/gpu is free"
    )


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("90s", 90), ("1h30m", 5400), ("2d", 172800)]
)
def test_durations_are_written_in_the_usual_ways(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "m", "10x", "-5", "1m30"])
def test_a_duration_that_is_none_is_refused(fedctl, apiserver, text):
    done = fedctl("wait", "digits", "--timeout", text)
    assert done.exit_code == 2
    assert f"'{text}' is not a duration; write 90s, 10m or 1h30m" in done.stderr


def test_a_duration_that_no_clock_has_is_refused(fedctl, apiserver):
    done = fedctl("gc", "--older-than", "9999999999d")
    assert done.exit_code == 2
    assert "'9999999999d' is more than ten years" in done.stderr


# --- suspend and resume ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_suspended_and_resumed_by_its_own_switch(fedctl, apiserver, put, kind):
    put("running", "running", kind=kind)

    def switch():
        spec = apiserver.find(kind, "digits")["spec"]
        return (spec["runPolicy"] if kind == "PyTorchJob" else spec)["suspend"]

    assert fedctl("suspend", "digits").stdout == (
        "digits is suspended: its ranks save a checkpoint and end\n"
    )
    assert switch() is True
    assert fedctl("suspend", "digits").stdout == "digits is already suspended\n"
    assert fedctl("resume", "digits").exit_code == 0
    assert switch() is False
    assert fedctl("resume", "digits").stdout == "digits is not suspended\n"


def workload(job, active=True):
    owner = {"uid": job["metadata"]["uid"], "name": "digits"}
    meta = {"name": "pytorchjob-digits-1", "ownerReferences": [owner]}
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": meta,
            "spec": {"active": active}}  # fmt: skip


def test_where_kueue_owns_the_switch_its_queue_entry_is_switched_instead(fedctl, apiserver, put):
    put("running", "running", queue="gpus")
    job = apiserver.find("PyTorchJob", "digits")
    apiserver.put(workload(job))
    assert fedctl("suspend", "digits").stdout.startswith("digits is suspended: queue gpus releases")
    assert apiserver.find("Workload", "pytorchjob-digits-1")["spec"]["active"] is False
    assert fedctl("resume", "digits").stdout.startswith("digits is in queue gpus again")
    assert apiserver.find("Workload", "pytorchjob-digits-1")["spec"]["active"] is True
    assert job["spec"]["runPolicy"]["suspend"] is False


def test_a_run_that_its_queue_does_not_manage_is_not_let_loose(fedctl, apiserver, put):
    put(queue="gpus", suspend=True)
    done = fedctl("resume", "digits")
    assert (done.exit_code, done.stderr) == (
        1,
        "error: digits was sent to queue gpus, which has no entry for it yet; resuming it "
        "outside the queue would bypass the quota; `fedctl status` shows why it waits\n",
    )
    assert apiserver.find("PyTorchJob", "digits")["spec"]["runPolicy"]["suspend"] is True


def test_a_run_that_has_ended_is_not_suspended(fedctl, put):
    put(end="Succeeded")
    done = fedctl("suspend", "digits")
    assert (done.exit_code, done.stderr) == (
        1, "error: digits has finished: there is nothing to suspend\n"
    )  # fmt: skip


# --- cancel ---------------------------------------------------------------------------------------


def test_a_cancel_names_the_rank_that_does_not_end_and_keeps_what_it_needs(fedctl, apiserver, put):
    put("running")
    apiserver.on_delete = lambda deleted: apiserver.remove(deleted["kind"], "digits")
    done = fedctl("cancel", "digits", "--yes", "--timeout", "1s")
    assert done.exit_code == 124
    assert done.stderr.splitlines()[-1] == (
        "error: digits: still being deleted after 1 s: digits-worker-0 on node-0; if their node is "
        "lost, run `kubectl delete pod --force`, then `fedctl cancel` again"
    )
    assert apiserver.find("ConfigMap", "digits-experiment")


def test_a_cancel_ends_the_job_first_and_keeps_the_run_folder(fedctl, apiserver, put):
    put("running")
    job = apiserver.find("PyTorchJob", "digits")

    def operator(deleted):
        assert apiserver.find("ConfigMap", "digits-experiment")  # its ranks still need it
        apiserver.remove("Pod", "digits-worker-0")
        apiserver.remove(deleted["kind"], "digits")
        apiserver.on_delete = None

    apiserver.on_delete = operator
    done = fedctl("cancel", "digits", "--yes")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        "pytorchjob.kubeflow.org/digits removed",
        "configmap/digits-experiment removed",
        "claim digits-runs was kept, with the run folder; --purge removes it",
    ]
    first = apiserver.sent("DELETE")[0]
    assert first.content == {
        "propagationPolicy": "Foreground", "preconditions": {"uid": job["metadata"]["uid"]}
    }  # fmt: skip
    assert [key[1] for key in apiserver.objects] == ["persistentvolumeclaims"]


def test_a_purge_removes_the_run_folder_too_and_only_this_run_s(fedctl, apiserver, put):
    put(end="Succeeded")
    put(name="digits-2", end="Succeeded")
    done = fedctl("cancel", "digits", "--purge", "--yes", "-o", "json")
    assert json.loads(done.stdout) == {
        "name": "digits",
        "removed": ["pytorchjob.kubeflow.org/digits", "configmap/digits-experiment",
                    "persistentvolumeclaim/digits-runs"],
        "kept_claims": [],
    }  # fmt: skip
    assert {key[3] for key in apiserver.objects} == {
        "digits-2", "digits-2-experiment", "digits-2-runs"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "states", "line"),
    [
        (
            (),
            ("running", "running"),
            "digits is running: pass --yes to confirm when there is no terminal",
        ),
        (("--purge",), (), "digits is succeeded: pass --yes to confirm when there is no terminal"),
    ],
)
def test_what_cannot_be_undone_is_asked_about(fedctl, apiserver, put, words, states, line):
    put(*states, end="" if states else "Succeeded")
    done = fedctl("cancel", "digits", *words)
    assert (done.exit_code, done.stderr) == (2, f"error: {line}\n")
    assert apiserver.sent("DELETE") == []


def test_a_run_that_has_ended_is_removed_without_a_question(fedctl, apiserver, put):
    put(end="Failed")
    assert fedctl("cancel", "digits").exit_code == 0
    assert apiserver.find("PyTorchJob", "digits") is None


def test_what_is_left_of_a_run_without_a_job_is_removed(fedctl, apiserver, put):
    put()
    apiserver.remove("PyTorchJob", "digits")
    assert fedctl("cancel", "digits").stdout.splitlines()[0] == (
        "configmap/digits-experiment removed"
    )
    again = fedctl("cancel", "digits")
    assert (again.exit_code, again.stderr) == (
        1, "error: digits: no such run in namespace lab; claim digits-runs was kept\n"
    )  # fmt: skip


def test_what_stays_because_one_may_not_see_it_is_said(fedctl, apiserver, put):
    put(end="Succeeded")
    for kind, group in (("services", ""), ("podmonitors", "monitoring.coreos.com")):
        denied = f'User "jane" cannot list resource "{kind}" in API group "{group}" in the '
        refusal = Refusal(403, "Forbidden", denied + 'namespace "lab"')
        apiserver.refuse("GET", f"/{kind}$", refusal)
    apiserver.missing.add("monitoring.coreos.com")
    done = fedctl("cancel", "digits", "--yes")
    assert done.exit_code == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "warning: objects of digits were kept: jane has no permission to list services"
    )
    assert apiserver.find("PyTorchJob", "digits") is None


def test_a_claim_that_one_may_not_delete_is_said(fedctl, apiserver, put):
    put(end="Succeeded")
    denied = 'User "jane" cannot delete resource "persistentvolumeclaims" in API group "" in the '
    refusal = Refusal(403, "Forbidden", denied + 'namespace "lab"')
    apiserver.refuse("DELETE", "/persistentvolumeclaims/", refusal)
    done = fedctl("cancel", "digits", "--purge", "--yes")
    assert done.exit_code == 1
    assert done.stderr.startswith(
        "error: jane has no permission to delete persistentvolumeclaims in namespace"
    )
