"""Pods without a shared volume: their run is in an S3 server that they reach, and survives them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import patience
from tests.cluster.harness import BACKENDS, Kubernetes, Namespace, until
from tests.cluster.stack.nodes import DNS
from tests.cluster.test_faults import RESUMED
from tests.engine.test_resume import free_port
from tests.objectstore import BUCKET, Server, server
from trainer import manifest

SECRET = "store"  # noqa: S105  # its name


@pytest.fixture(scope="module")
def store(cluster: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this machine, on the address of the bridge, which only pods and we reach."""
    if cluster.stack is None:
        pytest.skip("NOT TESTED: pods of this cluster may not reach a server of this machine")
    with server(tmp_path_factory.mktemp("store"), free_port(), DNS) as made:
        yield made


@pytest.fixture
def values(namespace: Namespace, store: Server) -> Path:
    """Values of a run at a URL: what is secret is in a Secret, the rest is plain."""
    known = store.environment
    secret = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    namespace.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": namespace.name},
            "stringData": {name: known[name] for name in secret},
        }
    )
    file = namespace.folder / "store.yaml"
    tree = {
        "storage": {
            "url": f"s3://{BUCKET}/{namespace.name}",
            "endpoint": known["AWS_ENDPOINT_URL"],
            "region": known["AWS_REGION"],
            "objectStoreSecret": SECRET,
        },
        "networkPolicy": {"egressTo": [{"to": [{"ipBlock": {"cidr": f"{DNS}/32"}}]}]},
    }
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.mark.parametrize(
    "backend", [pytest.param(b, marks=pytest.mark.smoke if b == "job" else ()) for b in BACKENDS]
)
def test_a_run_survives_all_of_its_pods(
    namespace: Namespace, store: Server, values: Path, backend: str
) -> None:
    namespace.submit("gwpf-digits", "--backend", backend, *RESUMED, "--values", str(values))
    namespace.wait_for_round("gwpf-digits", 12)
    assert namespace.get("pvc")["items"] == [], "nothing is shared"
    mine = "--selector=app.kubernetes.io/instance=gwpf-digits"
    namespace.kubectl("delete", "pod", mine, "--grace-period=0", "--force")
    logged = until(
        lambda: namespace.fedctl("logs", "gwpf-digits", exit_code=None).stdout,
        lambda log: "from round " in log and "from round 1\n" not in log,
        180,
    )
    assert int(logged.split("from round ")[1].split()[0]) > 5, logged
    namespace.fedctl("wait", "gwpf-digits", "--timeout", patience.text(360), seconds=400)
    files = store.files(f"{namespace.name}/gwpf-digits")
    rows = [json.loads(line) for line in files["metrics.jsonl"].read_text().splitlines()]
    rounds = [row["round"] for row in rows]
    assert rounds[-1] == 100 and rounds == sorted(rounds) and rows[-1]["final"]
    assert manifest.whole_model(files["model.safetensors"])
    for rank in range(2):
        assert json.loads(files[f"logs/rank-{rank}.json"].read_text())["status"] == "finished"
    kept = [path for name, path in files.items() if name.endswith(f"/{manifest.NAME}")]
    for path in kept:
        for name, seal in manifest.read(path.parent).files.items():
            manifest.check(path.parent / name, seal, name)
    assert len(kept) == 2
    namespace.fedctl("fetch", "gwpf-digits", "--what", "all", "--out", "fetched")
    fetched = namespace.folder / "fetched"
    for name, path in files.items():
        assert (fetched / name).read_bytes() == path.read_bytes(), name


@pytest.mark.smoke
def test_a_store_that_refuses_is_told_by_status(
    namespace: Namespace, store: Server, values: Path
) -> None:
    tree = yaml.safe_load(values.read_text())
    tree["storage"]["objectStoreSecret"] = ""
    tree["env"] = {"AWS_METADATA_ENDPOINT": "http://127.0.0.1:1"}
    values.write_text(yaml.safe_dump(tree))
    namespace.submit("gwpf-digits", "--backend", "job", "--ranks", "2", "--values", str(values))
    namespace.wait_for("gwpf-digits", "Failed")
    told = namespace.fedctl("status", "gwpf-digits").stdout
    url = f"s3://{BUCKET}/{namespace.name}/gwpf-digits"
    assert f"{url}: no credentials were given" in " ".join(told.split()), told
