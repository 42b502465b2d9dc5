"""`fedctl values`, `render` and `lint`: what is printed, what is refused, what is warned of."""

import json
import subprocess
from pathlib import Path
from typing import get_args

import pytest
import yaml

from fedctl.chart import helm, schema
from fedctl.commands import manifests
from tests.tools import program
from trainer.config.load import load

CHART = Path(__file__).parent.parent.parent / "charts" / "fedtrain"


pytestmark = pytest.mark.usefixtures("with_helm")


@pytest.fixture
def values_of(fedctl):
    def of(*words):
        done = fedctl("values", *words)
        assert done.exit_code == 0, done.stderr
        return yaml.safe_load(done.stdout)

    return of


def test_values_are_what_differs_from_the_chart_s_defaults(fedctl):
    done = fedctl("values", "gwpf-digits", "--ranks", "4", "--queue", "team-a", "-n", "lab")
    head, *lines = done.stdout.splitlines()
    assert head == "# helm install gwpf-digits charts/fedtrain --namespace lab --values THIS"
    experiment = next(line for line in lines if line.startswith("experiment: "))
    lines.remove(experiment)
    assert lines == [
        "env:",
        "  OMP_NUM_THREADS: '1'",
        "queue:",
        "  kind: kueue",
        "  name: team-a",
    ]
    sent = json.loads(yaml.safe_load(experiment)["experiment"])
    assert sent["ranks"] == 4


def test_the_experiment_is_the_same_one_as_for_a_run_here(values_of, fedctl):
    said = json.loads(fedctl("validate", "gwpf-digits", "--set", "rounds=7", "-o", "json").stdout)
    text = values_of("gwpf-digits", "--set", "rounds=7")["experiment"]
    assert load(json.loads(text))[0].digest() == said["digest"]


def test_what_follows_from_the_experiment(values_of):
    given = values_of(
        "fedavg-digits", "--set", "cluster.backend=gloo", "--set", "cluster.threads=6"
    )
    on_cpus = {"cpus": 6, "memoryMiB": 4096, "sharedMemoryMiB": 512}
    assert given["resources"] == {"gpus": 0, **on_cpus}
    assert given["env"] == {"OMP_NUM_THREADS": "6"}
    assert given["storage"] == {"runs": {"accessMode": "ReadWriteOnce"}}
    assert "env" not in values_of("fedavg-digits", "--set", "cluster.threads=0")


def test_every_option_sets_a_value_and_the_last_word_is_the_option_s(values_of, tmp_path):
    (tmp_path / "a.yaml").write_text("image: {reference: a}\nrestart: {limit: 7}\nbackend: job")
    (tmp_path / "b.yaml").write_text("restart: {limit: 8}\nenv: {A: b}")
    given = values_of(
        "gwpf-digits", "--backend", "trainjob", "--image", "img:1", "--gpus", "0",
        "--queue", "q", "--queueing", "volcano", "--profile", "infiniband",
        "--pod-security", "privileged", "--storage-class", "fast", "--deadline", "60",
        "--values", "a.yaml", "--values", "b.yaml",
    )  # fmt: skip
    given.pop("experiment")
    assert given == {
        "backend": "trainjob",
        "deadlineSeconds": 60,
        "env": {"OMP_NUM_THREADS": "1", "A": "b"},
        "image": {"reference": "img:1"},
        "network": {"profile": "infiniband"},
        "podSecurity": "privileged",
        "queue": {"kind": "volcano", "name": "q"},
        "resources": {"gpus": 0, "cpus": 1, "memoryMiB": 4096, "sharedMemoryMiB": 512},
        "restart": {"limit": 8},
        "storage": {"runs": {"accessMode": "ReadWriteOnce", "storageClass": "fast"}},
    }


def test_the_choices_in_the_help_are_those_of_the_chart():
    of = {name: field.annotation for name, field in schema.Values.model_fields.items()}
    assert get_args(of["backend"]) == manifests.BACKENDS
    assert get_args(of["pod_security"]) == manifests.LEVELS
    assert get_args(schema.Profile) == manifests.PROFILES
    assert get_args(schema.Queue.model_fields["kind"].annotation) == manifests.QUEUES


@pytest.mark.parametrize("words", [(), ("--backend", "trainjob"), ("--backend", "job")])
def test_render_prints_the_bytes_of_helm_template_on_the_values(fedctl, words):
    words = ("gwpf-digits", "--ranks", "4", "--namespace", "lab", "--name", "mine", *words)
    values, rendered = fedctl("values", *words), fedctl("render", *words)
    by_hand = subprocess.run(
        [program("helm"), "template", "mine", CHART, "--namespace", "lab", "--values", "-"],
        input=values.stdout_bytes,
        capture_output=True,
        check=True,
    )
    assert rendered.stdout_bytes == by_hand.stdout != b""


def test_render_as_json_is_the_same_objects(fedctl):
    text, tree = (fedctl("render", "gwpf-digits", *more).stdout for more in ((), ("-o", "json")))
    assert json.loads(tree) == [item for item in yaml.safe_load_all(text) if item]


