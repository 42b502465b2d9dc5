"""The bill of materials: what sbom_parts.py finds, and what sbom.py makes of it."""

import importlib.metadata
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from scripts import sbom

ROOT = Path(__file__).parent.parent
PARTS = (ROOT / "scripts/sbom_parts.py").read_text("utf-8")
NUMBER = "ab" * 32

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u14
Description: GNU C Library
 with Package: in its
 description

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2026a-0
"""
RELEASE = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'


def run(code: list[str], stdin: bytes = b"") -> bytes:
    done = subprocess.run([sys.executable, *code], input=stdin, capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Python packages of this machine, one of which needs the other, and some of Debian's."""
    root = tmp_path_factory.mktemp("image")
    for name in ("jinja2", "markupsafe"):
        metadata = importlib.metadata.distribution(name).read_text("METADATA")
        folder = root / f"opt/venv/lib/python3.12/site-packages/{name}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(str(metadata), "utf-8")
        (folder / "RECORD").write_text("left out")
    for path, text in (("var/lib/dpkg/status", STATUS), ("usr/lib/os-release", RELEASE)):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(text)
    (root / "etc").mkdir()
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    return root


def of_root(root: Path) -> bytes:
    """The tar of an image whose root is a folder here."""
    there = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(run(["-c", PARTS, str(root)]))) as tar,
        tarfile.open(fileobj=there, mode="w") as moved,
    ):
        for member in tar:
            content = tar.extractfile(member)
            member.name = f"/{member.name.removeprefix(str(root).lstrip('/')).lstrip('/')}"
            member.pax_headers = {}  # the name again, if it is long
            moved.addfile(member, content)
    return there.getvalue()


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    words = ["-m", "scripts.sbom", "fedctl-trainer", "0.1.0", f"sha256:{NUMBER}"]
    return run(words, of_root(root)).decode()


@pytest.fixture(scope="module")
def bill(text: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(text)
    return tree


def test_only_metadata_is_taken_and_links_are_followed(root: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(of_root(root))) as tar:
        names = {member.name.lstrip("/"): member for member in tar}
        assert all(member.isreg() for member in names.values())
    site = "opt/venv/lib/python3.12/site-packages"
    assert {*names} == {
        "etc/os-release",
        "python-version",
        "var/lib/dpkg/status",
        f"{site}/jinja2.dist-info/METADATA",
        f"{site}/markupsafe.dist-info/METADATA",
    }


def test_the_bill_passes_the_librarys_own_validator(text: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.replace("pkg:", "")) is None
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.replace('"type"', '"x"'))


def test_it_lists_python_its_packages_and_those_that_dpkg_has_installed(
    bill: dict[str, Any],
) -> None:
    versions = {name: importlib.metadata.version(name) for name in ("jinja2", "markupsafe")}
    here = ".".join(map(str, sys.version_info[:3]))
    assert {part["purl"] for part in bill["components"]} == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12&upstream=glibc%402.36-9",
        "pkg:deb/debian/tzdata@2026a-0?arch=all&distro=debian-12",
        f"pkg:generic/python@{here}",
        f"pkg:pypi/jinja2@{versions['jinja2']}",
        f"pkg:pypi/markupsafe@{versions['markupsafe']}",
    }


def test_it_says_what_it_is_of_and_what_needs_what(bill: dict[str, Any]) -> None:
    subject = bill["metadata"]["component"]
    assert (subject["type"], subject["name"], subject["version"]) == (
        "container",
        "fedctl-trainer",
        "0.1.0",
    )
    assert subject["hashes"] == [{"alg": "SHA-256", "content": NUMBER}]
    needs = {part["ref"]: set(part.get("dependsOn", [])) for part in bill["dependencies"]}
    assert needs["image"] == {part["bom-ref"] for part in bill["components"]}
    (jinja,) = (ref for ref in needs if ref.lower().startswith("jinja2"))
    assert [ref.lower().split("=")[0] for ref in needs[jinja]] == ["markupsafe"]


def test_packages_have_their_licences(bill: dict[str, Any]) -> None:
    parts = [part for part in bill["components"] if part["purl"].startswith("pkg:pypi")]
    assert parts and all(part.get("licenses") for part in parts)


def test_everything_in_this_environment_is_found(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(run(["-c", PARTS, sys.prefix]))) as tar:
        tar.extractall(tmp_path, filter="data")
    found = {(part.name, part.version) for part in sbom.python_packages(tmp_path).components}
    site = [path for path in sys.path if path.startswith(sys.prefix)]
    mine = {(d.metadata["Name"], d.version) for d in importlib.metadata.distributions(path=site)}
    assert len(mine) > 100 and mine <= found


ENGINE = """#!/bin/sh
case "$1 $2" in
    "version "*) ;;
    "images --quiet") echo abc ;;
    "tag abc") ;;
    "image inspect") echo sha256:{number} ;;
    "run --rm")
        while [ "$1" != -c ]; do echo "$1" >>{words}; shift; done
        exec {python} -c "$2" {root} ;;
    *) echo "not foreseen: $*" >&2; exit 1 ;;
esac
"""


def test_scripts_image_writes_it_of_the_image_that_it_names(root: Path, tmp_path: Path) -> None:
    """With an engine of ours, which has the image already and runs its Python here."""
    words, path = tmp_path / "words", tmp_path / "out/sbom.json"
    program = tmp_path / "docker"
    program.write_text(
        ENGINE.format(number=NUMBER, words=words, python=sys.executable, root=root), "utf-8"
    )
    program.chmod(0o755)
    environment = os.environ | {
        "ENGINE": "docker", "TORCH": "cpu", "PATH": f"{tmp_path}:{os.environ['PATH']}"
    }  # fmt: skip
    done = subprocess.run(
        [ROOT / "scripts/image", "cpu", "--tag", "here/trainer:1", "--sbom", str(path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "here/trainer:1\n"), done.stderr
    subject = json.loads(path.read_text("utf-8"))["metadata"]["component"]
    assert (subject["name"], subject["hashes"][0]["content"]) == ("here/trainer", NUMBER)
    assert {"none", "0:0", "here/trainer:1"} <= {*words.read_text().split()}
