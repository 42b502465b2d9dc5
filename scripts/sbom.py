"""The software bill of materials of an image, as CycloneDX JSON, from the tar of sbom_parts.py.

python -m scripts.sbom NAME VERSION IMAGE-ID <TAR

Python's packages are listed by cyclonedx-py, with licences and dependencies; Debian's are those
that dpkg has installed. What is printed has passed the library's strict validator.
"""

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

PYTHON = "python-version"  # as in sbom_parts.py, which nothing can be imported from


def python_packages(root: Path) -> Bom:
    """List the distributions whose metadata is below `root`."""
    places = sorted({str(path.parent.parent) for path in root.rglob("*-info/*")})
    # cyclonedx-py asks an interpreter where its packages are; the image's own cannot run here.
    interpreter = root / "interpreter"
    interpreter.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(places)}\nEND\n", "utf-8")
    interpreter.chmod(0o755)
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--no-validate"]  # `bill` does
    done = subprocess.run([*command, str(interpreter)], stdout=subprocess.PIPE, check=True)
    bom: Bom = Bom.from_json(json.loads(done.stdout))  # type: ignore[attr-defined]
    return bom


def debian_packages(root: Path) -> Iterator[Component]:
    """Yield the packages that dpkg has installed."""
    status = root / "var/lib/dpkg/status"
    if not status.exists():
        return
    about = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', (root / "etc/os-release").read_text(), re.M))
    system = f"{about['ID']}-{about.get('VERSION_ID', about.get('VERSION_CODENAME'))}"
    for stanza in status.read_text("utf-8").split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.M))
        if not fields.get("Status", "").endswith(" installed"):
            continue
        name, version = fields["Package"], fields["Version"]
        qualifiers = {"arch": fields["Architecture"], "distro": system}
        if source := re.match(r"(\S+)(?: \((.+)\))?", fields.get("Source", "")):
            # Debian's advisories name sources, whose versions may differ from the package's.
            qualifiers["upstream"] = f"{source[1]}@{source[2]}" if source[2] else source[1]
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            bom_ref=f"deb:{name}:{fields['Architecture']}",
            purl=PackageURL("deb", about["ID"], name, version, qualifiers),
        )


def image(name: str, version: str, number: str) -> Component:
    """Return what the bill is of."""
    return Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=version,
        bom_ref="image",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=number.removeprefix("sha256:"))],
    )


def bill(root: Path, subject: Component) -> str:
    """Return the bill of what sbom_parts.py found, as JSON."""
    bom = python_packages(root)
    number = (root / PYTHON).read_text("utf-8")
    interpreter = Component(
        type=ComponentType.APPLICATION,
        name="python",
        version=number,
        bom_ref="python",
        cpe=f"cpe:2.3:a:python:python:{number}:*:*:*:*:*:*:*",
        purl=PackageURL("generic", None, "python", number),
    )
    contents = [*bom.components, interpreter, *debian_packages(root)]
    bom.components.update(contents)
    bom.metadata.component = subject
    bom.register_dependency(subject, contents)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"sbom: the bill is not valid CycloneDX: {problem}")
    return text


def main() -> None:
    """Read the tar, print the bill."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as tar:
            for member in tar:
                member.name = member.name.lstrip("/")
                tar.extract(member, folder, filter="data")
        print(bill(Path(folder), image(*sys.argv[1:])))


if __name__ == "__main__":
    main()
