"""Both charts as others judge them: kube-score, and the kinds of Prometheus Operator.

kube-score knows no PyTorchJob or TrainJob, so the pod of each backend is judged as a Pod.
"""

import functools
import itertools

import jsonschema
import pytest

from tests.charts import fedtrain, platform
from tests.cluster import linters
from tests.cluster.stack.processes import Failed

KNOWN = {"Job", "NetworkPolicy", "Service", "PersistentVolumeClaim", "ConfigMap"}
QUEUES = ("none", "kueue", "volcano", "native")
EVERYTHING = {
    "deadlineSeconds": 3600,
    "podMonitor.enabled": True,
    "podMonitor.labels": {"release": "prometheus"},
    "storage.data.kind": "new",
}
CASES = {
    **{f"{b}, {q}": {"backend": b, "queue.kind": q, "queue.name": "q"}
       for b, q in itertools.product(fedtrain.BACKENDS, QUEUES)},
    **{f"{b}, without GPUs": {"backend": b, "resources.gpus": 0} for b in fedtrain.BACKENDS},
    "everything": EVERYTHING,
    "infiniband": {"network.profile": "infiniband", "podSecurity": "privileged"},
    "oci-roce": {"network.profile": "oci-roce", "podSecurity": "privileged"},
}  # fmt: skip
# Checks of kube-score that the chart does not pass, and why it should not.
EXCEPTIONS = {
    "container-resources": "no CPU limit: a rank that is throttled holds up all others",
    "container-image-pull-policy": "IfNotPresent: a digest is what it is, and ranks start at once",
    "container-ephemeral-storage-request-and-limit": "what a run writes depends on its data set",
}


@pytest.fixture(scope="module", autouse=True)
def built():
    try:
        linters.ensure()
    except Failed as error:
        pytest.skip(f"NOT TESTED, for want of the linters: {error}")


def run(case: str) -> list[dict]:
    rendered = fedtrain.render(CASES[case], *fedtrain.MONITORED)
    judged = [item for item in rendered.values() if item["kind"] in KNOWN]
    if "Job" not in {item["kind"] for item in judged}:
        template = fedtrain.pod(rendered)
        template["metadata"] |= {"name": "rank", "namespace": "team-a"}
        judged.append({"apiVersion": "v1", "kind": "Pod", **template})
    return judged


@functools.cache
def found(case: str) -> frozenset[tuple[str, str]]:
    return frozenset(linters.found_by_kube_score(run(case)))


@pytest.mark.parametrize("case", CASES)
def test_kube_score_objects_to_nothing_but_what_is_meant(case):
    assert {(check, text) for check, text in found(case) if check not in EXCEPTIONS} == set()


@pytest.mark.parametrize("check", EXCEPTIONS)
def test_an_exception_that_no_longer_occurs_is_removed(check):
    assert {case for case in CASES if check in dict(found(case))} == {*CASES}


def test_the_only_limit_that_is_left_out_is_the_cpu_s():
    said = {text for case in CASES for check, text in found(case) if check == "container-resources"}
    assert {text.partition(" ")[2].partition(" ")[2] for text in said} == {"CPU limit is not set"}


def test_kube_score_finds_what_is_wrong():
    """Else it could have been given nothing to judge."""
    rendered = fedtrain.render({"backend": "job"})
    inside = fedtrain.container(rendered)
    del inside["securityContext"], inside["resources"]["limits"]
    checks = {check for check, _text in linters.found_by_kube_score(rendered.values())}
    assert {"container-security-context-readonlyrootfilesystem", "container-resources"} <= checks


def test_kube_score_objects_to_nothing_of_the_platform_either():
    """With a run beside it: its policy selects pods, and closes no way out, as the run's does."""
    rendered = platform.render({"access": {"ci": True, "users": [{"kind": "User", "name": "ada"}]}})
    both = [*rendered.values(), *run("job, none")]
    assert {*linters.found_by_kube_score(both)} == {*found("job, none")}


# --- Prometheus Operator --------------------------------------------------------------------------


def monitors():
    run = fedtrain.render(EVERYTHING, *fedtrain.MONITORED)
    chart = platform.render(
        {"monitoring": {"labels": {"release": "prometheus"}}}, platform.PROMETHEUS_OPERATOR
    )
    return [o for o in [*run.values(), *chart.values()] if o["apiVersion"].startswith("monitoring")]


def test_prometheus_operator_s_definitions_accept_what_both_charts_make():
    kinds = sorted(item["kind"] for item in monitors())
    assert kinds == ["PodMonitor", "PodMonitor", "PrometheusRule"]
    for item in monitors():
        jsonschema.Draft7Validator(linters.schema(item["kind"])).validate(item)


@pytest.mark.parametrize("kind", linters.KINDS)
def test_a_misspelt_field_or_a_wrong_value_is_refused(kind):
    strict = jsonschema.Draft7Validator(linters.schema(kind))
    item = next(item for item in monitors() if item["kind"] == kind)
    first = next(key for key, value in item["spec"].items() if isinstance(value, list))
    inner = item["spec"][first][0]
    for wrong in (inner | {"intervall": "5s"}, inner | {"interval": "often"}):
        assert not strict.is_valid({**item, "spec": item["spec"] | {first: [wrong]}})
