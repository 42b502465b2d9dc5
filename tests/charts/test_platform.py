"""charts/fedtrain-platform: what it makes in a namespace, for which values, on which cluster."""

import itertools
import json

import kubernetes_validate
import pytest
import yaml

from tests.charts.fedtrain import run
from tests.charts.platform import CHART, KUEUE, PROMETHEUS_OPERATOR, render, template

EVERYTHING = (*PROMETHEUS_OPERATOR, *KUEUE)
SUBJECTS = [{"kind": "User", "name": "ada"}, {"kind": "Group", "name": "lab"}]

# Each part that can be switched: the values that leave it out, those that make it, what it then is.
PARTS = {
    "access": (
        {"access": {"enabled": False}},
        {"access": {"users": SUBJECTS, "viewers": SUBJECTS, "ci": True}},
        {
            "Role/platform-user",
            "Role/platform-viewer",
            "RoleBinding/platform-user",
            "RoleBinding/platform-viewer",
            "ServiceAccount/platform-ci",
        },
    ),
    "queue": (
        {"queue": {"enabled": False, "clusterQueue": "gpus"}},
        {"queue": {"enabled": True, "clusterQueue": "gpus"}},
        {"LocalQueue/fedtrain"},
    ),
    "quota": ({}, {"quota": {"requests.nvidia.com/gpu": 8}}, {"ResourceQuota/platform"}),
    "limits": (
        {},
        {"limits": [{"type": "Container", "default": {"memory": "4Gi"}}]},
        {"LimitRange/platform"},
    ),
    "networkPolicy": (
        {"networkPolicy": {"enabled": False}},
        {
            "networkPolicy": {
                "restrictEgress": True,
                "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
                "egressTo": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
            }
        },
        {"NetworkPolicy/platform"},
    ),
    "podMonitor": (
        {"monitoring": {"podMonitor": {"enabled": False}}},
        {"monitoring": {"podMonitor": {"enabled": True}}},
        {"PodMonitor/platform"},
    ),
    "rules": (
        {"monitoring": {"rules": {"enabled": False}}},
        {"monitoring": {"rules": {"enabled": True}}},
        {"PrometheusRule/platform"},
    ),
    "dashboards": (
        {"monitoring": {"dashboards": {"enabled": False}}},
        {"monitoring": {"dashboards": {"enabled": True}}},
        {"ConfigMap/platform-dashboard-run", "ConfigMap/platform-dashboard-savings"},
    ),
}


def merged(*trees):
    """Values as Helm merges several files of them."""
    result = {}
    for tree in trees:
        for key, value in tree.items():
            inner = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if inner else value
    return result


def values_with(*parts):
    return merged(*(PARTS[part][part in parts] for part in PARTS))


@pytest.fixture(scope="module")
def everything():
    return render(values_with(*PARTS))


@pytest.mark.parametrize("binary", ["helm3", "helm4"])
def test_helm_lint_has_nothing_to_say(binary):
    text = yaml.safe_dump(values_with(*PARTS))
    for words in ((), ("--values", "-")):
        linted = run(binary, "lint", "--strict", CHART, *words, stdin=text)
        assert linted.returncode == 0, linted.stdout + linted.stderr
        assert "[WARNING]" not in linted.stdout


# Every two parts meet in every state: all but one, one alone, all, none.
COMBINATIONS = [
    *itertools.combinations(PARTS, len(PARTS) - 1),
    *itertools.combinations(PARTS, 1),
    tuple(PARTS),
    (),
]


@pytest.mark.parametrize("parts", COMBINATIONS, ids="+".join)
def test_each_part_is_made_as_it_is_alone_whatever_the_others(parts, everything):
    made = render(values_with(*parts), EVERYTHING)
    assert set(made) == set().union(*(PARTS[part][2] for part in parts))
    assert made == {name: everything[name] for name in made}


def test_kubernetes_schemas_accept_every_object_of_its_own(everything):
    foreign = {"LocalQueue", "PodMonitor", "PrometheusRule"}
    own = [o for o in everything.values() if o["kind"] not in foreign]
    for version in ("1.28", "1.37"):
        for item in [*own, *render().values()]:
            kubernetes_validate.validate(item, version, strict=True)
    assert len(own) == len(everything) - len(foreign)


def test_a_kubernetes_schema_would_refuse_a_misspelt_field(everything):
    policy = everything["NetworkPolicy/platform"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**policy, "spec": {**policy["spec"], "egres": []}}, "1.37", strict=True
        )


@pytest.mark.parametrize("apis", [(), EVERYTHING], ids=["bare cluster", "full cluster"])
@pytest.mark.parametrize("switch", ["auto", True, False])
def test_parts_of_other_projects_are_made_where_they_are_wanted(switch, apis):
    made = render(
        {
            "queue": {"enabled": switch, "clusterQueue": "gpus"},
            "monitoring": {"podMonitor": {"enabled": switch}, "rules": {"enabled": switch}},
        },
        apis,
    )
    wanted = bool(apis) if switch == "auto" else switch
    foreign = {"LocalQueue/fedtrain", "PodMonitor/platform", "PrometheusRule/platform"}
    assert foreign & set(made) == (foreign if wanted else set())


def test_one_missing_kind_does_not_take_another_with_it():
    made = render(apis=[PROMETHEUS_OPERATOR[1]])
    assert "PrometheusRule/platform" in made
    assert "PodMonitor/platform" not in made


@pytest.mark.parametrize(
    ("served", "version"),
    [(["v1beta1"], "v1beta1"), (["v1beta1", "v1beta2"], "v1beta2"), (["v1beta2"], "v1beta2")],
)
def test_a_queue_is_of_the_newest_version_that_the_cluster_serves(served, version):
    apis = [f"kueue.x-k8s.io/{each}/LocalQueue" for each in served]
    [queue] = (
        o for o in render({"queue": {"clusterQueue": "gpus"}}, apis).values()
        if o["kind"] == "LocalQueue"
    )  # fmt: skip
    assert queue["apiVersion"] == f"kueue.x-k8s.io/{version}"
    assert queue["spec"] == {"clusterQueue": "gpus"}


def test_without_a_cluster_queue_there_is_no_queue():
    assert "LocalQueue/fedtrain" not in render({"queue": {"enabled": True}}, EVERYTHING)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"queue": {"enabled": "maybe"}}, "queue"),
        ({"acces": {}}, "acces"),
        ({"monitoring": {"podMonitor": {"intervall": "5s"}}}, "intervall"),
        ({"access": {"users": [{"kind": "User"}]}}, "name"),
        ({"access": {"users": [{"kind": "ServiceAccount", "name": "x"}]}}, "namespace"),
        ({"limits": [{"default": {"cpu": 1}}]}, "type"),
        ({"podLabels": {"app.kubernetes.io/name": None}}, "podLabels"),
    ],
)
def test_a_mistake_in_the_values_is_refused_by_its_key(values, key):
    refused = template(values)
    assert refused.returncode == 1
    assert "values don't meet the specifications" in refused.stderr
    assert key in refused.stderr


def keys(tree, around=""):
    for key, value in tree.items():
        yield f"{around}{key}"
        if isinstance(value, dict):
            yield from keys(value, f"{around}{key}.")


def test_every_value_is_in_the_schema_and_every_key_of_the_schema_is_a_value():
    def properties(schema, around=""):
        for key, inner in schema.get("properties", {}).items():
            yield f"{around}{key}"
            yield from properties(inner, f"{around}{key}.")

    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    values["podLabels"] = {}  # its keys are the user's
    helms_own = {"global"}
    assert set(properties(schema)) - helms_own == set(keys(values))
