"""Sentences about what keeps a run from progressing, each with its remedy. Sends no request."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedctl.cluster.api import errors
from fedctl.cluster.status import job, state
from fedctl.cluster.status.ranks import Rank
from fedctl.cluster.status.snapshot import Snapshot, last_seen
from fedctl.report.postmortem import PEER_LOST

# After this an operator, or Kueue, has had the time to react.
SILENCE_SECONDS = 15
OPERATORS = {
    "PyTorchJob": "the training operator",
    "TrainJob": "Kubeflow Trainer",
    "Job": "Kubernetes' job controller",
}
IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
MOUNTS = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
# FailedCreate, FailedCreatePod, ...; Trainer's TrainJobResourcesCreationFailed.
CREATION = re.compile(r"FailedCreate(?!PodSandBox)|.*CreationFailed$")
LOST = ("Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Preempting", "UnexpectedAdmissionError")


def of(seen: Snapshot, now: state.RunState | None = None) -> list[str]:
    """Return the sentences, the root cause first; empty if all is well."""
    now = now or state.of(seen)
    if seen.job is None or now.state == state.SUCCEEDED:
        return []
    found = [*_of_the_end(seen), *_of_the_queue(seen), *_of_the_operator(seen)]
    found += [*_of_creation(seen, now), *_of_claims(seen), *_of_ranks(seen)]
    return list(dict.fromkeys(found))


def _of_the_end(seen: Snapshot) -> Iterator[str]:
    end = job.ended(seen.job or {})
    if end is None or end.succeeded:
        return
    conditions = (seen.job or {}).get("status", {}).get("conditions") or []
    reasons = {str(c.get("reason")) for c in conditions if c.get("status") == "True"}
    reported = [
        state.reported(state.termination(rank)).get("status") for rank in seen.ranks.values()
    ]
    message = end.message.lower()
    if "DeadlineExceeded" in reasons or "deadline" in message or "deadline" in reported:
        yield "it was stopped at its deadline; raise --deadline, and submit it again to resume"
    elif "BackoffLimitExceeded" in reasons or "backoff limit" in message:
        yield "it has used up the restarts that restart.limit allows"
    elif end.message and not any(rank.ended for rank in seen.ranks.values()):
        yield f"its {(seen.job or {})['kind']} failed: {end.message}"


def _of_the_queue(seen: Snapshot) -> Iterator[str]:
    if seen.job is None or not seen.queue or not job.suspended(seen.job):
        return
    kind = seen.job["kind"]
    if seen.workload is None:
        if seen.age_seconds < SILENCE_SECONDS or seen.kueue is None:
            return
        if not seen.kueue:
            yield (
                f"it waits for queue {seen.queue}, but the cluster has no Kueue; install it, or "
                "submit without --queue"
            )
            return
        others = " or ".join(f"--backend {k.lower()}" for k in ("TrainJob", "Job") if k != kind)
        yield (
            f"Kueue does not manage {kind}s here, so it stays suspended; have "
            f"{job.INTEGRATIONS[kind]} added to integrations.frameworks of Kueue, or use {others}"
        )
        return
    if seen.workload["spec"].get("active") is False:
        yield "it was removed from its queue; `fedctl resume` puts it back"
        return
    conditions = {c["type"]: c for c in (seen.workload.get("status") or {}).get("conditions") or []}
    reserved = conditions.get("QuotaReserved") or {}
    if reserved.get("status") == "True":
        return
    evicted = conditions.get("Evicted") or {}
    if evicted.get("status") == "True":
        yield f"Kueue evicted it ({evicted.get('reason')}): {evicted.get('message')}"
    waits = reserved.get("message") or "its turn has not come yet"
    yield f"it waits in queue {seen.queue}: {waits}"


def _of_the_operator(seen: Snapshot) -> Iterator[str]:
    mine = seen.job or {}
    silent = not (mine.get("status") or {}) and not seen.pods
    held = job.suspended(mine) and bool(seen.queue)
    if silent and not held and not seen.events and seen.age_seconds >= SILENCE_SECONDS:
        yield (
            f"no controller is handling its {mine['kind']}: {OPERATORS[mine['kind']]} does not "
            "seem to be running; check with `fedctl doctor`"
        )


def _of_creation(seen: Snapshot, now: state.RunState) -> Iterator[str]:
    """Yield the pods that the operator could not create, which only an event reports."""
    if job.ended(seen.job or {}) or all(row.pod for row in now.ranks):
        return
    made = [str(pod["metadata"].get("creationTimestamp") or "") for pod in seen.pods]
    failed = [e for e in seen.events if CREATION.match(str(e.get("reason")))]
    for event in failed[-1:]:
        if (last_seen(event) or "~") < max(made, default=""):
            return  # a pod was created since
        text = " ".join(str(event.get("message") or "").split())
        text = re.sub(r"^Error creating: ", "", text)
        missing = sum(not row.pod for row in now.ranks)
        yield f"{missing} of {now.size} pods cannot be created: {explained(text)}"


def explained(message: str) -> str:
    """Return an error that another client got, in fedctl's words."""
    return str(errors.of_status({"code": 500, "message": message}, path=""))