def test_kinds_that_the_cluster_has_are_given(fedctl, tmp_path):
    (tmp_path / "auto.yaml").write_text("podMonitor: {enabled: auto}")
    words = ("render", "gwpf-digits", "--values", "auto.yaml")
    assert "kind: PodMonitor" not in fedctl(*words).stdout
    with_api = fedctl(*words, "--api-versions", "monitoring.coreos.com/v1/PodMonitor")
    assert "kind: PodMonitor" in with_api.stdout


def test_words_that_helm_reads_as_something_else_arrive_as_text(fedctl, tmp_path):
    words = {"y": "n", "e": "1e3", "off": "on", "x": "0x10", "t": "1:30", "nil": "~", "u": "1_000"}
    (tmp_path / "labels.yaml").write_text(json.dumps({"podLabels": words, "podAnnotations": words}))
    objects = json.loads(
        fedctl("render", "gwpf-digits", "--values", "labels.yaml", "-o", "json").stdout
    )
    (job,) = (item for item in objects if item["kind"] == "PyTorchJob")
    template = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    assert words.items() <= template["metadata"]["annotations"].items()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("restart: {policy: ExitCode}", "restart.policy: 'ExitCode': under ExitCode a PyTorchJob "
         "restarts pods forever, whatever the limit; use OnFailure"),
        ("restart: {polcy: x}", "restart.polcy: the chart has no such value; did you mean "
         "restart.policy?"),
        ("zzz: 1", "zzz: the chart has no such value; charts/fedtrain/README.md lists them"),
        ("podMonitor: {enabled: maybe}", "podMonitor.enabled: 'maybe': input should be 'auto', "
         "true or false"),
        ("resources: {gpus: 8}", "resources.gpus: 8: a rank uses one GPU; for more of them, use "
         "more ranks"),
        ("storage: {url: http://x}", "storage.url: 'http://x': write s3://BUCKET/PATH or "
         "gs://BUCKET/PATH"),
        ("storage: {endpoint: x}", "storage.endpoint: 'x': write an address, such as "
         "https://s3.example:9000"),
        ("storage: {runs: {size: big}}", "storage.runs.size: 'big': write a number and a unit, "
         "such as 10Gi"),
        ("podMonitor: {interval: x}", "podMonitor.interval: 'x': write a number and a unit, such "
         "as 15s"),
        ("envFromSecrets: {a: b}", "envFromSecrets: a map: write a list, envFromSecrets: [A, B]"),
        ("labels: {a: 5}", "labels.a: 5: write text, in quotes"),
        ("scheduling: {tolerations: [x]}", "scheduling.tolerations.0: 'x': write a map, "
         "{NAME: VALUE}"),
        ("experiment: x", "--values bad.yaml: has an experiment of its own; remove it, and pass it "
         "as FILE instead"),
        ("[1]", "--values bad.yaml: values are a mapping of keys to values"),
        ("a: [", "--values bad.yaml: line 1: not YAML: expected the node content, but found "
         "'<stream end>'"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line_with_its_key_and_the_remedy(fedctl, tmp_path, values, said):
    (tmp_path / "bad.yaml").write_text(values)
    done = fedctl("values", "gwpf-digits", "--values", "bad.yaml")
    assert (done.exit_code, done.stderr, done.stdout) == (2, f"error: {said}\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "-1"], "--gpus: -1: input should be greater than or equal to 0"),
        (["--deadline", "-1"], "--deadline: -1: input should be greater than or equal to 0"),
        (["--image", ""], "--image: '': "),
        (["--image", "https://user:secretpw@reg/x"], "--image: 'https://***@reg/x': is a URL; wri"),
        (["--values", ""], "Invalid value for '--values': is empty; name a file or a folder"),
    ],
)
def test_a_wrong_option_is_named_as_it_was_typed(fedctl, words, said):
    done = fedctl("values", "gwpf-digits", *words)
    assert (done.exit_code, done.stdout) == (2, "") and "secretpw" not in done.stderr
    assert done.stderr.startswith(f"error: {said}")


def test_a_queue_that_nobody_asks_is_refused(fedctl):
    done = fedctl("values", "gwpf-digits", "--queue", "q", "--queueing", "none")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: --queue q: conflicts with --queueing none; drop one of them\n",
    )


@pytest.mark.parametrize("command", ["values", "render", "lint"])
@pytest.mark.parametrize("namespace", ["Bad_NS", "-a", "a.b", "x" * 64, ""])
def test_a_namespace_that_no_cluster_has_is_refused(fedctl, command, namespace):
    done = fedctl(command, "gwpf-digits", f"--namespace={namespace}")
    assert done.exit_code == 2
    assert (
        f"{namespace!r} is not a valid namespace name; write lower-case letters, digits and "
        "dashes, no dash at the ends" in done.stderr
    )


