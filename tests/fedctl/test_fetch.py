"""A run's folder comes from a rank's pod, or from its claim through a pod that leaves no trace."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedctl.cluster.transfer import fetch as fetching
from tests.fedctl.checkpoints import write_checkpoint
from tests.fedctl.objects import IMAGE, claim, job, pod
from tests.fedctl.podserver import PodServer


@pytest.fixture
def there(write_run, api: PodServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run's folder, as pods see it."""
    monkeypatch.setattr(fetching, "POLL_SECONDS", 0.01)
    folder = write_run("in-the-claim", frozen=0.4)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 2000)
    write_checkpoint(folder, 10)
    (folder / "logs" / "rank-0.log").write_text("round 1\n")
    api.folders["/runs/digits"] = folder
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_run_that_goes_on_is_read_from_its_rank_0(
    api: PodServer, fedctl, there: Path, started, tmp_path: Path
) -> None:
    api.add(job(), pod(rank=1), pod(rank=0))
    got = fedctl("fetch", "digits")
    assert got.exit_code == 0, got.output
    assert got.stdout == "runs/digits: 4 files, 0.52 MB, checksums agree\n"
    mine = contents(tmp_path / "runs" / "digits")
    assert mine.items() <= contents(there).items()
    assert set(mine) == {
        "experiment.json",
        "metrics.jsonl",
        "model.safetensors",
        "logs/rank-0.log",
    }
    execs = [r.path for r in api.requests if r.path.endswith("/exec")]
    assert execs == ["/api/v1/namespaces/lab/pods/digits-worker-0/exec"]
    assert started == []


def test_a_report_reads_what_was_fetched(api: PodServer, fedctl, there: Path, started) -> None:
    api.add(job(), pod())
    fedctl("fetch", "digits", "--what", "metrics")
    fetched = json.loads(fedctl("report", "runs/digits", "-o", "json").stdout)
    assert fetched["runs"][0]["finished"] and fetched["runs"][0]["rounds"] == 10


@pytest.mark.parametrize("kind", ["PyTorchJob", "Job"])
def test_a_run_that_has_ended_is_read_from_its_claim(
    api: PodServer, fedctl, there: Path, started, kind: str, tmp_path: Path
) -> None:
    api.add(job(kind=kind, end="Succeeded"), claim(), pod(kind=kind, state="done"))
    got = fedctl("fetch", "digits", "--what", "all", "--out", "mine", "-o", "json")
    assert got.exit_code == 0, got.output
    assert contents(tmp_path / "mine") == contents(there)
    (helper,) = started
    told = json.loads(got.stdout)
    assert (told["folder"], told["files"], told["pod"]) == ("mine", 5, helper["metadata"]["name"])
    assert api.names("Pod") == [pod()["metadata"]["name"]]


def test_the_pod_that_reads_a_claim_can_do_no_harm(
    api: PodServer, fedctl, there: Path, started
) -> None:
    api.add(job(end="Succeeded"), claim())
    assert fedctl("fetch", "digits").exit_code == 0
    (helper,) = started
    spec, labels = helper["spec"], helper["metadata"]["labels"]
    (container,) = spec["containers"]
    assert container["image"] == IMAGE
    assert container["volumeMounts"] == [{"name": "runs", "mountPath": "/runs", "readOnly": True}]
    assert spec["volumes"] == [
        {"name": "runs", "persistentVolumeClaim": {"claimName": "digits-runs"}}
    ]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert 0 < spec["activeDeadlineSeconds"] <= 3600 and spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False
    assert "nvidia.com/gpu" not in container["resources"]["limits"]  # nobody waits for it
    # Nothing that selects the run's pods takes it for one of them.
    assert labels["app.kubernetes.io/name"] != "fedtrain"
    assert "app.kubernetes.io/instance" not in labels and labels["fedctl/run"] == "digits"
    assert "ownerReferences" not in helper["metadata"]


