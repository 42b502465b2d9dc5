"""What is left over is found and removed; what is still wanted, or another's, is not."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedctl.cluster.change import gc
from tests.fedctl.objects import claim, config_map, job, labels, pod
from tests.fedctl.podserver import PodServer

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
WEEK = timedelta(days=7)
LONG_AGO, YESTERDAY = "2026-11-01T12:00:00Z", "2026-11-20T12:00:00Z"
HELPER = {"app.kubernetes.io/name": "fedctl-fetch", "fedctl/run": "digits"}


def made(obj: dict[str, Any], when: str, **meta: Any) -> dict[str, Any]:
    obj["metadata"] |= {"creationTimestamp": when} | meta
    return obj


def helper(name: str, when: str, phase: str) -> dict[str, Any]:
    obj = made(pod(name=name), when, labels=dict(HELPER))
    obj["status"] = {"phase": phase}
    return obj


def found(cluster, *words: Any, **options: Any) -> dict[str, str]:
    items = gc.find(cluster, *(words or (WEEK,)), now=NOW, **options)
    return {item.what: item.why for item in items}


def test_a_run_goes_a_week_after_its_end_with_all_its_parts(api: PodServer, cluster) -> None:
    for run, end, at in (
        ("old", "Succeeded", LONG_AGO),
        ("failed", "Failed", LONG_AGO),
        ("young", "Succeeded", YESTERDAY),
        ("going", "", LONG_AGO),
    ):
        api.add(job(run, end=end, at=at), made(config_map(run), LONG_AGO), claim(run))
    assert found(cluster) == {
        "pytorchjob.kubeflow.org/old": "finished 20 days ago",
        "configmap/old-experiment": "finished 20 days ago",
        "pytorchjob.kubeflow.org/failed": "failed 20 days ago",
        "configmap/failed-experiment": "failed 20 days ago",
    }
    assert "pytorchjob.kubeflow.org/young" in found(cluster, timedelta(hours=12))
    assert "pytorchjob.kubeflow.org/going" not in found(cluster, timedelta(0))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("Job", "job.batch/old"), ("TrainJob", "trainjob.trainer.kubeflow.org/old")],
)
def test_every_backend_is_looked_at(api: PodServer, cluster, kind: str, name: str) -> None:
    end = "Complete"
    api.add(job("old", kind=kind, end=end, at=LONG_AGO))
    child = job("old", kind="Job", end=end, at=LONG_AGO)
    child["metadata"] |= {"name": "old-node-0", "ownerReferences": [{"uid": "1"}]}
    api.add(child)  # JobSet's, which goes with it
    assert set(found(cluster)) == {name}


def test_what_a_run_left_goes_but_not_what_a_submit_has_just_made(api: PodServer, cluster) -> None:
    just_now = "2026-11-21T11:55:00Z"
    api.add(made(config_map("gone"), LONG_AGO), made(config_map("coming"), just_now))
    assert found(cluster) == {"configmap/gone-experiment": "its run was deleted"}
    assert set(found(cluster, timedelta(0))) == {"configmap/gone-experiment"}


def test_claims_go_only_where_that_was_asked_for(api: PodServer, cluster) -> None:
    api.add(job("old", end="Succeeded", at=LONG_AGO), claim("old"), made(claim("gone"), LONG_AGO))
    api.add(job("going"), claim("going"), made(claim("another"), LONG_AGO, labels={"app": "wiki"}))
    claims = {"persistentvolumeclaim/old-runs", "persistentvolumeclaim/gone-runs"}
    assert not claims & found(cluster).keys()
    assert found(cluster, claims=True).keys() - found(cluster).keys() == claims


def test_pods_that_a_fetch_left_go(api: PodServer, cluster) -> None:
    api.add(
        helper("fedctl-fetch-old", YESTERDAY, "Running"),
        helper("fedctl-fetch-over", "2026-11-21T11:59:00Z", "Failed"),
        helper("fedctl-fetch-busy", "2026-11-21T11:59:00Z", "Running"),
    )
    assert found(cluster) == {
        "pod/fedctl-fetch-old": "left by a fetch",
        "pod/fedctl-fetch-over": "left by a fetch",
    }


def test_kinds_that_are_not_there_or_not_ours_to_see_have_none(api: PodServer, cluster) -> None:
    api.missing |= {"kubeflow.org", "trainer.kubeflow.org", "monitoring.coreos.com"}
    api.missing |= {"scheduling.volcano.sh"}
    api.denied.add(("list", "services"))
    api.add(job("old", kind="Job", end="Complete", at=LONG_AGO))
    assert set(found(cluster)) == {"job.batch/old"}


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def old(api: PodServer) -> PodServer:
    api.add(job("old", end="Succeeded", at=LONG_AGO), made(config_map("old"), LONG_AGO))
    api.add(job("going"), claim("old"))
    return api


def test_a_dry_run_removes_nothing(old: PodServer, fedctl) -> None:
    shown = fedctl("gc", "--dry-run")
    assert shown.exit_code == 0
    assert "pytorchjob.kubeflow.org/old" in shown.stdout
    assert "configmap/old-experiment" in shown.stdout and "going" not in shown.stdout
    assert {r.method for r in old.requests} == {"GET"}


def test_nobody_to_ask_is_no_yes(old: PodServer, fedctl) -> None:
    refused = fedctl("gc")
    assert refused.exit_code == 2
    assert "pass --yes to confirm when there is no terminal" in refused.stderr
    assert old.names("PyTorchJob") == ["going", "old"]


def test_yes_removes_the_list_and_nothing_else(old: PodServer, fedctl) -> None:
    removed = fedctl("gc", "--yes")
    assert removed.exit_code == 0, removed.output
    assert removed.stdout.endswith("2 removed\n")
    assert old.names("PyTorchJob") == ["going"] and old.names("ConfigMap") == []
    assert old.names("PersistentVolumeClaim") == ["old-runs"]
    assert fedctl("gc", "--yes").stdout == "nothing to remove\n"


def test_what_helm_or_argo_made_stays(api: PodServer, fedctl) -> None:
    mark = {"meta.helm.sh/release-name": "old"}
    api.add(made(job("old", end="Succeeded", at=LONG_AGO), LONG_AGO, annotations=mark))
    api.add(made(config_map("gone"), LONG_AGO))
    removed = fedctl("gc", "--yes")
    assert removed.exit_code == 0
    assert "kept: Helm manages it: remove it with `helm uninstall`" in removed.stdout
    assert api.names("PyTorchJob") == ["old"] and api.names("ConfigMap") == []


def test_what_cannot_be_removed_is_said_and_the_rest_goes(old: PodServer, fedctl) -> None:
    old.denied.add(("delete", "pytorchjobs"))
    failed = fedctl("gc", "--yes")
    assert failed.exit_code == 1
    assert (
        "1 could not be removed: pytorchjob.kubeflow.org/old: ada has no permission to"
        in failed.stderr
    )
    assert old.names("ConfigMap") == []


def test_what_goes_is_a_row_each_however_narrow_the_terminal(
    old: PodServer, fedctl, monkeypatch
) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setenv("COLUMNS", "40")
    lines = fedctl("gc", "--dry-run").stdout.splitlines()
    assert [line.count("finished") for line in lines if "finished" in line] == [1, 1]


def test_gc_as_json(old: PodServer, fedctl) -> None:
    listed = json.loads(fedctl("gc", "--dry-run", "-o", "json").stdout)["found"]
    assert [entry["object"] for entry in listed] == [
        "pytorchjob.kubeflow.org/old",
        "configmap/old-experiment",
    ]
    assert {entry["run"] for entry in listed} == {labels("old")["app.kubernetes.io/instance"]}
    removed = json.loads(fedctl("gc", "--yes", "-o", "json").stdout)["removed"]
    assert [entry["problem"] for entry in removed] == ["", ""]
    assert json.loads(fedctl("gc", "--yes", "-o", "json").stdout) == {"removed": []}
