"""The rights that doctor asks about are those that commands need and the platform's role has."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedctl.chart import helm
from fedctl.cli import main
from fedctl.cluster.api import kinds
from fedctl.cluster.doctor.access import RIGHTS
from fedctl.cluster.transfer import fetch as fetching
from tests import patience
from tests.charts.platform import render
from tests.fedctl import objects
from tests.fedctl.apiserver import PATH, Request
from tests.fedctl.podserver import VERBS, Log, PodServer
from tests.tools import program

Rule = tuple[str, str, str]  # group, resource[/subresource], verb
LOOK = {"get", "list", "watch"}
# Kinds that the role shows beside what is in the table.
SHOWN = {
    ("", "resourcequotas"),  # doctor tells what is left of them
    ("", "limitranges"),
    ("jobset.x-k8s.io", "jobsets"),  # for who looks with kubectl
    ("events.k8s.io", "events"),
}
RUN = ("gwpf-digits", "--ranks", "2")
QUEUE = "kueue.x-k8s.io/v1beta2"
WAIT = ("wait", "digits", "--for", "running", "--timeout", patience.text(20))


def of_table(*commands: str) -> set[Rule]:
    """What the table says of these commands, however they are used."""
    return {
        (kinds.of(kind).group, "/".join(filter(None, [kinds.of(kind).plural, sub])), verb)
        for command, (_level, wanted) in RIGHTS.items()
        if command.split()[0] in commands
        for verb, kind, sub in wanted
    }


def of_role(name: str, fetch: bool = False) -> set[Rule]:
    """What the platform's chart allows."""
    return {
        (group, resource, verb)
        for rule in render({"access": {"fetch": fetch}})[f"Role/platform-{name}"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


ALL = {words.split()[0] for words in RIGHTS}


def test_the_role_of_a_user_has_what_the_commands_need_and_may_change_nothing_else() -> None:
    for fetch in (False, True):
        needed, given = of_table(*ALL - (set() if fetch else {"fetch"})), of_role("user", fetch)
        assert needed <= given
        assert {right for right in given - needed if right[2] not in LOOK} == set()
        assert {right[:2] for right in given} - {right[:2] for right in needed} == SHOWN


def test_the_role_of_a_viewer_has_what_looking_needs() -> None:
    assert of_table("status", "logs") <= of_role("viewer")
    assert {verb for _group, _resource, verb in of_role("viewer")} == LOOK


def test_the_table_names_commands() -> None:
    assert set(main.commands) >= ALL


# --- what they ask for ----------------------------------------------------------------------------


def asked(request: Request) -> Iterator[Rule]:
    """The rights that a request takes; none where everybody may, or no role of a namespace says."""
    at = PATH.fullmatch(request.path)
    if at is None or not at["namespace"]:
        return
    verb = VERBS.get(request.method) or ("get" if at["name"] else "list")
    if request.query.get("watch"):
        verb = "watch"
    sub = re.split("/", at["sub"] or "")[0]
    resource = f"{at['plural']}/{sub}" if sub else at["plural"]
    yield at["group"] or "", resource, verb
    if "apply-patch" in request.headers.get("content-type", ""):
        yield at["group"] or "", resource, "create"


@pytest.fixture
def needs(api: PodServer, fedctl, monkeypatch: pytest.MonkeyPatch):
    """Runs commands that must succeed; the rights that they took."""
    monkeypatch.setenv("FEDCTL_HELM", program("helm"))
    monkeypatch.setattr(fetching, "POLL_SECONDS", 0.01)
    monkeypatch.setattr("fedctl.cluster.watch.follow.SETTLE_SECONDS", 0)
    helm.program.cache_clear()

    def run(*words: str) -> set[Rule]:
        api.requests.clear()
        done = fedctl(*words)
        assert done.exit_code == 0, done.output
        return {right for request in api.requests for right in asked(request)}

    yield run
    helm.program.cache_clear()


@pytest.mark.parametrize("backend", ["pytorchjob", "trainjob", "job"])
def test_a_run_is_sent_changed_and_removed_with_the_rights_of_the_table(
    api: PodServer, needs, tmp_path: Path, backend: str
) -> None:
    (tmp_path / "all.yaml").write_text("podMonitor: {enabled: true}")
    submit = (*RUN, "--backend", backend, "--values", "all.yaml")
    plain = (*submit, "--queueing", "native")
    sent = needs("submit", *plain)
    assert ("monitoring.coreos.com", "podmonitors", "create") in sent
    assert sent | needs("submit", *plain) <= of_table("submit")
    taken = needs("suspend", "gwpf-digits") | needs("resume", "gwpf-digits")
    assert any(verb == "patch" for _group, _resource, verb in taken)
    assert taken <= of_table("suspend")
    removed = needs("cancel", "gwpf-digits", "--purge", "--no-wait", "--yes")
    assert ("", "persistentvolumeclaims", "delete") in removed
    assert removed <= of_table("cancel", "status")


def test_volcano_s_groups_are_in_the_table(needs) -> None:
    sent = needs("submit", *RUN, "--backend", "job", "--queueing", "volcano")
    assert ("scheduling.volcano.sh", "podgroups", "create") in sent
    assert sent | needs("diff", *RUN, "--backend", "job", "--queueing", "volcano") <= of_table(
        "submit"
    )


def queued(api: PodServer) -> None:
    """A run that Kueue holds, and its pods of before."""
    about = {"name": "digits", "uid": "1"}
    owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", **about}
    mine = objects.job(queue="gpus")
    mine["metadata"]["uid"] = "1"
    entry = {"apiVersion": QUEUE, "kind": "Workload", "spec": {"active": True}}
    entry["metadata"] = {"name": "digits-1", "ownerReferences": [owner]}
    api.add(mine, entry, objects.config_map(), objects.claim(), objects.pod(), objects.pod(rank=1))
    queue = {"apiVersion": QUEUE, "kind": "LocalQueue", "metadata": {"name": "gpus"}, "spec": {}}
    api.add(queue)


def test_a_queued_run_is_seen_and_switched_with_the_rights_of_the_table(
    api: PodServer, needs
) -> None:
    queued(api)
    assert needs("submit", *RUN, "--queue", "gpus", "--dry-run", "server") <= of_table("submit")
    seen = needs("list") | needs("status", "digits") | needs(*WAIT)
    assert ("kueue.x-k8s.io", "workloads", "list") in seen
    assert seen <= of_table("status")
    taken = needs("suspend", "digits")
    assert ("kueue.x-k8s.io", "workloads", "patch") in taken
    assert taken | needs("resume", "digits") <= of_table("suspend")


def test_a_run_is_watched_fetched_and_tidied_up_with_the_rights_of_the_table(
    api: PodServer, needs, write_run
) -> None:
    api.folders["/runs/digits"] = write_run("in-the-claim")
    over = objects.job(end="Succeeded", at="2026-01-01T00:00:00Z")
    api.add(over, objects.claim(), objects.config_map(), objects.pod(state="done"))
    api.logs["digits-worker-0"] = Log(["round 1"])
    assert needs("logs", "digits") | needs("logs", "digits", "-f") <= of_table("logs", "status")
    assert needs("top", "--once") <= of_table("top", "status")

    def start(obj: dict) -> None:
        container = obj["spec"]["containers"][0]["name"]
        running = {"name": container, "state": {"running": {}}, "restartCount": 0}
        api.add(obj | {"status": {"phase": "Running", "containerStatuses": [running]}})

    api.on_create = start
    fetched = needs("fetch", "digits")
    assert ("", "pods", "create") in fetched
    # A websocket asks as a get; from Kubernetes 1.35 on the server wants a create of it too.
    assert fetched <= of_table("fetch")
    gone = needs("gc", "--claims", "--yes")
    assert ("", "persistentvolumeclaims", "delete") in gone
    assert gone <= of_table("cancel", "status", "fetch")
