"""What the image is installed from: the versions that tests run on, each wheel by its hash."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PARTS = ("image-requirements.txt", "image-requirements-cpu.txt", "image-requirements-cuda.txt")


def pins(file: str) -> list[str]:
    """`name==version ; marker` of each requirement."""
    lines = (ROOT / file).read_text("utf-8").splitlines()
    return [line.rstrip(" \\") for line in lines if line and line[0] not in "# "]


def test_the_image_has_the_versions_that_the_tests_run_on() -> None:
    tested = set(pins("constraints.txt"))
    assert [pin for pin in pins(PARTS[0]) + pins(PARTS[2]) if pin not in tested] == []


def test_both_images_have_the_same_pytorch() -> None:
    cuda = {
        pin for pin in pins("image-requirements-cuda.txt") if pin.startswith(("torch=", "torchv"))
    }
    assert {f"{pin}+cpu" for pin in cuda} == set(pins("image-requirements-cpu.txt"))


@pytest.mark.parametrize("part", PARTS)
def test_every_requirement_has_its_hashes(part: str) -> None:
    text = (ROOT / part).read_text("utf-8").replace("\\\n", "")
    requirements = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert requirements
    wanted = re.compile(r"[a-z0-9-]+==\S+( ; .+?)?(\s+--hash=sha256:[0-9a-f]{64})+")
    assert [line for line in requirements if not wanted.fullmatch(line)] == []
