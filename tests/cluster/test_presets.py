"""Every preset on every backend, as a real API server with its operators' webhooks judges it."""

import pytest

from fedctl import bundled
from fedctl.chart import helm, values
from fedctl.cluster.api import client
from fedctl.cluster.change import submit
from tests.cluster.harness import BACKENDS, Namespace


def pod_of(documents: list[submit.Document], backend: str) -> dict:
    """The pod that a rank becomes."""
    by_kind = {document.obj["kind"]: document.obj.get("spec") for document in documents}
    if backend == "pytorchjob":
        template = by_kind["PyTorchJob"]["pytorchReplicaSpecs"]["Worker"]["template"]
    elif backend == "trainjob":
        job = by_kind["TrainingRuntime"]["template"]["spec"]["replicatedJobs"][0]["template"]
        template = job["spec"]["template"]
    else:
        template = by_kind["Job"]["template"]
    policy = {"restartPolicy": "Never"}  # what a PyTorchJob's operator fills in
    return {"apiVersion": "v1", "kind": "Pod", "spec": policy | template["spec"]}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_restricted_namespace_accepts_every_preset_without_a_warning(
    namespace: Namespace, backend: str, monkeypatch
):
    for name, value in namespace.environment().items():
        monkeypatch.setenv(name, value)
    cluster = client.connect(None, namespace.name)
    versions = submit.api_versions(cluster)
    warned, refused = {}, {}
    for preset in bundled.presets():
        release = values.release(preset, namespace=namespace.name, options={"backend": backend})
        documents = submit.documents(helm.template(release, versions))
        try:
            for document in documents:
                # Trainer refuses a job whose runtime is not really there.
                real = document.obj["kind"] == "TrainingRuntime"
                _after, said = cluster.apply(document.obj, dry_run=not real, text=document.text)
                if said:
                    warned[preset] = said
            pod = pod_of(documents, backend) | {"metadata": {"name": preset}}
            _after, said = cluster.apply(pod, dry_run=True)
            if said:
                warned[preset] = said
        except Exception as error:  # collected: one that fails must not hide the others
            refused[preset] = str(error)
    assert not refused
    assert not warned
    assert len(bundled.presets()) > 40
