"""A run's objects as a cluster has them, with just enough in them, for tests."""

from typing import Any

Object = dict[str, Any]

LABELS = {
    "app.kubernetes.io/name": "fedtrain",
    "app.kubernetes.io/part-of": "fedctl",
    "app.kubernetes.io/managed-by": "Helm",
    "fedctl/digest": "80e9865219ff",
}
IMAGE = "registry.example/trainer@sha256:0123"
CONTAINER = {"PyTorchJob": "pytorch", "TrainJob": "node", "Job": "trainer"}
API = {
    "PyTorchJob": "kubeflow.org/v1",
    "TrainJob": "trainer.kubeflow.org/v1alpha1",
    "Job": "batch/v1",
}
SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "fsGroup": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def labels(run: str) -> dict[str, str]:
    return {**LABELS, "app.kubernetes.io/instance": run}


def template(run: str = "digits", kind: str = "PyTorchJob", claim: str | None = "") -> Object:
    """A pod's labels and spec; `claim`: the run's own (""), another's name, or None: ephemeral."""
    volume: Object = {"name": "runs", "emptyDir": {}}
    if claim is not None:
        volume = {"name": "runs", "persistentVolumeClaim": {"claimName": claim or f"{run}-runs"}}
    container = {
        "name": CONTAINER[kind],
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "trainer"],
        "args": ["/etc/fedctl/experiment.json", "--out", f"/runs/{run}", "--resume=auto"],
        "ports": [
            {"name": "pytorchjob-port", "containerPort": 23456},
            {"name": "metrics", "containerPort": 9401},
        ],
        "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "18432Mi"}},
        "volumeMounts": [{"name": "runs", "mountPath": "/runs"}],
    }
    spec = {"containers": [container], "volumes": [volume], "securityContext": dict(SECURITY)}
    return {"metadata": {"labels": labels(run)}, "spec": spec}


def job(
    run: str = "digits",
    kind: str = "PyTorchJob",
    ranks: int = 2,
    end: str = "",
    at: str = "2026-11-21T11:00:00Z",
    suspend: bool = False,
    queue: str = "",
    claim: str | None = "",
    message: str = "it is over",
) -> Object:
    """A run's job; `end`: the condition that ended it, `at` then."""
    spec: Object
    pods = template(run, kind, claim)
    if kind == "PyTorchJob":
        worker = {"replicas": ranks, "restartPolicy": "OnFailure", "template": pods}
        spec = {"runPolicy": {"suspend": suspend}, "pytorchReplicaSpecs": {"Worker": worker}}
    elif kind == "TrainJob":
        spec = {"runtimeRef": {"name": run}, "trainer": {"numNodes": ranks}, "suspend": suspend}
    else:
        spec = {"completions": ranks, "parallelism": ranks, "template": pods, "suspend": suspend}
    meta: Object = {"name": run, "labels": labels(run), "creationTimestamp": at}
    if queue:
        meta["labels"]["kueue.x-k8s.io/queue-name"] = queue
    conditions = [{"type": "Created", "status": "True", "lastTransitionTime": at}]
    if end:
        ended = {"type": end, "status": "True", "lastTransitionTime": at, "message": message}
        conditions.append(ended)
    return {
        "apiVersion": API[kind],
        "kind": kind,
        "metadata": meta,
        "spec": spec,
        "status": {"conditions": conditions},
    }


def pod(
    run: str = "digits",
    rank: int = 0,
    kind: str = "PyTorchJob",
    state: str = "running",
    restarts: int = 0,
    name: str = "",
    made: str = "2026-11-21T10:00:00Z",
    **more: Any,
) -> Object:
    """A rank's pod; `state`: running, done, failed, waiting, unschedulable; `more` of it."""
    made_of = template(run, kind)
    index = "training.kubeflow.org/replica-index"
    if kind != "PyTorchJob":
        index = "batch.kubernetes.io/job-completion-index"
    meta = {
        "name": name or f"{run}-worker-{rank}",
        "labels": made_of["metadata"]["labels"] | {index: str(rank)},
        "creationTimestamp": made,
    }
    spec = made_of["spec"]
    status: Object = {"phase": "Running"}
    if state == "unschedulable":
        message = more.get("message", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
        no = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        status = {"phase": "Pending", "conditions": [no | {"message": message}]}
    else:
        spec["nodeName"] = f"node-{rank}"
        now: Object = {
            "running": {"running": {"startedAt": made}},
            "done": {"terminated": {"exitCode": 0, "reason": "Completed"} | more},
            "failed": {"terminated": {"exitCode": 1, "reason": "Error"} | more},
            "waiting": {"waiting": {"reason": "ContainerCreating"} | more},
        }[state]
        status["containerStatuses"] = [
            {"name": CONTAINER[kind], "state": now, "restartCount": restarts}
        ]
        status["phase"] = {"done": "Succeeded", "failed": "Failed", "waiting": "Pending"}.get(
            state, "Running"
        )
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}


def claim(run: str = "digits", **status: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"{run}-runs", "labels": labels(run)},
        "spec": {"accessModes": ["ReadWriteMany"]},
        "status": {"phase": "Bound"} | status,
    }


def config_map(run: str = "digits") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{run}-experiment", "labels": labels(run)},
        "data": {"experiment.json": "{}"},
    }
