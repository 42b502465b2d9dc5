"""Runs the image as a kubelet would: the chart's pods, with their rights and volumes, no more."""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tests import patience
from tests.charts import fedtrain

ROOT = Path(__file__).parent.parent.parent
NAME = "gwpf-digits"
RANKS = 2
USER = 10001


class Engine:
    """podman or docker, and the image's name."""

    def __init__(self, program: str, image: str) -> None:
        self.program, self.image = program, image
        self.environment = dict(os.environ)
        written = ROOT / ".tools/image/containers.conf"  # by scripts/image, where podman needs one
        if written.exists():
            self.environment.setdefault("CONTAINERS_CONF", str(written))

    def __call__(self, *words: object, fails: bool = False, seconds: float = 90) -> str:
        done = subprocess.run(
            [self.program, *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=patience.seconds(seconds),
        )
        assert fails or not done.returncode, f"{words}: {done.stderr}"
        return done.stdout + (done.stderr if words[0] == "logs" else "")

    def config(self) -> dict[str, Any]:
        (inspected,) = json.loads(self("image", "inspect", self.image))
        config: dict[str, Any] = inspected["Config"]
        return config

    def inside(self, code: str) -> Any:
        """What a Python program in the image prints, as JSON. As root, who may look everywhere."""
        words = ["run", "--rm", "--network", "none", "--user", "0:0", "--entrypoint", "python"]
        return json.loads(self(*words, self.image, "-c", code))


class Pods:
    """The pods of one run, as containers that share the run folder, as on a cluster's volume."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.runs = folder / "runs"
        self.runs.mkdir(mode=0o777)
        self.runs.chmod(0o777)
        self._prefix = f"fedctl-test-{uuid.uuid4().hex[:8]}"
        self._started: list[str] = []

    def __enter__(self) -> "Pods":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in self._started:
            if kind:
                print(f"--- {name}\n{self.engine('logs', name, fails=True)}")
            self.engine("rm", "--force", name, fails=True)

    @property
    def folder_of_run(self) -> Path:
        return self.runs / NAME

    def rows(self) -> list[dict[str, Any]]:
        """The rounds in metrics.jsonl, without what repeats the last one for the final model."""
        file = self.folder_of_run / "metrics.jsonl"
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        return [row for row in rows if not row.get("final")]

    def start(self, sets: list[str], ranks: range = range(RANKS)) -> list[str]:
        """A container for each of these ranks, made of the pod that the chart renders."""
        rendered = fedtrain.render(
            {"backend": "job", "image.reference": self.engine.image, "resources.gpus": 0},
            ranks=RANKS,
            sets=sets,
        )
        text = rendered[f"ConfigMap/{NAME}-experiment"]["data"]["experiment.json"]
        (self.folder / "experiment.json").write_text(text, "utf-8")
        (self.folder / "experiment.json").chmod(0o644)
        first, names = "127.0.0.1", []
        for rank in ranks:
            name = f"{self._prefix}-{len(self._started)}"
            self._started.append(name)
            names.append(name)
            self.engine(*self._words(fedtrain.pod(rendered)["spec"], rank, name, first))
            if rank == 0:
                first = self._address(name)
        return names

    def _words(self, spec: dict[str, Any], rank: int, name: str, first: str) -> list[str]:
        (container,) = spec["containers"]
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
        words = [
            "run",
            "--detach",
            "--name",
            name,
            "--read-only",
            "--workdir",
            container["workingDir"],
        ]
        words += ["--security-opt", "no-new-privileges", "--user", f"{USER}:{USER}"]
        words += [f"--cap-drop={right}" for right in rights["capabilities"]["drop"]]
        if self.engine.program == "podman":
            words += ["--read-only-tmpfs=false"]  # or it would mount more than the chart does
        for mount in container["volumeMounts"]:
            words += self._mount(mount["name"], mount["mountPath"])
        message = self.message(name)
        message.touch()
        message.chmod(0o666)
        words += ["--volume", f"{message}:{container['terminationMessagePath']}"]
        master = f"{NAME}-0.{NAME}"
        words += ["--add-host", f"{master}:{first}", "--env", f"JOB_COMPLETION_INDEX={rank}"]
        for variable in container["env"]:
            words += ["--env", f"{variable['name']}={variable['value']}"]
        if command := container.get("command"):
            words += ["--entrypoint", json.dumps(command)]
        return [*words, container["image"], *container["args"]]

    def _mount(self, volume: str, path: str) -> list[str]:
        match volume:
            case "experiment":
                return ["--volume", f"{self.folder}/experiment.json:{path}/experiment.json:ro"]
            case "runs":
                return ["--volume", f"{self.runs}:{path}"]
            case _:  # an emptyDir
                return ["--tmpfs", f"{path}:rw,mode=0777"]

    def _address(self, name: str) -> str:
        (inspected,) = json.loads(self.engine("inspect", name))
        settings = inspected["NetworkSettings"]
        networks = [network["IPAddress"] for network in (settings.get("Networks") or {}).values()]
        return next(filter(None, [settings.get("IPAddress"), *networks]))

    def message(self, name: str) -> Path:
        """Where a container leaves its termination message."""
        return self.folder / f"{name}.message"

    def ends(self, names: list[str]) -> list[int]:
        """The exit code of each, once all have ended."""
        return [int(self.engine("wait", name)) for name in names]

    def stop(self, name: str) -> None:
        self.engine("kill", "--signal", "TERM", name)

    def until(self, true: Callable[[], bool], names: list[str], seconds: float = 90) -> None:
        """Waits for it as long as all these containers run."""
        end = time.monotonic() + patience.seconds(seconds)
        while not true():
            for name in names:
                (inspected,) = json.loads(self.engine("inspect", name))
                assert inspected["State"]["Running"], f"{name} has ended"
            assert time.monotonic() < end, "nothing happened"
            time.sleep(0.2)
