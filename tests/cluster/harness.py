"""Owns what a test asks of a cluster: kubectl and fedctl as people run them, in a fresh namespace.

Nothing here knows whose cluster it is, but for `stack`: the one of ours, if it is.
"""

import itertools
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests import patience
from tests.cluster.stack.cluster import Cluster

SMALL = Path(__file__).parent / "small.yaml"
T = TypeVar("T")
BACKENDS = ("pytorchjob", "trainjob", "job")
# Long enough to be interrupted, with a checkpoint every so often.
LONG = ("--set", "rounds=100000", "--set", "checkpoint.every=5", "--set", "evaluation.every=5")
MAIN = "from fedctl.cli import main; main()"
JOBS = {"pytorchjob": "pytorchjob", "trainjob": "trainjob", "job": "job.batch"}


@dataclass(frozen=True)
class Kubernetes:
    """A cluster, and the image of the trainer that its nodes have or can pull."""

    kubeconfig: Path
    kubectl_program: str
    helm: str
    image: str
    stack: Cluster | None = None

    def kubectl(self, *words: str, check: bool = True, given: str | None = None) -> str:
        argv = [self.kubectl_program, f"--kubeconfig={self.kubeconfig}", *words]
        done = subprocess.run(
            argv, capture_output=True, text=True, input=given, timeout=patience.seconds(300)
        )
        if check:
            assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def get(self, *words: str) -> dict[str, Any]:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        tree = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "-f", "-", given=json.dumps(tree))


class Namespace:
    """A namespace under Pod Security `restricted`, and fedctl in it."""

    def __init__(self, cluster: Kubernetes, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.name = f"t-{uuid.uuid4().hex[:8]}"
        levels = {f"pod-security.kubernetes.io/{m}": "restricted" for m in ("enforce", "warn")}
        about = {"name": self.name, "labels": levels}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": about})

    def close(self) -> None:
        self.cluster.kubectl("delete", "namespace", self.name, "--wait=false", check=False)

    def kubectl(self, *words: str, check: bool = True) -> str:
        return self.cluster.kubectl("--namespace", self.name, *words, check=check)

    def get(self, *words: str) -> dict[str, Any]:
        return self.cluster.get("--namespace", self.name, *words)

    def fedctl(
        self,
        *words: str,
        exit_code: int | None = 0,
        kubeconfig: Path | None = None,
        seconds: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run fedctl; `exit_code`: what it must end with, None: whatever."""
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *words, "--namespace", self.name],
            env=self.environment(kubeconfig),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=patience.seconds(seconds),
        )
        said = f"fedctl {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, said
        assert exit_code is None or done.returncode == exit_code, said
        return done

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        config = str(kubeconfig or self.cluster.kubeconfig)
        root = str(Path(__file__).parents[2])
        return {
            **os.environ,
            "KUBECONFIG": config,
            "FEDCTL_HELM": self.cluster.helm,
            "PYTHONPATH": root,
        }

    def submit(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """The smallest run that four ranks train; later words override."""
        small = ("--gpus", "0", "--ranks", "4", "--image", self.cluster.image)
        return self.fedctl("submit", *small, "--values", str(SMALL), *words, **options)

    def status(self, run: str) -> dict[str, Any]:
        return json.loads(self.fedctl("status", run, "-o", "json").stdout)

    def wait_for(
        self, run: str, states: str | tuple[str, ...], seconds: float = 180
    ) -> dict[str, Any]:
        """Until `fedctl status` says one of the states."""
        wanted = (states,) if isinstance(states, str) else states
        return until(lambda: self.status(run), lambda now: now["state"] in wanted, seconds)

    def round_of(self, run: str) -> int:
        """The last round that rank 0's log tells; 0 before the first."""
        told = self.fedctl("logs", run, "--tail", "50", exit_code=None).stdout.split()
        rounds = [after for word, after in itertools.pairwise(told) if word == "round"]
        return int(rounds[-1].split("/")[0]) if rounds else 0

    def wait_for_round(self, run: str, number: int, seconds: float = 180) -> int:
        return until(lambda: self.round_of(run), lambda now: now >= number, seconds)


def until(ask: Callable[[], T], good: Callable[[T], bool], seconds: float = 120) -> T:
    """Ask until the answer is good; fail with the last answer."""
    seconds = patience.seconds(seconds)
    end = time.monotonic() + seconds
    while not good(answer := ask()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s; last: {answer}"
        time.sleep(0.5)
    return answer
