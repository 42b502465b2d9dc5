"""The cluster that the tests of this folder share: one of ours, or the one that is named.

make test-cluster                                         builds and starts one on this machine
make test-cluster-smoke                                   the same, for the tests marked smoke
FEDCTL_TEST_KUBECONFIG=F FEDCTL_TEST_IMAGE=I pytest -m cluster tests/cluster
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import patience
from tests.cluster.harness import Kubernetes, Namespace
from tests.cluster.stack import leftovers
from tests.cluster.stack.cluster import Cluster
from tests.cluster.stack.parts import PROGRAMS, ROOT
from tests.cluster.stack.processes import Failed
from tests.tools import program

IMAGE = "localhost/fedctl-trainer:test"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            # Of the test alone: the first one also waits for the cluster to be built and started.
            item.add_marker(pytest.mark.timeout(patience.seconds(600), func_only=True))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Kubernetes]:
    if named := os.environ.get("FEDCTL_TEST_KUBECONFIG"):
        image = os.environ.get("FEDCTL_TEST_IMAGE")
        assert image, "FEDCTL_TEST_IMAGE must say which image of the trainer the cluster can pull"
        yield Kubernetes(Path(named), program("kubectl"), program("helm"), image)
        return
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip(
            "NOT TESTED: a cluster is made on Linux, by root; or name one in FEDCTL_TEST_KUBECONFIG"
        )
    chains = leftovers.chains()
    try:
        stack = Cluster()
    except Failed as error:
        pytest.skip(f"NOT TESTED, for want of a cluster: {error}")
    try:
        stack.up(image_archive())
        yield Kubernetes(
            stack.kubeconfig(), str(PROGRAMS / "kubectl"), program("helm"), IMAGE, stack
        )
    finally:
        stack.down()
    assert leftovers.chains() == chains, "a cluster leaves nothing behind"


def image_archive() -> Path:
    """The trainer's image as scripts/image builds it, once per change of what is in it."""
    archive = ROOT / ".tools" / "cluster-image.tar"
    words = [
        ROOT / "scripts/image",
        "cpu",
        "--base",
        "debootstrap",
        "--tag",
        IMAGE,
        "--out",
        archive,
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return archive


@pytest.fixture
def namespace(cluster: Kubernetes, tmp_path: Path) -> Iterator[Namespace]:
    made = Namespace(cluster, tmp_path)
    yield made
    made.close()
