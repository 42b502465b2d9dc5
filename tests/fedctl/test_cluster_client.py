"""What fedctl asks an API server, and how it says what went wrong: over real HTTP."""

import json
import os
import threading
from pathlib import Path

import pytest
import yaml
from websocket import ABNF

from fedctl.cluster.api import client, errors, kinds, server
from fedctl.cluster.api.execution import ENDED, MOST_STDERR_BYTES, STDERR, Execution
from fedctl.errors import FedctlError, RunError
from tests import patience
from tests.fedctl.apiserver import ApiServer, PlainRefusal, Refusal, kubeconfig

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}}


@pytest.fixture
def cluster(apiserver: ApiServer) -> client.Cluster:
    return client.connect()


def said(error: "pytest.ExceptionInfo[BaseException]") -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_page_that_a_proxy_sends_instead_is_one_line(apiserver, cluster):
    apiserver.texts["/api/v1/namespaces/lab/pods"] = "<html>Log in</html>"
    with pytest.raises(RunError, match="does not answer like an API server; check") as error:
        cluster.list("Pod")
    assert said(error)


def test_many_connections_at_once_are_kept_without_a_word(apiserver, cluster, caplog):
    together = threading.Barrier(40)

    def all_are_here(_request: object) -> bool:
        together.wait(20)
        return False

    apiserver.faults.append((all_are_here, PlainRefusal("")))
    threads = [threading.Thread(target=cluster.list, args=["Pod"]) for _ in range(together.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [record.getMessage() for record in caplog.records] == []


# --- which cluster --------------------------------------------------------------------------------


def test_the_namespace_is_the_option_s_else_the_context_s_else_default(apiserver):
    assert client.connect().namespace == "lab"
    assert client.connect(namespace="other").namespace == "other"
    assert client.connect("bare").namespace == "default"
    assert client.connect("bare").context == "bare"


def test_the_token_of_the_context_is_sent(apiserver, cluster):
    cluster.get("ConfigMap", "a")
    assert apiserver.requests[-1].headers["authorization"] == "Bearer secret"


def test_several_files_are_one_kubeconfig(apiserver, tmp_path, monkeypatch):
    second = tmp_path / "second"
    second.write_text(kubeconfig("http://127.0.0.1:1").replace("name: test", "name: another"))
    monkeypatch.setenv("KUBECONFIG", f"{second}:{tmp_path / 'kubeconfig'}:{tmp_path / 'none'}")
    assert client.connect("test").namespace == "lab"


@pytest.mark.parametrize(
    ("content", "context", "line"),
    [
        (None, None, "no cluster: KUBECONFIG={path}: no such file; set KUBECONFIG to a file "
         "that names one"),
        (kubeconfig("http://x"), "prod", "--context prod: {path} has no such context; it has: "
         "bare, test"),
        ("clusters: []\ncontexts: []\nusers: []", None, "{path} has no current context; set "
         "KUBECONFIG or name one with --context; `kubectl config get-contexts` lists them"),
        ("a: [", None, "{path} is not a kubeconfig: not YAML: expected the node content, but found "
         "'<stream end>'"),
        ("[1, 2]", None, "{path} is not a valid kubeconfig: "),
        ("contexts: [null]", None, "{path} is not a valid kubeconfig: "),
        ("contexts: x", None, "{path} is not a valid kubeconfig: "),
        ("current-context: a\ncontexts: [{name: a, context: 3}]", None,
         "{path} is not a valid kubeconfig: "),
        ("", None, "{path} is not a valid kubeconfig: Invalid kube-config. {path} file is empty"),
        (kubeconfig("http://x", exec={"apiVersion": "client.authentication.k8s.io/v1",
                                      "command": "false"}), None,
         "context test: logging in failed: exec: process returned 1; log in again"),
    ],
)  # fmt: skip
def test_a_kubeconfig_that_leads_nowhere_is_one_line(
    tmp_path: Path, monkeypatch, content, context, line
):
    path = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if content is not None:
        path.write_text(content)
    with pytest.raises(RunError) as error:
        client.connect(context)
    assert said(error).startswith(line.format(path=path))


def test_a_pipe_as_a_kubeconfig_is_not_waited_for(tmp_path: Path, monkeypatch) -> None:
    os.mkfifo(path := tmp_path / "config")
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(RunError) as error:
        client.connect()
    assert said(error).startswith(f"{path} is a pipe; name a regular file; set KUBECONFIG or ")


def test_a_server_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "config").write_text(kubeconfig("http://127.0.0.1:1"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(errors.Unreachable) as error:
        client.connect().get("Pod", "a")
    assert said(error) == (
        "http://127.0.0.1:1 (context test) cannot be reached: Connection refused; check the "
        "network or VPN, or name another --context"
    )


def test_a_server_that_speaks_no_tls_is_one_line(apiserver, tmp_path):
    path = tmp_path / "kubeconfig"
    path.write_text(path.read_text().replace("http://", "https://"))
    with pytest.raises(errors.Unreachable) as error:
        client.connect().get("Pod", "a")
    assert "(context test): no secure connection: [SSL: " in said(error)
    assert said(error).endswith("check the address and the certificate authority of the context")


# --- objects --------------------------------------------------------------------------------------


def test_what_is_not_there_is_none_and_what_is_has_its_kind(apiserver, cluster):
    assert cluster.get("ConfigMap", "a") is None
    cluster.apply(CONFIG)
    assert cluster.get("ConfigMap", "a")["data"] == {"x": "1"}
    assert cluster.list("ConfigMap")[0]["kind"] == "ConfigMap"
    assert cluster.delete("ConfigMap", "a") is True
    assert cluster.delete("ConfigMap", "a") is False


def test_an_apply_is_server_side_strict_and_ours(apiserver, cluster):
    after, warned = cluster.apply(CONFIG, dry_run=True)
    (request,) = apiserver.sent("PATCH", dry=True)
    assert request.path == "/api/v1/namespaces/lab/configmaps/a"
    assert request.headers["content-type"] == "application/apply-patch+yaml"
    assert request.query == {
        "fieldManager": "fedctl", "fieldValidation": "Strict", "dryRun": "All"
    }  # fmt: skip
    assert after["data"] == {"x": "1"} and list(warned) == [] and apiserver.objects == {}


def test_the_server_s_warnings_are_heard(apiserver, cluster):
    apiserver.warnings["ConfigMap"] = 'would violate PodSecurity "restricted:latest": \\ it'
    _after, warned = cluster.apply(CONFIG)
    assert warned == ['would violate PodSecurity "restricted:latest": \\ it']


def test_a_list_is_read_page_by_page_and_by_selectors(apiserver, cluster):
    for number in range(1203):
        labels = {"parity": str(number % 2)}
        meta = {"name": f"a{number}", "namespace": "lab" if number % 3 else "other"}
        apiserver.put(CONFIG | {"metadata": meta | {"labels": labels}})
    assert len(cluster.list("ConfigMap", everywhere=True)) == 1203
    pages = [request.query.get("continue") for request in apiserver.requests]
    assert pages == [None, "500", "1000"]
    assert len(cluster.list("ConfigMap", labels={"parity": "1"})) == 401
    assert len(cluster.list("ConfigMap", fields={"metadata.name": "a1"})) == 1


def test_a_merge_patch_says_that_it_is_one(apiserver, cluster):
    apiserver.put(CONFIG)
    cluster.patch("ConfigMap", "a", {"data": {"x": None, "y": "2"}})
    assert apiserver.find("ConfigMap", "a")["data"] == {"y": "2"}
    assert apiserver.requests[-1].headers["content-type"] == "application/merge-patch+json"


def test_a_name_that_is_taken_is_said_so(apiserver, cluster):
    cluster.create(CONFIG)
    with pytest.raises(errors.AlreadyExists) as error:
        cluster.create(CONFIG)
    assert said(error) == "configmaps: already exists"


def test_of_several_versions_the_newest_that_is_served_is_asked(apiserver, cluster, monkeypatch):
    cluster.list("LocalQueue")
    assert apiserver.requests[-1].path.startswith("/apis/kueue.x-k8s.io/v1beta2/")
    old = kinds.Kind("kueue.x-k8s.io", ("v1beta1",), "localqueues")
    monkeypatch.setattr(
        "tests.fedctl.apiserver.KINDS", {("kueue.x-k8s.io", "localqueues"): ("LocalQueue", old)}
    )
    client.connect().list("LocalQueue")
    assert apiserver.requests[-1].path.startswith("/apis/kueue.x-k8s.io/v1beta1/")


def test_two_kinds_of_one_name_are_told_apart_by_their_group(cluster):
    meta = {"metadata": {"name": "a"}}
    volcano = {"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "PodGroup"} | meta
    native = {"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup"} | meta
    assert "/scheduling.volcano.sh/v1beta1/namespaces/lab/podgroups/a" in cluster.path_of(volcano)
    assert "/scheduling.k8s.io/v1alpha2/namespaces/lab/podgroups/a" in cluster.path_of(native)


def test_logs_and_proxies_are_read_as_text(apiserver, cluster):
    apiserver.texts["/api/v1/namespaces/lab/pods/p/log"] = "one\ntwo"
    apiserver.texts["/api/v1/namespaces/lab/pods/p:9401/proxy/metrics"] = "fedctl_round 3\n"
    assert list(cluster.logs("p", "pytorch", tail=5)) == ["one", "two"]
    assert apiserver.requests[-1].query == {"container": "pytorch", "tailLines": "5"}
    assert cluster.proxy("p", 9401, "/metrics") == "fedctl_round 3\n"


def test_a_log_without_line_breaks_is_cut(apiserver, cluster, monkeypatch):
    monkeypatch.setattr(server, "MOST_LINE_BYTES", 1000)
    apiserver.texts["/api/v1/namespaces/lab/pods/p/log"] = "x" * 300_000
    lines = list(cluster.logs("p", "pytorch"))
    assert len(lines) > 1 and "".join(lines) == "x" * 300_000


def test_of_a_commands_errors_only_the_end_is_kept():
    frames = [(STDERR, b"a" * 10**6), (STDERR, b"the reason"), (ENDED, b'{"status":"Success"}')]

    class Socket:
        def recv_data_frame(self, control):
            if not frames:
                return ABNF.OPCODE_CLOSE, ABNF()
            channel, data = frames.pop(0)
            return ABNF.OPCODE_BINARY, ABNF(data=bytes([channel]) + data)

        def close(self):
            pass

        shutdown = close

    done = Execution(Socket())
    assert list(done) == [] and done.status == 0
    assert len(done.stderr) == MOST_STDERR_BYTES and done.stderr.endswith("the reason")


def test_a_request_that_the_server_asks_to_repeat_is_repeated(apiserver, cluster):
    busy = Refusal(429, "TooManyRequests", "too many")
    apiserver.refuse("PATCH", "configmaps/a", busy)
    threading.Timer(0.2, apiserver.faults.clear).start()
    cluster.apply(CONFIG)
    assert len(apiserver.sent("PATCH")) > 1 and apiserver.find("ConfigMap", "a")


# --- watches --------------------------------------------------------------------------------------


def names(changes):
    return [(kind, obj["metadata"]["name"]) for kind, obj in changes]


def config(name: str, value: str = "1") -> dict:
    return CONFIG | {"metadata": {"name": name}, "data": {"x": value}}


def test_a_watch_begins_with_what_is_there_and_goes_on(apiserver, cluster):
    apiserver.put(config("a"))
    found = cluster.watch("ConfigMap", timeout=patience.seconds(20))
    assert names([next(found)]) == [("ADDED", "a")]
    apiserver.put(config("a", "2"))
    apiserver.put(config("b"))
    apiserver.remove("ConfigMap", "a")
    seen = names(next(found) for _ in range(3))
    assert seen == [("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")]


def test_a_watch_goes_on_through_a_dropped_connection_and_tells_nothing_twice(apiserver, cluster):
    apiserver.put(config("a"))
    found = cluster.watch("ConfigMap", timeout=patience.seconds(20))
    next(found)
    apiserver.put(config("b"))
    next(found)
    apiserver.drop()
    apiserver.put(config("c"))
    assert names([next(found)]) == [("ADDED", "c")]


def test_a_watch_that_the_server_has_forgotten_looks_again_and_tells_what_it_missed(
    apiserver, cluster
):
    apiserver.put(config("a"))
    apiserver.put(config("b"))
    found = cluster.watch("ConfigMap", timeout=patience.seconds(20))
    next(found), next(found)
    with apiserver.lock:  # all of it happens while the watch is away
        apiserver.remove("ConfigMap", "a")
        apiserver.put(config("b", "2"))
        apiserver.forget()
    seen = [next(found), next(found)]
    assert names(seen) == [("DELETED", "a"), ("MODIFIED", "b")]


def test_a_watch_ends_when_its_time_is_over(apiserver, cluster):
    apiserver.put(config("a"))
    assert names(cluster.watch("ConfigMap", timeout=1)) == [("ADDED", "a")]


def test_a_watch_that_ends_in_the_middle_of_a_line_goes_on(apiserver, cluster):
    apiserver.put(config("a"))
    whole, cuts = apiserver._watch, ['{"type": "ADD']

    def cut(key, query):
        return iter([cuts.pop()]) if cuts else whole(key, query)

    apiserver._watch = cut
    found = cluster.watch("ConfigMap", timeout=patience.seconds(20))
    next(found)
    apiserver.put(config("b"))
    assert names([next(found)]) == [("ADDED", "b")]


def test_a_watch_that_is_ended_at_once_is_not_asked_for_without_a_pause(apiserver, cluster):
    apiserver._watch = lambda key, query: iter([])
    assert names(cluster.watch("ConfigMap", timeout=1)) == []
    assert len([request for request in apiserver.requests if request.query.get("watch")]) < 5


def test_a_watch_that_is_forbidden_is_an_error(apiserver, cluster):
    apiserver.refuse("GET", "configmaps", forbidden("list", "configmaps", ""))
    with pytest.raises(errors.Forbidden):
        next(cluster.watch("ConfigMap", timeout=patience.seconds(5)))


# --- refusals -------------------------------------------------------------------------------------


def forbidden(verb: str, resource: str, group: str = "kubeflow.org") -> Refusal:
    return Refusal(
        403, "Forbidden",
        f'{resource}.{group} "a" is forbidden: User "jane" cannot {verb} resource "{resource}" in '
        f'API group "{group}" in the namespace "lab"',
    )  # fmt: skip


STRICT = 'PyTorchJob in version "v1" cannot be handled as a PyTorchJob: strict decoding error: '
TYPED = "failed to create typed patch object (lab/a; kubeflow.org/v1, Kind=PyTorchJob): "
SCHEDULING = ".spec.pytorchReplicaSpecs.Worker.template.spec.schedulingGroup"


@pytest.mark.parametrize(
    ("answer", "kind", "code", "line"),
    [
        (forbidden("patch", "pytorchjobs"), errors.Forbidden, 1,
         "jane has no permission to patch pytorchjobs.kubeflow.org in namespace lab; ask for the "
         "role of charts/fedtrain-platform in lab"),
        (Refusal(403, "Forbidden", 'pods "a-0" is forbidden: exceeded quota: team, requested: '
                 "requests.nvidia.com/gpu=4, used: requests.nvidia.com/gpu=6, limited: "
                 "requests.nvidia.com/gpu=8"), errors.ApiError, 1,
         "quota team is exceeded: requests.nvidia.com/gpu: 6 of 8 used, 4 more requested; "
         "request less, or wait for other runs to end"),
        (Refusal(403, "Forbidden", 'pods "a-0" is forbidden: violates PodSecurity '
                 '"restricted:latest": allowPrivilegeEscalation != false (container "c" must set '
                 "it)"), errors.Refused, 2,
         "the namespace's Pod Security level restricted forbids the pods: allowPrivilegeEscalation "
         '!= false (container "c" must set it); use a namespace that allows it, or --pod-security '
         "with the namespace's level"),
        (PlainRefusal("404 page not found\n"), errors.KindMissing, 1,
         "the cluster has no pytorchjobs.kubeflow.org (kubeflow.org/v1); install Kubeflow's "
         "training operator v1, 1.9.4 or newer, or use --backend job"),
        (Refusal(404, "NotFound", 'namespaces "lab" not found', {"name": "lab",
                 "kind": "namespaces"}), errors.NotFound, 1,
         "namespace lab does not exist; name another with -n, or have it created"),
        (Refusal(403, "Forbidden", 'configmaps "a" is forbidden: unable to create new content in '
                 "namespace lab because it is being terminated"), errors.ApiError, 1,
         "namespace lab is being deleted; name another with -n"),
        (Refusal(500, "InternalError", TYPED + SCHEDULING + ": field not declared in schema"),
         errors.Refused, 2,
         f"{SCHEDULING[1:]}: this cluster's version of the kind has no such field, and would drop "
         "it; gangs need Kubernetes 1.36, and for a PyTorchJob the training operator 1.9.4; "
         "upgrade the operator that defines the kind, or remove the field"),
        (Refusal(400, "BadRequest", STRICT + 'unknown field "spec.runPolicy.managedBy"'),
         errors.Refused, 2,
         "spec.runPolicy.managedBy: this cluster's version of the kind has no such field, and "
         "would drop it; upgrade the operator that defines the kind, or remove the "
         "field"),
        (Refusal(409, "Conflict", 'Apply failed with 1 conflict: conflict with '
                 '"kubectl-client-side-apply" using kubeflow.org/v1: .spec.nprocPerNode'),
         errors.Conflict, 1,
         "spec.nprocPerNode was changed by kubectl-client-side-apply, and a submit would undo "
         "that; `fedctl diff` shows the changes, `fedctl cancel` removes the run"),
        (Refusal(500, "InternalError", "Internal error occurred: failed calling webhook "
                 '"validator.pytorchjob.training-operator.kubeflow.org": failed to call webhook: '
                 'Post "https://training-operator.kubeflow.svc:443/x?timeout=10s": dial tcp '
                 "10.0.0.1:443: connect: connection refused"), errors.ApiError, 1,
         "the admission webhook validator.pytorchjob.training-operator.kubeflow.org does not "
         "answer (connection refused); its operator does not seem to be running: check with "
         "`kubectl get pods -A` and `fedctl doctor`"),
        (Refusal(403, "Forbidden", 'admission webhook "v.example" denied the request: spec.x: '
                 "Invalid value: 0"), errors.Refused, 2,
         "refused by v.example: spec.x: Invalid value: 0"),
        (Refusal(422, "Invalid", "ValidatingAdmissionPolicy 'images' with binding 'b' denied "
                 "request: only our registry"), errors.Refused, 2,
         "refused by ValidatingAdmissionPolicy 'images': only our registry"),
        (Refusal(422, "Invalid", "whatever", {"causes": [{"field": "metadata.name",
                 "message": "Invalid value: \"x\": must be no more than 63 characters"}]}),
         errors.Refused, 2,
         "pytorchjobs.kubeflow.org a: not valid: metadata.name: Invalid value: \"x\": must be no "
         "more than 63 characters"),
        (Refusal(401, "Unauthorized", "Unauthorized"), errors.ApiError, 1,
         "{server} rejects the context's credentials: they are wrong or have expired; log in "
         "again, or name another --context"),
        (Refusal(504, "Timeout", "request did not complete within requested timeout"),
         errors.ApiError, 1, "{server} did not answer in time (request did not complete within "
         "requested timeout); try again"),
        (Refusal(500, "InternalError", "etcdserver: leader changed"), errors.ApiError, 1,
         "pytorchjobs.kubeflow.org a: {server} failed: etcdserver: leader changed; try again"),
        (Refusal(413, "RequestEntityTooLarge", "too large"), errors.Refused, 2,
         "pytorchjobs.kubeflow.org a: too large for the API server; an experiment's limit is "
         "1 MiB"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_with_what_to_do(apiserver, cluster, answer, kind, code, line):
    apiserver.refuse("PATCH", "/pytorchjobs/a", answer)
    job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "a"}}
    with pytest.raises(FedctlError) as error:
        cluster.apply(job)
    assert said(error) == line.format(server=cluster.server)
    assert isinstance(error.value, kind) and error.value.exit_code == code


def test_an_answer_that_is_no_status_is_still_one_line():
    error = errors.of(502, b"<html>\nBad Gateway</html>", method="GET", path="/api/v1/pods")
    assert str(error) == "pods: the cluster failed: <html> Bad Gateway</html>; try again"


def test_the_table_has_every_kind_that_the_chart_renders():
    examples = Path(__file__).parent.parent.parent / "manifests" / "examples"
    paths = [examples / name / "gwpf-digits.yaml" for name in ("pytorchjob", "trainjob", "job")]
    for path in paths:
        for obj in filter(None, yaml.safe_load_all(path.read_text())):
            group = obj["apiVersion"].rpartition("/")[0]
            assert kinds.of(obj["kind"], obj["apiVersion"]).group == group, obj["kind"]


def test_a_body_is_json_that_python_wrote(apiserver, cluster):
    cluster.create(CONFIG)
    assert json.loads(apiserver.requests[-1].body) == CONFIG
