"""The state of a run on a cluster, and the sentence about what is wrong: from objects alone."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from fedctl.cluster.status import problems, render, state
from fedctl.cluster.status.snapshot import Snapshot
from tests.fedctl import objects

NOW = datetime(2026, 11, 21, 11, 5, tzinfo=UTC)
KINDS = ("PyTorchJob", "TrainJob", "Job")


def seen(job=None, pods=(), **more):
    """A snapshot five minutes after the job was made."""
    return Snapshot("digits", "lab", job, pods, **{"now": NOW} | more)


def pods(*states, kind="PyTorchJob", **more):
    return [objects.pod(rank=k, kind=kind, state=s, **more) for k, s in enumerate(states)]


def event(about, reason, message, at="2026-11-21T11:01:00Z"):
    return {
        "metadata": {"creationTimestamp": at}, "type": "Warning", "reason": reason,
        "message": message, "lastTimestamp": at, "involvedObject": {"name": about},
    }  # fmt: skip


def workload(active=True, **conditions):
    listed = [{"type": name, **values} for name, values in conditions.items()]
    return {
        "metadata": {"name": "w"}, "spec": {"active": active}, "status": {"conditions": listed}
    }  # fmt: skip


# --- the word -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("states", "word", "ready"),
    [
        ((), "Pending", 0),
        (("running",), "Pending", 1),
        (("running", "unschedulable"), "Pending", 1),
        (("running", "waiting"), "Starting", 1),
        (("running", "running"), "Running", 2),
        (("done", "running"), "Running", 1),
        (("failed", "running"), "Restarting", 1),
    ],
)
def test_the_word_comes_from_the_pods(kind, states, word, ready):
    now = state.of(seen(objects.job(kind=kind), pods(*states, kind=kind)))
    assert (now.state, now.ready, now.size, now.backend) == (word, ready, 2, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("condition", ["Succeeded", "Complete", "Failed"])
def test_an_end_is_believed_whatever_the_pods_do(kind, condition):
    job = objects.job(kind=kind, end=condition)
    word = "Failed" if condition == "Failed" else "Succeeded"
    assert state.of(seen(job, pods("running", "running", kind=kind))).state == word


def test_a_condition_that_is_not_true_ends_nothing():
    job = objects.job(end="Failed")
    job["status"]["conditions"][-1]["status"] = "False"
    assert state.of(seen(job, pods("running", "running"))).state == "Running"


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_is_held_back_is_queued_or_suspended(kind):
    by_hand = objects.job(kind=kind, suspend=True)
    queued = objects.job(kind=kind, suspend=True, queue="gpus")
    assert state.of(seen(by_hand)).state == "Suspended"
    assert state.of(seen(queued)).state == "Queued"
    assert state.of(seen(queued, workload=workload(active=False))).state == "Suspended"


def test_a_job_that_is_being_removed_is_stopping_and_one_that_is_gone_is_cancelled():
    job = objects.job()
    job["metadata"]["deletionTimestamp"] = "2026-11-21T11:04:00Z"
    assert state.of(seen(job, pods("running", "running"))).state == "Stopping"
    assert state.of(seen(None, pods("running"))).state == "Stopping"
    assert state.of(seen(None, claims=[objects.claim()])).state == "Cancelled"


def test_a_rank_that_was_started_again_is_restarting_until_it_runs():
    backoff = {"reason": "CrashLoopBackOff", "message": "back-off 40s"}
    twice = [objects.pod(rank=0), objects.pod(rank=1, state="waiting", restarts=2, **backoff)]
    assert state.of(seen(objects.job(), twice)).state == "Restarting"
    twice[1] = objects.pod(rank=1, restarts=2)
    now = state.of(seen(objects.job(), twice))
    assert (now.state, [row.restarts for row in now.ranks]) == ("Running", [0, 2])


def test_pods_that_a_job_has_put_in_a_rank_s_place_count_as_restarts():
    job = objects.job(kind="Job")
    old = objects.pod(
        kind="Job", rank=1, state="failed", name="digits-1-a", made="2026-11-21T10:00:00Z"
    )
    new = objects.pod(kind="Job", rank=1, name="digits-1-b", made="2026-11-21T10:05:00Z")
    now = state.of(seen(job, [old, new, objects.pod(kind="Job", rank=0)]))
    assert [(row.pod, row.restarts) for row in now.ranks][1] == ("digits-1-b", 1)
    assert now.state == "Running"


# --- the sentence ---------------------------------------------------------------------------------


def sentences(job, pods=(), **more):
    return problems.of(seen(job, pods, **more))


def test_of_a_run_that_does_well_there_is_nothing_to_say():
    assert sentences(objects.job(), pods("running", "running")) == []
    assert sentences(objects.job(end="Succeeded"), pods("done", "done")) == []


def test_an_image_that_cannot_be_pulled_is_named_with_the_reason():
    waiting = {"reason": "ImagePullBackOff", "message": "not found: manifest unknown"}
    (line,) = sentences(objects.job(), pods("waiting", "waiting", **waiting))
    assert line == (
        f"ranks 0, 1 cannot pull {objects.IMAGE}: not found: manifest unknown; check --image, and "
        "image.pullSecrets"
    )


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are "
         "available: 3 No preemption victims found.",
         "rank 0 fits no node: too little nvidia.com/gpu is free (0/3 nodes are available: 3 "
         "Insufficient nvidia.com/gpu); wait, or request less"),
        ("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
         "rank 0 fits no node: its volume does not exist (0/3 nodes are available: pod has unbound "
         "immediate PersistentVolumeClaims)"),
        ("0/3 nodes are available: 3 node(s) had untolerated taint {gpu: true}.",
         "rank 0 fits no node: 0/3 nodes are available: 3 node(s) had untolerated taint {gpu: "
         "true}; see scheduling.nodeSelector and scheduling.tolerations"),
    ],
)  # fmt: skip
def test_a_pod_that_fits_no_node_says_which_resource_is_short(told, line):
    found = [objects.pod(rank=0, state="unschedulable", message=told), objects.pod(rank=1)]
    assert sentences(objects.job(), found) == [line]


def test_a_claim_without_a_volume_says_what_the_provisioner_said():
    claim = objects.claim(phase="Pending")
    assert sentences(objects.job(), claims=[claim], pods=pods("running", "running")) == []
    said = event("digits-runs", "ProvisioningFailed", 'storageclass "fast" not found')
    (line,) = sentences(objects.job(), pods("running", "running"), claims=[claim], events=[said])
    assert line.startswith('claim digits-runs gets no volume: storageclass "fast" not found; name')


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ('Error creating: pods "digits-worker-0" is forbidden: exceeded quota: team, requested: '
         "requests.memory=18Gi, used: requests.memory=20Gi, limited: requests.memory=32Gi",
         "2 of 2 pods cannot be created: quota team is exceeded: requests.memory: 20Gi of 32Gi "
         "used, 18Gi more requested; request less, or wait for other runs to end"),
        ('Error creating: pods "digits-worker-0" is forbidden: violates PodSecurity '
         '"baseline:latest": hostPath volumes (volume "infiniband")',
         "2 of 2 pods cannot be created: the namespace's Pod Security level baseline forbids the "
         'pods: hostPath volumes (volume "infiniband"); use a namespace that allows it, or '
         "--pod-security with the namespace's level"),
        ('Error creating: Internal error occurred: failed calling webhook "mpod.kb.io": failed to '
         'call webhook: Post "https://x/y": context deadline exceeded',
         "2 of 2 pods cannot be created: the admission webhook mpod.kb.io does not answer (context "
         "deadline exceeded); its operator does not seem to be running: check with `kubectl get "
         "pods -A` and `fedctl doctor`"),
    ],
)  # fmt: skip
def test_pods_that_cannot_be_made_say_why(message, line):
    assert sentences(objects.job(), events=[event("digits", "FailedCreatePod", message)]) == [line]


def test_an_old_refusal_is_forgotten_once_all_pods_are_there():
    old = event("digits", "FailedCreate", "Error creating: exceeded quota")
    assert sentences(objects.job(), pods("running", "running"), events=[old]) == []


def test_a_refusal_is_forgotten_once_a_pod_was_made_after_it():
    pod = objects.pod(rank=0)
    refusal = "Error creating: exceeded quota"
    pod["metadata"]["creationTimestamp"] = "2026-11-21T11:00:30Z"
    before = event("digits", "FailedCreate", refusal, at="2026-11-21T11:00:20Z")
    after = event("digits", "FailedCreate", refusal, at="2026-11-21T11:00:40Z")
    assert sentences(objects.job(), [pod], events=[before]) == []
    assert sentences(objects.job(), [pod], events=[before, after]) != []


@pytest.mark.parametrize(
    ("kind", "operator"),
    [("PyTorchJob", "the training operator"), ("TrainJob", "Kubeflow Trainer")],
)
def test_a_job_that_nobody_acts_on_says_whose_it_is_but_not_at_once(kind, operator):
    job = objects.job(kind=kind)
    del job["status"]
    (line,) = sentences(job)
    assert line == (
        f"no controller is handling its {kind}: {operator} does not seem to be running; check with "
        "`fedctl doctor`"
    )
    assert sentences(job, now=datetime(2026, 11, 21, 11, 0, 5, tzinfo=UTC)) == []


def test_kueue_that_does_not_manage_the_kind_is_told_after_a_while():
    job = objects.job(suspend=True, queue="gpus")
    assert sentences(job, kueue=True) == [
        "Kueue does not manage PyTorchJobs here, so it stays suspended; have "
        "kubeflow.org/pytorchjob added to integrations.frameworks of Kueue, or use --backend "
        "trainjob or --backend job"
    ]
    assert sentences(job, kueue=False) == [
        "it waits for queue gpus, but the cluster has no Kueue; install it, or submit without "
        "--queue"
    ]
    assert sentences(job, kueue=True, now=datetime(2026, 11, 21, 11, 0, 5, tzinfo=UTC)) == []


def test_a_run_in_a_queue_says_what_it_waits_for():
    job = objects.job(suspend=True, queue="gpus")
    full = {"status": "False", "reason": "Pending", "message": "insufficient unused quota for x"}
    assert sentences(job, kueue=True, workload=workload(QuotaReserved=full)) == [
        "it waits in queue gpus: insufficient unused quota for x"
    ]
    evicted = {"status": "True", "reason": "Preempted", "message": "to make room for b"}
    assert sentences(job, kueue=True, workload=workload(QuotaReserved=full, Evicted=evicted))[
        0
    ] == ("Kueue evicted it (Preempted): to make room for b")
    assert sentences(job, kueue=True, workload=workload(active=False)) == [
        "it was removed from its queue; `fedctl resume` puts it back"
    ]


def test_a_rank_that_took_too_much_memory_says_which_value_to_raise():
    dead = objects.pod(rank=1, state="failed", exitCode=137, reason="OOMKilled")
    (line,) = sentences(objects.job(), [objects.pod(rank=0), dead])
    assert line == "rank 1 used more memory than its limit 18432Mi; raise resources.memoryMiB"


def message(rank, status, text, code, **more):
    record = {"rank": rank, "status": status, "exit": code, "round": 7, "message": text} | more
    return {"exitCode": code, "message": json.dumps(record) + "\n"}


def test_a_rank_that_failed_says_it_in_the_trainer_s_own_words():
    dead = objects.pod(
        rank=1, state="failed", **message(1, "failed", "OSError: no space left on device", 1)
    )
    (line,) = sentences(objects.job(), [objects.pod(rank=0), dead])
    assert line == "rank 1 failed in round 8: OSError: no space left on device"


def test_a_rank_that_only_lost_another_is_no_cause():
    lost = message(0, "failed", "lost another rank, or waited 600 s for it", 1)
    dead = objects.pod(rank=1, state="failed", exitCode=139, reason="Error", message="")
    (line,) = sentences(objects.job(), [objects.pod(rank=0, state="failed", **lost), dead])
    assert (
        line
        == "rank 1 exited with code 139 without a status record; `fedctl logs` shows its last lines"
    )


def test_without_the_trainer_s_word_it_is_the_last_line_of_the_log():
    text = "Traceback:\n  File x\nModuleNotFoundError: No module named 'trainer'\n"
    dead = objects.pod(rank=0, state="failed", exitCode=1, message=text)
    (line,) = sentences(objects.job(ranks=1), [dead])
    assert line.endswith("without a status record: ModuleNotFoundError: No module named 'trainer'")


def test_a_crash_loop_says_what_crashed():
    waiting = objects.pod(rank=0, state="waiting", restarts=3, reason="CrashLoopBackOff")
    last = message(0, "failed", "sync.threshold: 7 is no ratio", 2)
    waiting["status"]["containerStatuses"][0]["lastState"] = {"terminated": last}
    (line,) = sentences(objects.job(ranks=1), [waiting])
    assert line == "rank 0 failed in round 8: sync.threshold: 7 is no ratio"


def test_an_evicted_pod_says_why():
    gone = objects.pod(rank=0, state="failed")
    gone["status"] = {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
    (line,) = sentences(objects.job(ranks=1), [gone])
    assert line == "rank 0 was removed from its node: Evicted: low on memory"


def test_a_volume_that_cannot_be_mounted_is_in_an_event():
    said = event("digits-worker-0", "FailedMount", 'configmap "digits-experiment" not found')
    (line,) = sentences(objects.job(ranks=1), pods("waiting"), events=[said])
    assert line == 'rank 0 cannot be started: configmap "digits-experiment" not found'


def test_a_deadline_and_a_used_up_limit_are_said():
    job = objects.job(kind="Job", end="Failed", message="Job was active longer than specified")
    job["status"]["conditions"][-1]["reason"] = "DeadlineExceeded"
    assert sentences(job) == [
        "it was stopped at its deadline; raise --deadline, and submit it again to resume"
    ]
    job["status"]["conditions"][-1]["reason"] = "BackoffLimitExceeded"
    assert sentences(job)[0] == "it has used up the restarts that restart.limit allows"


# --- what is shown --------------------------------------------------------------------------------


def finished(**more):
    final = {"test_accuracy_ratio": 0.9744, "uploaded_bytes": 2e6, "dense_equivalent_bytes": 8e6}
    final |= more
    ends = [message(k, "finished", "", 0, **({"final": final} if k == 0 else {})) for k in (0, 1)]
    found = [objects.pod(rank=k, state="done", **end) for k, end in enumerate(ends)]
    for pod in found:
        pod["status"]["startTime"] = "2026-11-21T10:50:00Z"
    return seen(objects.job(end="Succeeded"), found, claims=[objects.claim()])


def test_a_run_that_has_finished_says_what_it_came_to():
    assert render.status_text(finished()).splitlines() == [
        "digits  Succeeded  took 10:00",
        "  namespace lab  backend pytorchjob  experiment 80e9865219ff",
        "  accuracy 97.4 %  7 rounds  sent 2.00 MB  of 8.00 MB, saved 75.0 %",
    ]


def test_a_language_model_says_its_perplexity():
    line = render.status_text(finished(test_perplexity=91.234)).splitlines()[2]
    assert line.startswith("  accuracy 97.4 %  perplexity 91.23  7 rounds")


def test_the_state_as_json_has_all_of_it():
    tree = render.status_json(finished())
    ranks = tree.pop("ranks")
    assert tree == {
        "name": "digits", "namespace": "lab", "backend": "pytorchjob", "state": "Succeeded",
        "ranks_ready": 0, "ranks_total": 2, "digest": "80e9865219ff",
        "started": "2026-11-21T10:50:00+00:00", "ended": "2026-11-21T11:00:00+00:00",
        "problems": [], "claims": ["digits-runs"],
        "result": {"rounds": 7, "test_accuracy_ratio": 0.9744, "uploaded_bytes": 2e6,
                   "dense_equivalent_bytes": 8e6},
    }  # fmt: skip
    assert ranks[1] == {
        "rank": 1, "pod": "digits-worker-1", "node": "node-1", "state": "Succeeded",
        "restarts": 0, "reason": "Completed", "message": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("span", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3 * 3600 + 5, "3h"), (2 * 86400, "2d"), (-5, "0s")],
)
def test_an_age_has_one_unit(span, text):
    assert render.age(timedelta(seconds=span).total_seconds()) == text


def test_the_live_line_is_one_line_whatever_a_server_says(monkeypatch):
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    told = "[red] 0/3 nodes are available, and much more is said about it [/x]"
    waiting = seen(objects.job(), [objects.pod(rank=0, state="unschedulable", message=told)])
    with render.Progress("digits", live=True) as progress:
        progress.show_snapshot(waiting, state.of(waiting))
    shown = [line for line in terminal.getvalue().splitlines() if "Pending" in line]
    assert shown and all("rank" in line and line.rstrip().endswith("…") for line in shown)


def test_plain_progress_says_a_thing_once(capsys):
    with render.Progress("digits", live=False) as progress:
        for states in (("running",), ("running",), ("running", "running")):
            now = seen(objects.job(), pods(*states))
            progress.show_snapshot(now, state.of(now))
    assert capsys.readouterr().err.splitlines() == [
        "digits  Pending  1 of 2 ranks run",
        "digits  Running  2 of 2 ranks run",
    ]