@pytest.mark.parametrize("name", ["Digits", "a_b", "-a", "x" * 54])
def test_a_name_that_helm_would_refuse_is_refused(fedctl, name):
    done = fedctl("values", "gwpf-digits", f"--name={name}")
    assert (done.exit_code, done.stderr) == (
        2,
        f"error: --name {name}: use lower-case letters, digits and dashes, at most 53, none at "
        "the ends\n",
    )


def test_the_chart_s_own_rules_are_one_line_too(fedctl):
    done = fedctl("render", "gwpf-digits", "--profile", "coreweave")
    assert done.exit_code == 2
    assert done.stderr == (
        "error: network.profile: coreweave needs the capability IPC_LOCK, which Pod Security "
        "restricted forbids; set podSecurity to privileged and use a namespace that allows it, "
        "or network.profile to tcp\n"
    )


def test_without_helm_it_says_how_to_get_it(fedctl, monkeypatch, tmp_path):
    monkeypatch.setenv("FEDCTL_HELM", "no-such-helm")
    done = fedctl("render", "gwpf-digits")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"error: FEDCTL_HELM=no-such-helm is not a program; {helm.HOW}\n"
    monkeypatch.delenv("FEDCTL_HELM")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = fedctl("render", "gwpf-digits")
    assert done.stderr == f"error: helm is not installed; {helm.HOW}\n"
    assert fedctl("values", "gwpf-digits").exit_code == 0


@pytest.mark.parametrize(
    ("says", "problem"),
    [("v3.13.3+gc8b9489", "is Helm v3.13.3, which is too old"),
     ("hello", "does not print a version of Helm")],
)  # fmt: skip
def test_a_helm_that_is_too_old_is_refused(fedctl, monkeypatch, tmp_path, says, problem):
    old = tmp_path / "helm"
    old.write_text(f"#!/bin/sh\necho {says}\n")
    old.chmod(0o755)
    monkeypatch.setenv("FEDCTL_HELM", str(old))
    done = fedctl("render", "gwpf-digits")
    assert (done.exit_code, done.stderr) == (1, f"error: {old} {problem}; {helm.HOW}\n")


LINTED = ("lint", "gwpf-digits", "--ranks", "4", "--set", "checkpoint.every=5")


def test_lint_has_nothing_to_say_of_a_run_that_can_be_sent(fedctl):
    done = fedctl(*LINTED, "--strict")
    assert (done.exit_code, done.stdout) == (0, "gwpf-digits: can be submitted\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "checkpoint.every=0"), "warning: checkpoint.every: is 0: "),
        (("--image", "trainer"), "warning: image.reference: trainer may be another image"),
        (("--image", "host:5000/trainer:latest"), "warning: image.reference: host:5000"),
        (("--set", "data.name=mnist"), "warning: data.name: mnist is downloaded"),
        (("--set", "data.name=npz", "--set", "data.path=x.npz"), "warning: data.path: x.npz is "),
        (
            (
                *("--set", "data.name=python-topics", "--set", "model.name=llama-tiny"),
                *("--set", "data.partition={name: contiguous}"),
                *("--set", "data.tokenizer={name: sentencepiece, model: ~/a.model}"),
            ),
            "warning: data.tokenizer.model: ~/a.model is not under /data, where the pod has its",
        ),
        (
            ("--set", "metrics.wandb.mode=online"),
            "warning: metrics: a tracker is outside the cluster",
        ),
        (("--set", "cluster.backend=nccl", "--gpus", "0"), "error: resources.gpus: is 0, but "),
        (("--name", "9"), "error: name: 9 begins with no letter"),
        (("--values", "alone.yaml"), "warning: storage.runs: is ephemeral, but 4 ranks share"),
        (("--values", "always.yaml"), "error: podOverlay: PyTorchJob spec.pytorchReplicaSpecs."),
    ],
)
def test_lint_finds(fedctl, tmp_path, words, said):
    (tmp_path / "alone.yaml").write_text("storage: {runs: {kind: ephemeral}}")
    (tmp_path / "always.yaml").write_text("podOverlay: {spec: {restartPolicy: Always}}")
    done = fedctl(*LINTED, *words)
    error = said.startswith("error")
    assert done.stdout.startswith(said)
    assert done.exit_code == (2 if error else 0)
    assert fedctl(*LINTED, *words, "--strict").exit_code == 2


def test_lint_as_json_is_a_list_of_problems(fedctl):
    done = fedctl(*LINTED, "--image", "trainer", "-o", "json")
    (problem,) = json.loads(done.stdout)
    assert (problem["level"], problem["key"]) == ("warning", "image.reference")
    assert json.loads(fedctl(*LINTED, "-o", "json").stdout) == []


def test_helm_s_errors_lose_where_in_a_template_they_were_raised():
    said = helm.one_line(
        "Error: execution error at (fedtrain/templates/x.yaml:1:4): name: is bad\n"
    )
    assert said == "name: is bad"
    assert helm.one_line("Error: no\n\nUse --debug flag to render out invalid YAML\n") == "no"
