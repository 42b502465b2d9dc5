"""What is in the image and what is not: rights, tools, traces of the machine that built it."""

import tomllib
from typing import Any

import pytest

from tests import patience
from tests.image.engine import ROOT, USER, Engine

# The first waits for the build.
pytestmark = [pytest.mark.image, pytest.mark.timeout(patience.seconds(1800))]

# All that is in the image's own file system; mounts are of the engine.
WALK = """
import json, os, stat
found = []
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if not os.path.ismount(os.path.join(folder, name))]
    for name in folders + files:
        path = os.path.join(folder, name)
        about = os.lstat(path)
        if {}:
            found.append(path)
print(json.dumps(found))
"""


def found(engine: Engine, condition: str) -> list[str]:
    paths: list[str] = engine.inside(WALK.format(condition))
    return paths


def test_it_runs_as_a_user_without_rights_and_ends_on_sigterm(engine: Engine) -> None:
    config = engine.config()
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["dumb-init", "--single-child", "--", "python", "-m", "trainer"]
    assert config.get("StopSignal") in (None, "", "SIGTERM", "15")


def test_its_labels_say_what_it_is(engine: Engine) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    labels = engine.config()["Labels"]
    said = {
        name: labels[f"org.opencontainers.image.{name}"]
        for name in ("title", "version", "licenses")
    }
    assert said == {
        "title": "fedctl-trainer",
        "version": project["version"],
        "licenses": project["license"],
    }
    assert {"revision", "created", "source"} <= {name.rpartition(".")[2] for name in labels}


def test_no_file_gives_its_caller_the_rights_of_another(engine: Engine) -> None:
    assert found(engine, "stat.S_ISREG(about.st_mode) and about.st_mode & 0o6000") == []


def test_nobody_can_write_where_all_can_but_for_sticky_folders(engine: Engine) -> None:
    writable = "about.st_mode & 0o002 and not about.st_mode & stat.S_ISVTX"
    assert found(engine, f"not stat.S_ISLNK(about.st_mode) and {writable}") == []


def test_nothing_but_the_mount_points_is_the_trainers_own(engine: Engine) -> None:
    assert found(engine, f"about.st_uid == {USER}") == ["/data", "/runs"]


def test_it_has_no_cache_and_nothing_that_builds_or_installs_into_it(engine: Engine) -> None:
    names = ["pip", "uv", "hatchling", "gcc", "cc", "g++", "make", "curl", "wget", "git"]
    code = f"import json, shutil; print(json.dumps([n for n in {names} if shutil.which(n)]))"
    assert engine.inside(code) == []
    caches = found(engine, 'name in (".cache", "pip-cache") or path == "/var/cache/pip"')
    assert caches == []
    assert found(engine, 'path.startswith("/build")') == []
    packages = (
        'path.startswith("/opt/venv/") and name in ("pip", "tests") and "/numpy/" not in path'
    )
    assert found(engine, packages) == []


def test_bytecode_is_there_for_what_a_rank_imports(engine: Engine) -> None:
    code = """
import json, sys
import trainer.__main__
print(json.dumps([m.__name__ for m in list(sys.modules.values())
    if (spec := getattr(m, "__spec__", None)) and spec.cached and spec.origin.endswith(".py")
    and spec.origin.startswith("/opt") and not __import__("os").path.exists(spec.cached)]))
"""
    assert engine.inside(code) == []


def test_nothing_of_the_machine_that_built_it_is_in_it(engine: Engine) -> None:
    configuration = 'name in ("pip.conf", ".netrc", ".pypirc", ".git-credentials")'
    assert found(engine, f'{configuration} or path.startswith("/run/secrets/")') == []
    variables = [pair.partition("=")[0] for pair in engine.config()["Env"]]
    secret = ("PIP_", "INDEX", "PROXY", "CERT", "TOKEN", "PASSWORD")
    assert [name for name in variables if any(word in name.upper() for word in secret)] == []
    history = engine("history", "--no-trunc", "--format", "{{.CreatedBy}}", engine.image)
    assert "image_venv" not in history  # with its arguments, an index among them
    assert "COPY" in history


def test_its_bill_of_materials_lists_what_python_and_dpkg_say_is_there(
    engine: Engine, bill: dict[str, Any]
) -> None:
    kinds: dict[str, set[tuple[str, str]]] = {"pypi": set(), "deb": set(), "generic": set()}
    for part in bill["components"]:
        kinds[part["purl"].split(":")[1].split("/")[0]].add((part["name"], part["version"]))
    python = """
import importlib.metadata, json, platform
found = [[d.name, d.version] for d in importlib.metadata.distributions()]
print(json.dumps([*found, ["python", platform.python_version()]]))
"""
    installed = {(name, version) for name, version in engine.inside(python)}
    assert installed <= kinds["pypi"] | kinds["generic"]
    debian = """
import json, subprocess
form = "${db:Status-Status} ${Package} ${Version}\\n"
done = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True)
rows = map(str.split, done.stdout.splitlines())
print(json.dumps([row[1:] for row in rows if row[0] == "installed"]))
"""
    assert kinds["deb"] == {(name, version) for name, version in engine.inside(debian)}
    assert {"torch", "numpy"} <= {name for name, _ in kinds["pypi"]}
    (digest,) = bill["metadata"]["component"]["hashes"]
    assert digest["content"] in engine("image", "inspect", "--format", "{{.Id}}", engine.image)