def _of_claims(seen: Snapshot) -> Iterator[str]:
    for claim in seen.claims:
        name, status = claim["metadata"]["name"], claim.get("status") or {}
        if status.get("phase") == "Lost":
            yield f"claim {name} has lost its volume, and with it its data"
        if status.get("phase") != "Pending":
            continue
        said = [e for e in seen.events if e["involvedObject"].get("name") == name]
        if said:
            yield (
                f"claim {name} gets no volume: {said[-1].get('message')}; name a class that can "
                "create one with --storage-class, or an existing claim in storage.runs.claim"
            )


def _of_ranks(seen: Snapshot) -> Iterator[str]:
    """Yield one sentence for all ranks that have the same problem."""
    said: dict[str, list[int]] = {}
    for index, rank in sorted(seen.ranks.items()):
        if text := _of_rank(rank, seen.events):
            said.setdefault(text, []).append(index)
    causes = {text: indexes for text, indexes in said.items() if PEER_LOST not in text}
    for text, indexes in (causes or said).items():
        yield f"{_who(indexes)} {text}"


def _who(indexes: Sequence[int]) -> str:
    if len(indexes) == 1:
        return f"rank {indexes[0]}"
    if indexes == [*range(indexes[0], indexes[-1] + 1)] and len(indexes) > 2:
        return f"ranks {indexes[0]} to {indexes[-1]}"
    return f"ranks {', '.join(map(str, indexes))}"


def _of_rank(rank: Rank, events: Sequence[Mapping[str, Any]]) -> str:
    row, end = state.row(rank), state.termination(rank)
    mine = [e for e in events if e["involvedObject"].get("name") == rank.name]
    if row.reason in IMAGE:
        why = row.message or (mine[-1].get("message") if mine else "") or row.reason
        image = rank.container["image"]
        return f"cannot pull {image}: {why}; check --image, and image.pullSecrets"
    if row.reason == "Unschedulable":
        return f"fits no node: {_unschedulable(row.message)}"
    if row.reason == "SchedulingGated":
        gates = [gate["name"] for gate in rank.pod["spec"].get("schedulingGates") or []]
        return f"is held back by {', '.join(gates) or 'a scheduling gate'}"
    if row.reason in LOST or (row.state == state.FAILED and not end):
        return f"was removed from its node: {row.reason}: {row.message or 'no details available'}"
    if row.reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        return f"cannot be started: {row.message or row.reason}"
    if row.state == state.STARTING and (failed := [e for e in mine if e["reason"] in MOUNTS]):
        return f"cannot be started: {failed[-1].get('message')}"
    return _of_end(rank, row, end)


def _of_end(rank: Rank, row: state.RankRow, end: Mapping[str, Any] | None) -> str:
    if end is None or end.get("exitCode") == 0 or row.state in (state.SUCCEEDED, state.RUNNING):
        return ""
    if end.get("reason") == "OOMKilled":
        limit = (rank.container.get("resources") or {}).get("limits", {}).get("memory", "")
        return f"used more memory than its limit {limit}".rstrip() + "; raise resources.memoryMiB"
    record, text = state.reported(end), state.text_of_message(end)
    code = end.get("exitCode")
    if not record:
        died = f"exited with code {code} without a status record"
        return f"{died}: {text}" if text else f"{died}; `fedctl logs` shows its last lines"
    if record.get("status") in ("stopped", "deadline"):
        return ""
    when = f" in round {record['round'] + 1}" if record.get("round") else ""
    return f"failed{when}: {text}"


def _unschedulable(message: str) -> str:
    """Return the scheduler's reasons without its remarks on preemption."""
    text = message.split(" preemption:")[0].rstrip(". ")
    short = re.findall(r"Insufficient ([\w./-]+)", text)
    if short:
        what = " and ".join(dict.fromkeys(short))
        return f"too little {what} is free ({text}); wait, or request less"
    if "unbound immediate PersistentVolumeClaims" in text or "persistentvolumeclaim" in text:
        return f"its volume does not exist ({text})"
    return f"{text}; see scheduling.nodeSelector and scheduling.tolerations"
