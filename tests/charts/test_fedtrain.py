"""charts/fedtrain as a whole: valid, safe, the same under each Helm, and as in the examples."""

import json

import kubernetes_validate
import pytest
import yaml

from fedctl import bundled
from fedctl.chart import files, helm, schema, values
from scripts import example_manifests
from tests.charts.fedtrain import (
    BACKENDS,
    CHART,
    EXAMPLES,
    MONITORED,
    env,
    job,
    objects,
    pod,
    pods,
    refusal,
    release,
    render,
    run,
)
from tests.charts.podsecurity import baseline, restricted
from trainer.config.errors import ConfigError
from trainer.config.load import load

# Kinds of other projects; a test against their definitions needs a cluster that has them.
FOREIGN = ("PyTorchJob", "TrainJob", "TrainingRuntime", "PodMonitor")
FULL = {
    "deadlineSeconds": 3600,
    "image.pullSecrets": ["registry"],
    "podMonitor.enabled": True,
    "scheduling.tolerations": [{"key": "gpu", "operator": "Exists"}],
    "scheduling.topology.key": "topology.kubernetes.io/zone",
    "storage.data.kind": "new",
    "ttlSecondsAfterFinished": 600,
}
EXAMPLE_FILES = {path.relative_to(EXAMPLES).as_posix(): path for path in EXAMPLES.rglob("*.yaml")}