def test_a_run_whose_job_is_gone_needs_an_image(
    api: PodServer, fedctl, there: Path, started
) -> None:
    api.add(claim())
    refused = fedctl("fetch", "digits")
    assert refused.exit_code == 2 and "name one that has Python with --image" in refused.stderr
    got = fedctl("fetch", "digits", "--image", "python:3.12")
    assert got.exit_code == 0, got.output
    assert started[0]["spec"]["containers"][0]["image"] == "python:3.12"
    assert api.names("Pod") == []


@pytest.mark.parametrize(
    ("objects", "line"),
    [
        ([], "digits: no such run in namespace lab, and no claim digits-runs either"),
        ([job(end="Failed")], "digits: its claim digits-runs was deleted, and with it its folder"),
        ([job(end="Failed"), claim(phase="Lost")], "digits-runs has lost its volume"),
        (
            [job(end="Failed", claim=None)],
            "digits: its folder was deleted with its pods (storage.runs.kind is ephemeral)",
        ),
    ],
)
def test_where_nothing_is_left_that_is_said(api: PodServer, fedctl, there, objects, line) -> None:
    api.add(*objects)
    failed = fedctl("fetch", "digits")
    assert failed.exit_code == 1
    assert line in failed.stderr
    assert api.names("Pod") == [] and not Path("runs/digits").exists()


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (
            {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}},
            "which reads the run folder, cannot run: its image cannot be pulled: no such image",
        ),
        (
            {"state": {"terminated": {"exitCode": 1}}},
            "which reads the run folder, cannot run: its container has ended",
        ),
    ],
)
def test_a_pod_that_cannot_run_is_removed_too(
    api: PodServer, fedctl, there: Path, status, line
) -> None:
    def fail(obj: dict[str, Any]) -> None:
        name = {"name": obj["spec"]["containers"][0]["name"]}
        api.add(obj | {"status": {"phase": "Pending", "containerStatuses": [name | status]}})

    api.on_create = fail
    api.add(job(end="Succeeded"), claim())
    failed = fedctl("fetch", "digits")
    assert failed.exit_code == 1 and line in failed.stderr
    assert api.names("Pod") == []


def test_a_run_that_has_written_nothing_is_no_folder(
    api: PodServer, fedctl, there: Path, started, tmp_path: Path
) -> None:
    api.folders["/runs/digits"] = tmp_path / "not-there"
    api.add(job(), pod())
    failed = fedctl("fetch", "digits")
    assert failed.exit_code == 1
    assert failed.stderr == (
        "error: digits: folder /runs/digits does not exist; check that the run has started\n"
    )


@pytest.mark.parametrize(
    ("denied", "line"),
    [
        (("get", "pods/exec"), "ada has no permission to get pods/exec in namespace lab"),
        (("create", "pods"), "ada has no permission to create pods in namespace lab"),
    ],
)
def test_a_missing_right_is_named(api: PodServer, fedctl, there: Path, started, denied, line):
    api.denied.add(denied)
    api.add(job(end="Succeeded"), claim())
    failed = fedctl("fetch", "digits")
    assert failed.exit_code == 1
    assert line in failed.stderr and "charts/fedtrain-platform" in failed.stderr
    assert api.names("Pod") == []


def test_a_pod_that_cannot_be_deleted_is_told_of(
    api: PodServer, fedctl, there: Path, started
) -> None:
    api.denied.add(("delete", "pods"))
    api.add(job(end="Succeeded"), claim())
    got = fedctl("fetch", "digits")
    assert got.exit_code == 0
    assert "was left behind (ada has no permission to delete pods" in got.stderr
    assert "`fedctl gc` removes it" in got.stderr


def test_a_folder_that_is_full_is_refused_before_anything_is_asked(
    api: PodServer, fedctl, there: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    refused = fedctl("fetch", "digits", "--out", "mine")
    assert refused.exit_code == 2
    assert refused.stderr == (
        "error: --out mine: exists and is not empty; name another folder, or remove it\n"
    )
    assert api.requests == []
