"""Owns what the cluster is made of: programs and manifests, built from the Go modules in tools/.

Built once per change of those modules, into .tools/cluster; from an empty cache that takes minutes.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.stack.processes import Failed, run

ROOT = Path(__file__).parents[3]
TOOLS = ROOT / "tools"
FOLDER = ROOT / ".tools" / "cluster"
PROGRAMS, MANIFESTS = FOLDER / "bin", FOLDER / "manifests"
MODULES = {  # folder in tools/ -> what is built there
    "kubernetes": ["tool"],
    "node": ["tool", "./pause"],
    "coredns": ["tool"],
}
# operator -> (module, its kustomization, program)
OPERATORS = {
    "training-operator": (
        "github.com/kubeflow/training-operator",
        "manifests/overlays/standalone",
        "training-operator.v1",
    ),
    "trainer": (
        "github.com/kubeflow/trainer/v2",
        "manifests/overlays/manager",
        "trainer-controller-manager",
    ),
    "jobset": ("sigs.k8s.io/jobset", "config/default", "jobset"),
    "kueue": ("sigs.k8s.io/kueue", "config/default", "kueue"),
}
# Trainer's kustomization fetches JobSet's manifests; ours are JobSet's own.
FETCHED = "  - ../../third-party/jobset"
CONFIGURED = {  # what we change in the operators' own settings
    '# - "kubeflow.org/pytorchjob"': '- "kubeflow.org/pytorchjob"',  # off since Kueue 0.19
    "leaderElect: true": "leaderElect: false",  # one of each: a slow machine loses no lease
}


def ensure() -> None:
    """Build what is not there, or not of these modules; raise `Failed` where that can't be."""
    stamp, wanted = FOLDER / "built", digest(__file__, MODULES)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if shutil.which("go") is None:
        raise Failed(
            "the cluster is built from Go modules, and go (1.26 or newer) is not installed"
        )
    shutil.rmtree(FOLDER, ignore_errors=True)
    PROGRAMS.mkdir(parents=True)
    MANIFESTS.mkdir()
    for module, packages in MODULES.items():
        _install(module, packages)
    shutil.copy(run(ROOT / "scripts/tools", "runc").strip(), PROGRAMS / "runc")
    for operator in OPERATORS:
        (MANIFESTS / f"{operator}.json").write_text(json.dumps(_manifest(operator)))
    shutil.rmtree(FOLDER / "kustomize")
    stamp.write_text(wanted)


def digest(builder: str, modules: Iterable[str]) -> str:
    """Of what decides what is built: these folders of tools/, and the file that builds them."""
    made_of = [p for module in modules for p in (TOOLS / module).rglob("*") if p.is_file()]
    parts = [Path(builder), *sorted(made_of)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in parts)).hexdigest()


def _install(module: str, packages: list[str]) -> None:
    where = TOOLS / module
    flags = "-s -w"
    if module == "kubernetes":  # else its programs call themselves v0.0.0
        version = go(where, "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes").strip()
        major, minor = version.removeprefix("v").split(".")[:2]
        named = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
        flags += "".join(f" -X k8s.io/component-base/version.{k}={v}" for k, v in named.items())
    print(f"building tools/{module} ...", flush=True)
    for package in packages:
        go(where, "install", "-trimpath", "-ldflags", flags, package)


def _manifest(operator: str) -> dict[str, Any]:
    """The operator's own manifests, as its kustomization builds them, fit for a small machine."""
    module, overlay, _program = OPERATORS[operator]
    origin = Path(go(TOOLS / "kubernetes", "list", "-m", "-f", "{{.Dir}}", module).strip())
    top = overlay.split("/")[0]
    copy = FOLDER / "kustomize" / operator
    shutil.copytree(origin / top, copy / top, copy_function=shutil.copyfile)
    for path in [copy / top, *(copy / top).rglob("*")]:  # modules are read-only
        path.chmod(0o755 if path.is_dir() else 0o644)
    file = copy / overlay / "kustomization.yaml"
    lines = file.read_text("utf-8").splitlines()
    file.write_text("\n".join(line for line in lines if not line.startswith(FETCHED)) + "\n")
    text = run(PROGRAMS / "kubectl", "kustomize", copy / overlay)
    objects = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
    # Kueue's extension of the API needs certificates that this API server does not give out.
    objects = [item for item in objects if item["kind"] != "APIService"]
    for item in objects:
        if item["kind"] == "Deployment":
            _fit(item["spec"]["template"]["spec"]["containers"][0], operator)
        if item["kind"] == "ConfigMap":
            for old, new in CONFIGURED.items():
                item["data"] = {k: v.replace(old, new) for k, v in item["data"].items()}
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def _fit(container: dict[str, Any], operator: str) -> None:
    """Our image of the same program, and patience: ranks may have all of the machine's CPUs."""
    # A request of CPU is a weight against theirs; with none a webhook starves.
    asks = {"requests": {"cpu": "200m"}}
    container |= {"image": image(operator), "imagePullPolicy": "Never", "resources": asks}
    container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 2}
    for probe in ("readinessProbe", "livenessProbe"):
        container[probe] |= {"timeoutSeconds": 10, "failureThreshold": 6}


def image(operator: str) -> str:
    """Its name, with the version of its module."""
    versions = dict(
        line.split()[:2]
        for line in (TOOLS / "kubernetes/go.mod").read_text("utf-8").splitlines()
        if line.startswith("\t") and " v" in line
    )
    return f"localhost/{operator}:{versions[OPERATORS[operator][0]]}"


def go(where: Path, *words: str, programs: Path = PROGRAMS) -> str:
    done = subprocess.run(
        ["go", *words],
        cwd=where,
        env={**os.environ, "CGO_ENABLED": "0", "GOBIN": str(programs)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failed(f"go {words[0]} in tools/{where.name}: {done.stderr.strip()[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    ensure()
