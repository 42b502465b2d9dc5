"""Transfer of a run folder from the cluster, through a rank's pod or a helper pod.

A helper pod reads the run's PVC, or the URL where it is kept, after the run has ended. It has the
run's image, permissions and security settings, for a URL also its credentials. It is marked by its
labels, and is always deleted; gc.py finds one left behind.
"""

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedctl.cluster.status import job, ranks
from fedctl.cluster.status.ranks import CHART, NAME, Rank
from fedctl.cluster.transfer import bringer, folder, packer
from fedctl.errors import FedctlError, RunError, UserError
from trainer.storage.objects import VARIABLE

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

Object = dict[str, Any]

HELPER = "fedctl-fetch"  # a helper pod's name label, and the prefix of its name
CLAIMED_BY = "fedctl/run"  # not the instance label, which the run's services and policies select by
LIFE_SECONDS = 3600  # of a helper pod that a killed fedctl could not delete
TIMEOUT_SECONDS = 300.0  # for the pod to run: an image may have to be pulled
POLL_SECONDS = 1.0
VOLUME, MOUNT = "runs", "/runs"

METRICS = ("experiment.json", "metrics.jsonl", "changes.jsonl", "logs")
WHAT: Mapping[str, tuple[str, ...]] = {
    "metrics": METRICS,
    "model": (*METRICS, "model.safetensors"),
    "all": (".",),
}
KEPT = ("tolerations", "nodeSelector", "imagePullSecrets", "serviceAccountName", "securityContext")
KEPT_OF_CONTAINER = ("image", "imagePullPolicy")
LITTLE = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"cpu": "1", "memory": "256Mi"},
}


@dataclass(frozen=True)
class Fetched:
    """The result of a transfer."""

    folder: Path
    files: int
    bytes: int
    pod: str


def fetch(
    cluster: "Cluster",
    run: str,
    out: Path,
    what: str,
    image: str | None = None,
    progress: folder.Progress = lambda done, total: None,
    notice: Callable[[str], None] = lambda text: None,
) -> Fetched:
    """Copy a run's folder to `out`, which must be new or empty, completely or not at all."""
    folder.refuse_full(out)
    with _pod(cluster, run, image, notice) as pod:
        container = str(pod.container["name"])
        words = [_folder_in(pod, run), *WHAT[what]]
        if pod.name.startswith(HELPER) and _variable(pod.container):
            _bring(cluster, pod, run, [*_python(bringer), *words])
        with folder.arriving(out) as into:
            execution = cluster.exec(pod.name, container, [*_python(packer), *words])
            try:
                sizes = folder.unpack(execution, into, progress)
            except FedctlError as error:
                raise _explained(execution, error, pod, run) from None
            finally:
                execution.close()
            if not sizes:
                raise RunError(f"{run}: its folder has none of the files of --what {what} yet")
    return Fetched(out, len(sizes), sum(sizes.values()), pod.name)


def _python(script: Any) -> list[str]:
    return ["python", "-c", Path(script.__file__).read_text("utf-8")]


def _bring(cluster: "Cluster", pod: Rank, run: str, command: list[str]) -> None:
    """Have a helper pod copy the run from its URL to its disk."""
    execution = cluster.exec(pod.name, str(pod.container["name"]), command)
    try:
        for _ in execution:
            pass
    except FedctlError as error:
        raise _explained(execution, error, pod, run) from None
    finally:
        execution.close()
    if execution.status:
        raise _explained(execution, RunError("its end is unknown"), pod, run)


def _variable(container: Mapping[str, Any]) -> str:
    """Return the URL where a run is kept, empty if in a volume."""
    values = {item["name"]: item.get("value") for item in container.get("env") or []}
    return str(values.get(VARIABLE) or "")


def _explained(execution: Any, error: FedctlError, pod: Rank, run: str) -> FedctlError:
    """Return the command's own error if it explains why the stream has ended."""
    if execution.status in (126, 127) or "executable file not found" in str(error):
        return RunError(f"{pod.name}: its image has no Python; name another with --image")
    if execution.status in (None, 0):
        return error
    if execution.status == packer.NO_FOLDER:
        return RunError(
            f"{run}: folder {_folder_in(pod, run)} does not exist; check that the run has started"
        )
    said = execution.stderr.splitlines()
    return RunError(f"{pod.name}: reading the folder failed: {said[-1] if said else error}")


def _folder_in(pod: Rank, run: str) -> str:
    """Return the run folder's path in a pod: the trainer's --out, else the chart's default."""
    words = [str(word) for word in pod.container.get("args") or []]
    if "--out" in words[:-1]:
        return words[words.index("--out") + 1]
    return f"{MOUNT}/{run}"


# ---------------------------------------------------------------------------------------------
# the pod to read from


