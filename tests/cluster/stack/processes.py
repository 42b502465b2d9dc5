"""Owns the cluster's processes: started with a log file, awaited, stopped in order."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests import patience


class Failed(Exception):
    """A part of the cluster did not come up; one line, with where its log is."""


class Processes:
    """What was started, so that it can be stopped the other way round."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, argv: Sequence[str | Path], **environment: str) -> None:
        with (self.logs / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is for us: we stop them in order
            )

    def wait(self, name: str, ready: Callable[[], bool], seconds: float = 90) -> None:
        """Return when `ready` says so; raise if the process ends, or the time is up."""
        seconds = patience.seconds(seconds)
        end = time.monotonic() + seconds
        while not ready():
            code = self.running[name].poll() if name in self.running else None
            if code is not None:
                raise Failed(f"{name} ended with {code}: {self.last_line(name)}")
            if time.monotonic() > end:
                raise Failed(f"{name} is not ready after {seconds:.0f} s; see {self.logs}")
            time.sleep(0.1)

    def last_line(self, name: str) -> str:
        lines = (self.logs / f"{name}.log").read_text("utf-8", "replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")

    def stop(self, name: str, seconds: float = 10) -> None:
        process = self.running.pop(name, None)
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def stop_all(self) -> None:
        """All at once, then one by one: a part of Kubernetes just ends at its second signal."""
        for process in reversed(self.running.values()):
            if process.poll() is None:
                process.terminate()
        for name in reversed(list(self.running)):
            self.stop(name)


def run(*argv: str | Path, given: bytes | str | None = None) -> str:
    """A command's output; its last line in the error if it fails."""
    text = given.encode() if isinstance(given, str) else given
    done = subprocess.run([str(word) for word in argv], input=text, capture_output=True)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip() or done.stdout.decode()
        raise Failed(f"{Path(str(argv[0])).name} {argv[1] if len(argv) > 1 else ''}: {said}")
    return done.stdout.decode()
