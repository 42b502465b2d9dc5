"""The image under test, built by scripts/image: some minutes, once per change.

make test-image
FEDCTL_IMAGE_BASE=docker.io/library/python:3.12-slim pytest -m image tests/image     on that base
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.image.engine import ROOT, Engine, Pods


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The image and what runs it; under CI the skip where nothing does is a failure."""
    for program in ("podman", "docker"):
        answers = (
            shutil.which(program)
            and not subprocess.run([program, "version"], capture_output=True).returncode
        )
        if answers:
            break
    else:
        pytest.skip("NOT TESTED, the image: neither podman nor docker is here and answers")
    return Engine(program, _built(program))


def _built(program: str, *words: str) -> str:
    """The name that scripts/image prints; what has been built is not built again."""
    base = os.environ.get("FEDCTL_IMAGE_BASE")
    if not base and os.geteuid() == 0 and shutil.which("debootstrap"):
        base = "debootstrap"  # needs no registry
    built = subprocess.run(
        [ROOT / "scripts/image", "cpu", *(["--base", base] if base else []), *words],
        env=os.environ | {"ENGINE": program},
        stdout=subprocess.PIPE,  # what it says on the way is for who waits
        text=True,
    )
    assert built.returncode == 0, "scripts/image failed: see above"
    return built.stdout.strip()


@pytest.fixture(scope="session")
def bill(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What scripts/image says is in the image."""
    path = tmp_path_factory.mktemp("sbom") / "sbom.json"
    assert _built(engine.program, "--sbom", str(path)) == engine.image
    tree: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return tree


@pytest.fixture
def pods(engine: Engine, tmp_path: Path) -> Iterator[Pods]:
    with Pods(engine, tmp_path) as run:
        yield run
