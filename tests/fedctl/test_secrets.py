"""Where secrets could leak from fedctl: its errors, command lines, objects of a cluster."""

import json
import os
from pathlib import Path

import pytest
import yaml

from fedctl.chart import helm
from fedctl.cluster.api import client
from fedctl.errors import FedctlError, RunError, UserError
from fedctl.local import preflight, ranks
from tests.charts.fedtrain import BACKENDS, refusal, release, render
from tests.fedctl.apiserver import Refusal, kubeconfig
from tests.tools import program
from trainer.config.load import load

WORD = "hunter2hunter2"
V1 = "client.authentication.k8s.io/v1"


pytestmark = pytest.mark.usefixtures("with_helm")


@pytest.mark.parametrize("kind", [FedctlError, UserError, RunError])
def test_no_error_shows_a_secret(kind):
    error = kind(f"https://me:{WORD}@host does not answer; try again")
    assert str(error) == "https://***@host does not answer; try again"


def test_no_error_shows_the_password_in_a_server_s_address(fedctl, tmp_path, monkeypatch):
    (tmp_path / "config").write_text(kubeconfig(f"http://me:{WORD}@127.0.0.1:1"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(RunError) as error:
        client.connect().get("Pod", "a")
    assert "http://***@127.0.0.1:1 (context test) cannot be reached" in str(error.value)
    assert WORD not in fedctl("status", "x").output


@pytest.mark.parametrize("output", ["text", "json"])
def test_the_doctor_does_not_show_it_either(fedctl, apiserver, output):
    path = Path(os.environ["KUBECONFIG"])
    path.write_text(path.read_text().replace("http://", f"http://me:{WORD}@"))
    apiserver.texts["/version"] = '{"gitVersion": "v1.36.0"}'
    said = fedctl("doctor", "-o", output).output
    assert "http://***@127.0.0.1" in said and WORD not in said


@pytest.mark.parametrize(
    "user",
    [
        {"token": WORD},  # the server refuses it
        {"token": WORD, "exec": [WORD]},
        {"exec": {"apiVersion": V1, "command": "echo", "args": [WORD]}},
        {"auth-provider": {"name": "oidc", "config": {"id-token": WORD}}},
        {"client-key-data": WORD, "client-certificate-data": WORD},
    ],
    ids=lambda user: "+".join(user),
)  # fmt: skip
def test_what_a_kubeconfig_logs_in_with_is_in_no_error(apiserver, capfd, user):
    path = Path(os.environ["KUBECONFIG"])
    tree = yaml.safe_load(path.read_text())
    for entry in tree["users"]:
        entry["user"] = user
    path.write_text(yaml.safe_dump(tree))
    refusal = Refusal(401, "Unauthorized", f"Authorization: Bearer {WORD} has expired")
    apiserver.faults.append((lambda _request: True, refusal))
    with pytest.raises(FedctlError) as error:
        client.connect().get("Pod", "a")
    assert WORD not in str(error.value) + "".join(capfd.readouterr())


NAMES = (
    "WANDB_API_KEY",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "CLIENT_SECRET",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
)
REFUSAL = (
    "holds a secret, which everyone who can read the pods would see; put it into a Secret, and "
    "name that in envFromSecrets"
)


SECRET = {"name": "trainer", "env": [{"name": "WANDB_API_KEY", "value": WORD}]}


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_in_the_values_is_refused_without_showing_it(name):
    assert refusal({"env": {name: WORD}}) == f"env.{name}: {REFUSAL}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_a_secret_in_the_overlay_is_refused(backend, kind):
    container = {"name": "trainer", "env": [{"name": "HF_TOKEN", "value": WORD}]}
    said = refusal({"backend": backend, "podOverlay": {"spec": {kind: [container]}}})
    assert said == f"podOverlay.spec.{kind}.trainer.env.HF_TOKEN: {REFUSAL}"


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"env": {"STORAGE_ACCOUNT_KEY": WORD}}, "env.STORAGE_ACCOUNT_KEY"),
        ({"env": {"PROXY": f"https://{WORD}@proxy"}}, "env.PROXY"),
        ({"env": {"DATA": f"https://host/x?sig={WORD}"}}, "env.DATA"),
        (
            {"podOverlay": {"spec": {"containers": [{"name": "a", "env": [], "api_key": WORD}]}}},
            "podOverlay.spec.containers.a.api_key",
        ),
        (
            {"podOverlay": {"spec": {"containers": [{"name": "a", "args": [f"x://u:{WORD}@h"]}]}}},
            "podOverlay.spec.containers.a.args.0",
        ),
        (
            {"podOverlay": {"spec": {"tolerations": [{"env": {"HF_TOKEN": 12345678}}]}}},
            "podOverlay.spec.tolerations.0.env.HF_TOKEN",
        ),
    ],
)  # fmt: skip
def test_a_secret_is_found_at_any_depth_and_named_as_it_was_written(values, key):
    assert refusal(values) == f"{key}: {REFUSAL}"