def strictly_valid(item: dict) -> None:
    """By the schemas of Kubernetes itself, without a field that they do not know."""
    if item["kind"] not in FOREIGN and not item["apiVersion"].startswith("scheduling.volcano"):
        kubernetes_validate.validate(item, "1.37", strict=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("queue", ["none", "kueue", "volcano", "native"])
def test_all_objects_and_pods_are_strictly_valid(backend, queue):
    rendered = render(
        FULL | {"backend": backend, "queue.kind": queue, "queue.name": "q"}, *MONITORED
    )
    for item in rendered.values():
        strictly_valid(item)
    template = {"apiVersion": "v1", "kind": "PodTemplate", "template": pod(rendered)}
    kubernetes_validate.validate(template, "1.37", strict=True)


@pytest.mark.parametrize("path", EXAMPLE_FILES)
def test_every_example_is_valid_and_restricted_as_far_as_its_network_allows(path):
    rendered = objects(EXAMPLE_FILES[path].read_text("utf-8"))
    for item in rendered.values():
        strictly_valid(item)
    (template,) = pods(rendered)
    assert bool([*restricted(template["spec"])]) == ("infiniband" in path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pods_pass_pod_security_restricted(backend):
    assert [*restricted(pod(render(FULL | {"backend": backend}))["spec"])] == []


@pytest.mark.parametrize("profile", [p for p in schema.Profile.__args__ if p != "tcp"])
def test_rdma_is_refused_by_name_where_the_namespace_forbids_it(profile):
    for level in ("restricted", "baseline"):
        said = refusal({"network.profile": profile, "podSecurity": level})
        assert said.startswith(f"network.profile: {profile} needs the capability IPC_LOCK")
        assert f"Pod Security {level} forbids" in said
    allowed = render({"network.profile": profile, "podSecurity": "privileged"})
    assert "capabilities ['IPC_LOCK']" in [*baseline(pod(allowed)["spec"])]


def test_what_the_security_checks_find():
    """They are tests' own measure: a pod that breaks each rule, and one that breaks none."""
    assert {*restricted({"containers": [{}]})} == {
        "allowPrivilegeEscalation",
        "runAsNonRoot",
        "seccompProfile",
        "capabilities that are not dropped",
    }
    bad = {
        "hostNetwork": True,
        "volumes": [{"name": "x", "hostPath": {"path": "/"}}],
        "containers": [{"securityContext": {"privileged": True}}],
    }
    assert {"hostNetwork", "hostPath", "privileged"} <= {*baseline(bad)}


@pytest.mark.parametrize(
    "path",
    ["pytorchjob/gwpf-digits", "trainjob-kueue/gwpf-digits", "job-infiniband/local-sgd-imagenet"],
)
def test_helm_3_and_helm_4_render_the_same_bytes_and_those_are_the_example(path):
    _, preset, options = next(e for e in example_manifests.EXAMPLES if e[0] == path)
    sent = values.release(
        preset,
        example_manifests.sets(preset),
        namespace=example_manifests.NAMESPACE,
        options=options,
    )
    for major, binary in ((3, "helm3"), (4, "helm4")):
        assert run(binary, "version", "--short").stdout.startswith(f"v{major}.")
        words = ["template", sent.name, CHART, "--namespace", sent.namespace, "--values", "-"]
        assert run(binary, *words, stdin=sent.text()).stdout == EXAMPLE_FILES[
            f"{path}.yaml"
        ].read_text("utf-8")


def test_every_preset_has_an_example_of_the_default_backend():
    shown = {path.removeprefix("pytorchjob/") for path in EXAMPLE_FILES if "pytorchjob/" in path}
    assert shown == {f"{name}.yaml" for name in bundled.presets()}


@pytest.mark.parametrize("binary", ["helm3", "helm4"])
def test_helm_lint_has_nothing_to_say(binary):
    text = release(FULL).text()
    for words in ((), ("--values", "-")):
        done = run(binary, "lint", "--strict", CHART, *words, stdin=text)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "WARNING" not in done.stdout


def test_the_experiment_arrives_as_it_was_sent():
    sent = release(
        sets=["seed=9007199254740993", "optimizer.lr=1e-5", 'description="a <b> & ü \\" {{x}}"']
    )
    rendered = objects(helm.template(sent))
    text = rendered["ConfigMap/gwpf-digits-experiment"]["data"]["experiment.json"]
    assert text == sent.experiment.canonical()
    arrived, _ = load(json.loads(text))
    assert arrived.digest() == sent.experiment.digest()
    assert job(rendered)["metadata"]["labels"]["fedctl/digest"] == sent.experiment.digest()


def test_a_changed_experiment_is_a_changed_pod():
    one, other, again = (
        pod(objects(helm.template(release(sets=[f"seed={seed}"])))) for seed in (1, 2, 1)
    )
    checksum = "checksum/experiment"
    annotations = [t["metadata"]["annotations"][checksum] for t in (one, other, again)]
    assert annotations[0] != annotations[1]
    assert annotations[0] == annotations[2]


def test_the_generated_files_of_the_chart_are_up_to_date():
    assert (CHART / "values.yaml").read_text("utf-8") == files.values_yaml()
    assert (CHART / "values.schema.json").read_text("utf-8") == files.schema() + "\n"


def test_values_yaml_has_the_defaults_that_fedctl_reckons_with():
    written = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    assert schema.Values.model_validate(written) == schema.Values()


def test_helm_refuses_by_the_schema_what_fedctl_refuses():
    for key, value in (("restart.policy", "ExitCode"), ("resources.gpus", 2), ("typo", 1)):
        words = ["template", "x", CHART, "--set-json", f"experiment={json.dumps(EXPERIMENT)}"]
        assert run("helm", *words).returncode == 0
        done = run("helm", *words, "--set", f"{key}={value}")
        assert done.returncode and "schema" in done.stderr, key


EXPERIMENT = load({})[0].canonical()


def test_the_chart_refuses_to_be_installed_without_an_experiment():
    for given, said in (("", "is empty"), ("{}", "is not an experiment's JSON")):
        done = run("helm", "template", "x", CHART, "--set-json", f"experiment={json.dumps(given)}")
        assert said in helm.one_line(done.stderr)


def test_names_may_be_as_long_as_what_is_made_of_them_allows():
    """Helm allows 53. Added are -worker-3; -node-0-3 and a pod's random end; -3."""
    for backend, longest in (("pytorchjob", 53), ("trainjob", 63 - 15), ("job", 53)):
        render({"backend": backend}, name="x" * longest)
    said = refusal({"backend": "trainjob"}, name="x" * 49)
    assert said.startswith(f"name: {'x' * 49} is too long by 1: it makes the name ")
    said = refusal({"backend": "pytorchjob"}, name="x" * 53, ranks=1001)
    assert f"too long by 2: it makes the name {'x' * 53}-worker-1000" in said


def test_a_url_and_a_volume_or_a_closed_network_exclude_each_other():
    url = {"storage.url": "s3://runs"}
    said = refusal(url)
    assert said.startswith("storage.url: the pods may not connect to it; name its addresses in ")
    reached = url | {"networkPolicy.restrictEgress": False}
    said = refusal(reached | {"storage.runs.kind": "claim", "storage.runs.claim": "mine"})
    assert said.startswith("storage.url: the run is kept there, and storage.runs.kind claim names")
    for backend in BACKENDS:
        rendered = render(reached | {"backend": backend})
        assert not [key for key in rendered if key.startswith("PersistentVolumeClaim/")]
        assert env(rendered)["FEDCTL_RUN_URL"] == "s3://runs/gwpf-digits"


@pytest.mark.parametrize("url", ["s3://id:key@runs", "https://runs", "s3://runs/?x", "runs"])
def test_a_url_without_secrets(url):
    with pytest.raises(ConfigError, match=r"^storage.url: "):
        release({"storage.url": url})


def test_a_name_begins_with_a_letter():
    assert "begins with no letter" in refusal(name="4-digits")


def test_notes_name_what_to_look_at():
    text = release({"backend": "trainjob", "queue.kind": "kueue", "queue.name": "gpus"}).text()
    done = run(
        "helm", "install", "mine", CHART, "--dry-run=client", "--namespace", "team-a",
        "--values", "-", stdin=text,
    )  # fmt: skip
    notes = done.stdout.partition("NOTES:")[2]
    assert "4 ranks" in notes and "suspended until Kueue starts it from the queue gpus" in notes
    assert "kubectl delete trainingruntime --namespace team-a mine" in notes
