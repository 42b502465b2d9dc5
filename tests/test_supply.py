"""What fedctl is built from, reviewed without a network: ranges, locks, Go modules, the base image.

The image's own locks are reviewed in tests/image/test_locks.py; `make audit` needs a network.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "pyproject.toml").read_text("utf-8")
PROJECT = tomllib.loads(TEXT)["project"]
LOCKS = ("constraints.txt", *sorted(path.name for path in ROOT.glob("image-requirements*.txt")))
MODULES = sorted((ROOT / "tools").glob("*/go.mod"))

GROUPS = {
    "build-system": tomllib.loads(TEXT)["build-system"]["requires"],
    "dependencies": PROJECT["dependencies"],
    **PROJECT["optional-dependencies"],
}


def requirements(*groups: str) -> Iterator[Requirement]:
    """Those of pyproject.toml, without fedctl's own extras."""
    for group in groups or GROUPS:
        for text in GROUPS[group]:
            requirement = Requirement(text)
            if requirement.name != PROJECT["name"]:
                yield requirement


def locked(lock: str) -> dict[str, set[Version]]:
    """The versions of each package: several where Pythons need different ones."""
    found: dict[str, set[Version]] = {}
    for line in (ROOT / lock).read_text("utf-8").splitlines():
        if match := re.match(r"([\w.-]+)==([^\s;\\]+)", line):
            found.setdefault(canonicalize_name(match[1]), set()).add(Version(match[2]))
    return found


def bounded(requirement: Requirement) -> bool:
    """Whether the range has both ends."""
    signs = {clause.operator for clause in requirement.specifier}
    return signs == {"=="} or signs == {">=", "<"}


def test_every_dependency_has_a_range_with_two_ends() -> None:
    assert [str(found) for found in requirements() if not bounded(found)] == []


def test_what_is_no_range_is_recognised() -> None:
    for text in ("a", "a>=1", "a<2", "a~=1.0", "a>=1,!=1.5", "a @ https://host/a.whl"):
        assert not bounded(Requirement(text)), text
    for text in ("a==1", "a>=1,<2"):
        assert bounded(Requirement(text)), text


def test_every_dependency_has_its_reason_beside_it() -> None:
    listed = [text for group in GROUPS.values() for text in group]
    reason = r'"{}"[\],]*\s+# \S'
    assert [t for t in listed if not re.search(reason.format(re.escape(t)), TEXT)] == []


def test_a_package_that_is_listed_twice_has_one_range() -> None:
    ranges: dict[str, set[str]] = {}
    for requirement in requirements():
        ranges.setdefault(canonicalize_name(requirement.name), set()).add(
            str(requirement.specifier)
        )
    assert {name: found for name, found in ranges.items() if len(found) > 1} == {}


def test_the_lock_has_every_dependency_within_its_range() -> None:
    versions = locked("constraints.txt")
    groups = [name for name in GROUPS if name != "build-system"]  # pip takes it by its range
    wrong = [
        f"{requirement}: {sorted(map(str, versions.get(canonicalize_name(requirement.name), ())))}"
        for requirement in requirements(*groups)
        if not (mine := versions.get(canonicalize_name(requirement.name)))
        or not all(requirement.specifier.contains(version) for version in mine)
    ]
    assert wrong == []


def test_the_image_has_what_the_trainer_and_the_trackers_need() -> None:
    held = {*locked("image-requirements.txt"), *locked("image-requirements-cuda.txt")}
    asked = requirements("trainer", "tensorboard", "wandb", "mlflow", "image")
    assert {canonicalize_name(found.name) for found in asked} - held == set()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_versions_and_hashes_and_no_address_or_option(lock: str) -> None:
    """Neither URL, repository, path nor index: only the index that pip is given is asked."""
    allowed = re.compile(
        r"#.*|[a-z0-9][a-z0-9.-]*==[\w.+!]+( ; [^@]+?)?( \\)?|    --hash=sha256:[0-9a-f]{64}( \\)?"
    )
    lines = (ROOT / lock).read_text("utf-8").splitlines()
    assert [line for line in lines if line and not allowed.fullmatch(line)] == []


def test_no_dependency_comes_from_an_address_or_a_repository() -> None:
    assert [str(found) for found in requirements() if found.url] == []
    assert not {"sources", "index", "find-links"} & {*tomllib.loads(TEXT)["tool"].get("uv", {})}


def test_the_image_installs_by_hash_and_builds_nothing() -> None:
    (line,) = re.findall(
        r"^pip install (?:.*\\\n)*.*$", (ROOT / "scripts/image_venv").read_text("utf-8"), re.M
    )
    options = ("--require-hashes", "--no-deps", "--only-binary :all:")
    assert [option for option in options if option not in line] == []
    assert re.findall(r'-r "?([\w-]+)', line) == ["image-requirements", "image-requirements-"]


def test_the_base_image_is_named_by_digest_or_says_why_not() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    bases = re.findall(r"((?:^#.*\n)*)^(?:ARG BASE_IMAGE=|FROM )(\S+)", text, re.M)
    stages = {*re.findall(r"^FROM \S+ AS (\S+)", text, re.M), "${BASE_IMAGE}"}
    foreign = [(reason, image) for reason, image in bases if image not in stages]
    assert foreign
    assert [
        i for reason, i in foreign if "@sha256:" not in i and "not by digest:" not in reason
    ] == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.parent.name)
def test_every_go_module_is_pinned_by_its_sum(module: Path) -> None:
    text = module.read_text("utf-8")
    sums = {
        (name, version.removesuffix("/go.mod"))
        for name, version, _ in map(
            str.split, module.with_name("go.sum").read_text("utf-8").splitlines()
        )
    }
    # Kubernetes' own modules ask for v0.0.0 of each other, which go.mod replaces by a release.
    replaced = {
        name: (other, version)
        for name, other, version in re.findall(r"^(?:replace |\t)(\S+) => (\S+) (v\S+)", text, re.M)
    }
    assert len(replaced) == text.count("=>"), "a path, or one version only, in a module's place"
    assert [name for name, (other, _) in replaced.items() if name != other] == []
    required = re.findall(r"^(?:require |\t)([\w./~-]+\.[\w./~-]+) (v\S+)", text, re.M)
    pinned = [replaced.get(name, (name, version)) for name, version in required]
    assert pinned and [pair for pair in pinned if pair not in sums] == []


def test_no_go_module_is_without_a_sum() -> None:
    assert MODULES and [path for path in MODULES if not path.with_name("go.sum").exists()] == []
