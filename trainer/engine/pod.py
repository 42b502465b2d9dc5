"""Environment variables of a rank in a pod, and the message that it leaves there at its end.

They depend on where a rank runs, so they are not settings: an experiment has the same digest
on a laptop and on a cluster. docs/kubernetes.md lists them.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from trainer.config.errors import ConfigError
from trainer.files import as_json
from trainer.storage.objects import VARIABLE

TERMINATION_LOG = Path("/dev/termination-log")
LONGEST_LINE = 4096  # bytes; Kubernetes cuts off the rest, and truncated JSON cannot be read


@dataclass(frozen=True)
class Pod:
    """Values of the variables FEDCTL_...; None: not set."""

    metrics_host: str | None = None  # FEDCTL_METRICS_HOST: instead of metrics.host
    metrics_port: int | None = None  # FEDCTL_METRICS_PORT: this rank's, instead of metrics.port + k
    rendezvous_seconds: float | None = None  # FEDCTL_RENDEZVOUS_SECONDS: to reach rank 0
    deadline_seconds: float | None = None  # FEDCTL_DEADLINE_SECONDS: then checkpoint and end
    digest: str | None = None  # FEDCTL_DIGEST: the digest that the experiment must have
    run_url: str | None = None  # FEDCTL_RUN_URL: where the run is kept, instead of its folder


def read(environment: Mapping[str, str] = os.environ) -> Pod:
    """Read the variables of this process; an empty one counts as not set."""
    given = {name: text for name, text in environment.items() if text}
    port = _positive(given, "FEDCTL_METRICS_PORT")
    if port is not None and (port != int(port) or port > 65535):
        raise ConfigError("FEDCTL_METRICS_PORT", f"{port:g} is not a valid port; use 1 to 65535")
    return Pod(
        metrics_host=given.get("FEDCTL_METRICS_HOST"),
        metrics_port=None if port is None else int(port),
        rendezvous_seconds=_positive(given, "FEDCTL_RENDEZVOUS_SECONDS"),
        deadline_seconds=_positive(given, "FEDCTL_DEADLINE_SECONDS"),
        digest=given.get("FEDCTL_DIGEST"),
        run_url=given.get(VARIABLE),
    )


def _positive(given: Mapping[str, str], name: str) -> float | None:
    if name not in given:
        return None
    try:
        number = float(given[name])
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise ConfigError(name, f"{given[name]!r} is not a number above 0")
    return number


def termination_log(environment: Mapping[str, str] = os.environ) -> Path:
    """Return FEDCTL_TERMINATION_LOG, or Kubernetes' default; `read` may fail, and this cannot."""
    return Path(environment.get("FEDCTL_TERMINATION_LOG") or TERMINATION_LOG)


def version(environment: Mapping[str, str] = os.environ) -> str:
    """Return fedctl's version; an image holds only the trainer, and has it in FEDCTL_VERSION."""
    try:
        return metadata.version("fedctl")
    except metadata.PackageNotFoundError:
        return environment.get("FEDCTL_VERSION", "unknown")


class Deadline:
    """Time limit after which a rank saves a checkpoint and ends; None: no limit."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._start = time.monotonic()

    def passed(self) -> bool:
        return self.seconds is not None and time.monotonic() - self._start >= self.seconds


def leave_message(path: Path, record: Mapping[str, object]) -> None:
    """Write how this rank ended, as one line of JSON, to the file that the kubelet reads.

    Outside a pod there is no such file, and none is created.
    """
    names = ("rank", "status", "exit", "round", "message", "final")
    kept = {name: record[name] for name in names if name in record}
    message = str(kept["message"])

    def line() -> bytes:
        text = as_json(kept | {"message": message}, ensure_ascii=False)
        return text.encode("utf-8", "replace") + b"\n"

    while len(line()) > LONGEST_LINE:
        message = message[: len(message) * 3 // 4]
    try:
        if path.exists():
            path.write_bytes(line())
    except OSError:  # a message that cannot be written must not change how a run ends
        return
