"""Each part of charts/fedtrain-platform: who may do what, who may talk to whom, what is watched."""

import re

import pytest
import yaml

from tests.charts.platform import CHART, PROMETHEUS_OPERATOR, render
from tests.dashboards.monitoring import BOARDS, RULES

WRITING = {"create", "patch", "delete"}


def rights(role):
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.fixture(scope="module")
def default():
    return render(apis=PROMETHEUS_OPERATOR)


def test_a_user_may_do_what_fedctl_does_and_a_viewer_only_look(default):
    user, viewer = (rights(default[f"Role/platform-{who}"]) for who in ("user", "viewer"))
    assert viewer < user
    assert {verb for _, _, verb in viewer} == {"get", "list", "watch"}
    kinds = rendered_kinds()
    made = {(group, resource) for group, resource, verb in user if verb == "create"}
    assert made == kinds
    assert {(*kind, verb) for kind in kinds for verb in ("get", *WRITING)} <= user
    assert user - viewer - {(*kind, verb) for kind in kinds for verb in WRITING} == {
        ("", "pods/proxy", "get"),
        ("kueue.x-k8s.io", "workloads", "patch"),
    }


def rendered_kinds():
    """(group, resource) of everything that charts/fedtrain can render."""
    kinds = set()
    for template in (CHART.parent / "fedtrain" / "templates").glob("*.yaml"):
        found = re.findall(r"^apiVersion: (\S+).*\nkind: (\w+)", template.read_text(), re.MULTILINE)
        for version, kind in found:
            plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
            group = version.rpartition("/")[0]
            kinds.add((group, plural.lower()))
    assert len(kinds) > 8
    return kinds


def test_no_role_reaches_secrets_or_shells_or_everything(default):
    for name, item in default.items():
        if name.startswith("Role/"):
            for group, resource, verb in rights(item):
                assert "*" not in (group, resource, verb)
                assert resource not in {
                    "secrets",
                    "pods/exec",
                    "pods/attach",
                    "serviceaccounts/token",
                }
                assert verb not in {"deletecollection", "escalate", "bind", "impersonate"}


def test_fetching_run_folders_is_a_right_of_its_own(default):
    fetching = render({"access": {"fetch": True}}, apis=PROMETHEUS_OPERATOR)
    assert rights(fetching["Role/platform-viewer"]) == rights(default["Role/platform-viewer"])
    assert rights(fetching["Role/platform-user"]) - rights(default["Role/platform-user"]) == {
        ("", "pods", "create"),
        ("", "pods", "delete"),
        ("", "pods/exec", "get"),
        ("", "pods/exec", "create"),
    }


def test_the_role_is_bound_to_the_users_and_to_the_pipeline():
    made = render(
        {
            "access": {
                "users": [
                    {"kind": "User", "name": "ada"},
                    {"kind": "ServiceAccount", "name": "bot", "namespace": "tools"},
                ],
                "ci": True,
            }
        }
    )
    assert made["RoleBinding/platform-user"]["subjects"] == [
        {"kind": "User", "name": "ada", "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "ServiceAccount", "name": "bot", "namespace": "tools"},
        {"kind": "ServiceAccount", "name": "platform-ci", "namespace": "team-a"},
    ]
    assert made["RoleBinding/platform-user"]["roleRef"]["name"] == "platform-user"
    assert made["ServiceAccount/platform-ci"]["automountServiceAccountToken"] is False
    assert "RoleBinding/platform-viewer" not in made


def test_nothing_is_made_outside_the_namespace(default):
    assert {item["metadata"]["namespace"] for item in default.values()} == {"team-a"}
    assert not [name for name in default if name.startswith("Cluster")]


def test_quantities_of_a_quota_stay_what_was_written():
    made = render({"quota": {"pods": 10, "requests.nvidia.com/gpu": 8, "limits.memory": "1Ti"}})
    assert made["ResourceQuota/platform"]["spec"]["hard"] == {
        "pods": "10",
        "requests.nvidia.com/gpu": "8",
        "limits.memory": "1Ti",
    }


def test_pods_of_runs_are_closed_to_all_but_each_other_and_readers_of_metrics(default):
    spec = default["NetworkPolicy/platform"]["spec"]
    runs = {"matchLabels": {"app.kubernetes.io/name": "fedtrain"}}
    assert spec["podSelector"] == runs
    assert spec["policyTypes"] == ["Ingress"]
    assert spec["ingress"] == [
        {"from": [{"podSelector": runs}]},
        {"ports": [{"port": "metrics", "protocol": "TCP"}]},
    ]


def test_the_way_out_can_be_closed_but_for_names_peers_and_what_is_listed():
    store = {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}
    spec = render({"networkPolicy": {"restrictEgress": True, "egressTo": [store]}})[
        "NetworkPolicy/platform"
    ]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    peers, names, listed = spec["egress"]
    assert peers == {"to": [{"podSelector": spec["podSelector"]}]}
    assert {(port["port"], port["protocol"]) for port in names["ports"]} == {
        (53, "UDP"),
        (53, "TCP"),
    }
    assert listed == store


def test_ranks_are_scraped_under_the_name_of_their_job(default):
    spec = default["PodMonitor/platform"]["spec"]
    assert spec["selector"] == default["NetworkPolicy/platform"]["spec"]["podSelector"]
    [endpoint] = spec["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    targets = {relabelling["targetLabel"] for relabelling in endpoint["relabelings"]}
    assert targets == {"job_name"}  # and none that fedctl_info says itself, which would be renamed


def test_monitors_have_the_label_that_a_prometheus_selects_by():
    made = render({"monitoring": {"labels": {"release": "stack"}}}, PROMETHEUS_OPERATOR)
    for name in ("PodMonitor/platform", "PrometheusRule/platform"):
        assert made[name]["metadata"]["labels"]["release"] == "stack"
    assert "release" not in made["Role/platform-user"]["metadata"]["labels"]


def test_rules_in_the_chart_are_those_of_the_tree(default):
    assert (CHART / "files" / "rules.yaml").read_bytes() == RULES.read_bytes()
    assert default["PrometheusRule/platform"]["spec"] == yaml.safe_load(RULES.read_text())


def test_dashboards_in_the_chart_are_those_of_the_tree_to_the_byte(default):
    shipped = sorted((CHART / "files" / "dashboards").iterdir())
    assert [path.name for path in shipped] == [path.name for path in BOARDS]
    for path in BOARDS:
        [(name, text)] = default[f"ConfigMap/platform-dashboard-{path.stem}"]["data"].items()
        assert name == f"fedctl-{path.name}"
        assert text == path.read_text()
        assert len(text) < 900_000  # of the 1 MiB that an object may have


def test_grafanas_sidecar_finds_the_dashboards_and_their_folder():
    values = {
        "monitoring": {"dashboards": {"label": "board", "labelValue": "yes", "folder": "Lab"}}
    }
    metadata = render(values)["ConfigMap/platform-dashboard-run"]["metadata"]
    assert metadata["labels"]["board"] == "yes"
    assert metadata["annotations"] == {"grafana_folder": "Lab"}
    without = render({"monitoring": {"dashboards": {"folder": ""}}})
    assert "annotations" not in without["ConfigMap/platform-dashboard-run"]["metadata"]