@contextlib.contextmanager
def _pod(
    cluster: "Cluster", run: str, image: str | None, notice: Callable[[str], None]
) -> Iterator[Rank]:
    """Yield a running pod that mounts the run folder."""
    at_work = [rank for rank in ranks.newest(ranks.of_run(cluster, run)).values() if rank.running]
    if at_work:
        yield at_work[0]  # the lowest rank: if folders are not shared, it has the metrics
        return
    helper = cluster.create(_helper(cluster, run, image))
    name = str(helper["metadata"]["name"])
    try:
        notice(f"no pod of {run} is running; reading its folder through pod {name}")
        yield _running(cluster, name)
    finally:
        try:
            cluster.delete("Pod", name)
        except FedctlError as error:
            notice(f"pod {name} was left behind ({error}); `fedctl gc` removes it")


def _helper(cluster: "Cluster", run: str, image: str | None) -> Object:
    """Return a pod that mounts the run's PVC, or has room for what is at its URL; does nothing."""
    mine = job.find(cluster, run)
    template = job.template(cluster, mine) if mine else None
    spec, trainer = _kept(template) if template else ({"securityContext": _RESTRICTED}, {})
    volume: Object = {"name": VOLUME, "emptyDir": {}}
    if not _variable(trainer):
        claim = _claim(run, template) if template else f"{run}-{VOLUME}"
        _check(cluster, run, claim, there_is_a_job=mine is not None)
        volume = {"name": VOLUME, "persistentVolumeClaim": {"claimName": claim}}
    if image:
        trainer["image"] = image
    if "image" not in trainer:
        raise UserError(
            f"{run}: its job was deleted, and with it the name of its image; name one that has "
            "Python with --image"
        )
    container = {
        **trainer,
        "name": CHART,
        "command": ["python", "-c", f"import time; time.sleep({LIFE_SECONDS})"],
        "resources": LITTLE,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": VOLUME, "mountPath": MOUNT, "readOnly": "emptyDir" not in volume}
        ],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{HELPER}-",
            "namespace": cluster.namespace,
            "labels": {
                NAME: HELPER,
                "app.kubernetes.io/part-of": "fedctl",
                "app.kubernetes.io/managed-by": "fedctl",
                CLAIMED_BY: run,
            },
        },
        "spec": {
            **spec,
            "activeDeadlineSeconds": LIFE_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [volume],
        },
    }


# As the chart's pods have it, for a PVC whose job was deleted.
_RESTRICTED: Object = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "fsGroup": 10001,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _kept(template: Mapping[str, Any]) -> tuple[Object, Object]:
    """Return the parts of the run's pod template that a helper pod also needs."""
    spec = template["spec"]
    containers = spec["containers"]
    trainer = next((c for c in containers if c["name"] in ranks.CONTAINERS), containers[0])
    of_container = {key: trainer[key] for key in KEPT_OF_CONTAINER if key in trainer}
    if _variable(trainer):  # what the store asks for; not the rank's number, say
        of_container["env"] = [item for item in trainer["env"] if "value" in item]
        of_container["envFrom"] = trainer.get("envFrom") or []
    return (
        copy.deepcopy({key: spec[key] for key in KEPT if key in spec}),
        copy.deepcopy(of_container),
    )


def _claim(run: str, template: Mapping[str, Any]) -> str:
    """Return the PVC that holds the run folder."""
    volumes = template["spec"].get("volumes") or []
    volume: Object = next((volume for volume in volumes if volume["name"] == VOLUME), {})
    if "persistentVolumeClaim" not in volume:
        raise RunError(
            f"{run}: its folder was deleted with its pods (storage.runs.kind is ephemeral); next "
            "time set it to new or claim, or fetch while the run is active"
        )
    return str(volume["persistentVolumeClaim"]["claimName"])


def _check(cluster: "Cluster", run: str, claim: str, there_is_a_job: bool) -> None:
    """Raise if the PVC does not exist or has no volume."""
    found = cluster.get("PersistentVolumeClaim", claim)
    if found is None and not there_is_a_job:
        raise RunError(
            f"{run}: no such run in namespace {cluster.namespace}, and no claim {claim} either; "
            "name another with -n"
        )
    if found is None:
        raise RunError(f"{run}: its claim {claim} was deleted, and with it its folder")
    phase = (found.get("status") or {}).get("phase")
    if phase == "Lost" or found["metadata"].get("deletionTimestamp"):
        raise RunError(f"{run}: its claim {claim} has lost its volume, or is being deleted")


def _running(cluster: "Cluster", name: str) -> Rank:
    """Wait until the pod runs, and return it."""
    ends, why = time.monotonic() + TIMEOUT_SECONDS, "its state is unknown"
    while time.monotonic() < ends:
        pod = cluster.get("Pod", name)
        if pod is None:
            raise RunError(f"pod {name} was deleted from outside; try again")
        rank = Rank(0, pod)
        if rank.running:
            return rank
        why = rank.why_waiting() or "its container has ended"
        if rank.hopeless or rank.ended or (pod.get("status") or {}).get("phase") == "Failed":
            raise RunError(f"pod {name}, which reads the run folder, cannot run: {why}")
        time.sleep(POLL_SECONDS)
    raise RunError(
        f"pod {name}, which reads the run folder, is not running after {TIMEOUT_SECONDS:.0f} s: "
        f"{why}"
    )