@pytest.mark.parametrize(
    ("overlay", "said"),
    [
        ({"containers": [SECRET]}, "podOverlay.containers: a pod template has only metadata"),
        ({"containers": {"trainer": SECRET}}, "podOverlay.containers: a pod template has only"),
        ({"spec": [SECRET]}, "podOverlay.spec: is not a map; write spec: {NAME: VALUE}"),
        ({"spec": {"template": {"spec": SECRET}}}, "podOverlay.spec.template: the overlay is of"),
        ({"spec": {"containers": {"a": SECRET}}}, "podOverlay.spec.containers: write a list, each"),
        ({"spec": {"containers": [{"env": []}]}}, "podOverlay.spec.containers: write a list, each"),
        ({"spec": {"containers": ["a"]}}, "podOverlay.spec.containers: write a list, each"),
        ({"spec": {"volumes": {"a": {}}}}, "podOverlay.spec.volumes: write a list, each item"),
        (
            {"spec": {"containers": [{"name": "a", "env": {"HF_TOKEN": WORD}}]}},
            "podOverlay.spec.containers.a.env: write a list, each item with its name: [{name: NAME",
        ),
    ],
)
def test_an_overlay_that_is_not_laid_out_as_a_pod_template_is_refused(overlay, said):
    line = refusal({"podOverlay": overlay})
    assert line.startswith(said) and WORD not in line and "template:" not in line.split("; ")[-1]


def test_a_password_in_the_address_of_a_proxy_is_refused():
    said = refusal({"env": {"HTTPS_PROXY": f"http://me:{WORD}@proxy:3128"}})
    assert said == f"env.HTTPS_PROXY: {REFUSAL}"


def test_what_is_no_secret_may_be_in_the_values_and_references_may():
    reference = {"secretKeyRef": {"name": "hub", "key": "token"}}
    container = {"name": "trainer", "env": [{"name": "HF_TOKEN", "valueFrom": reference}]}
    render(
        {
            "env": {
                "AWS_ACCESS_KEY_ID": "me",
                "GOOGLE_APPLICATION_CREDENTIALS": "/secrets/key.json",
                "HTTPS_PROXY": "http://proxy:3128",
                "TOKENIZERS_PARALLELISM": "false",
                "WANDB_BASE_URL": "https://wandb.example",
            },
            "podOverlay": {"spec": {"containers": [container]}},
        }
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (f"env: [{{name: WANDB_API_KEY, value: {WORD}}}]",
         "env: a list: write a map, env: {NAME: VALUE}"),
        (f"env: {WORD}", "env: (not shown): write a map"),
        (f"env: {{WANDB_API_KEY: {{value: {WORD}}}}}", "env.WANDB_API_KEY: holds a secret; put it"),
        (f"env: {{WANDB_API_KEY: [{WORD}]}}", "env.WANDB_API_KEY: holds a secret; put it into a"),
        ("env: {WANDB_API_KEY: 1234567}", "env.WANDB_API_KEY: holds a secret; put it into a Secr"),
        ("env: {LOGIN: 1234567}", "env.LOGIN: (not shown): write text, in quotes"),
        (f"podOverlay: [{{env: {WORD}}}]", "podOverlay: a list: write a map, podOverlay: {NAME"),
        (f"podOverlay: {WORD}", "podOverlay: (not shown): write a map, podOverlay: {NAME"),
        (f"envFromSecrets: {{wandb: {WORD}}}", "envFromSecrets: a map: write a list"),
        (f"envFromSecrets: {WORD}", "envFromSecrets: (not shown): write a list"),
        (f"envFromSecrets: [[{WORD}]]", "envFromSecrets.0: a list: write text"),
        (f"image: {{pullSecrets: {WORD}}}", "image.pullSecrets: (not shown): write a list"),
        (f"storage: {{objectStoreSecret: {{AWS_SECRET_ACCESS_KEY: {WORD}}}}}",
         "storage.objectStoreSecret: a map: write text"),
        ("storage: {objectStoreSecret: 1234567}", "storage.objectStoreSecret: (not shown): write"),
        (f"queue: [{{token: {WORD}}}]", "queue: a list: write a section, queue: {SETTING: VALUE}"),
        (f"labels: {{a: {{token: {WORD}}}}}", "labels.a: a map: write text, in quotes"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["values", "render", "lint"])
def test_a_secret_in_a_value_of_another_shape_is_not_shown(fedctl, tmp_path, command, values, said):
    (tmp_path / "values.yaml").write_text(values)
    done = fedctl(command, "gwpf-digits", "--values", "values.yaml")
    assert done.exit_code == 2 and done.output.startswith(f"error: {said}")
    assert WORD not in done.output and "1234567" not in done.output


def test_a_submit_with_a_secret_in_its_values_sends_nothing(fedctl, apiserver, tmp_path):
    (tmp_path / "values.yaml").write_text(f"env: {{WANDB_API_KEY: {WORD}}}")
    done = fedctl("submit", "gwpf-digits", "--backend", "job", "--values", "values.yaml")
    assert done.exit_code == 2 and WORD not in done.output
    assert f"env.WANDB_API_KEY: {REFUSAL}" in done.output
    assert [r for r in apiserver.requests if r.method not in ("GET", "HEAD")] == []


def test_helm_gets_the_values_on_its_standard_input_and_not_as_words(monkeypatch, tmp_path):
    """The words of a command are for everyone on the machine to read."""
    words = tmp_path / "words"
    fake = tmp_path / "helm"
    fake.write_text(f'#!/bin/sh\necho "$@" >>{words}\nexec {program("helm")} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("FEDCTL_HELM", str(fake))
    helm.program.cache_clear()
    text = helm.template(release({"env": {"A_VARIABLE": "a-value-of-it"}}))
    assert "a-value-of-it" in text
    assert "--values -" in words.read_text() and "a-value-of-it" not in words.read_text()


def test_the_words_of_a_rank_hold_paths_and_no_setting(tmp_path):
    experiment, _ = load({}, sets=["description=only-in-the-file"])
    plan = preflight.Plan(experiment, tmp_path, resume=False)
    assert "only-in-the-file" not in " ".join(ranks.command(plan, tmp_path))
    assert json.loads(experiment.canonical())["description"] == "only-in-the-file"
