"""A real Prometheus on loopback, for tests: started on a configuration, asked, ended."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests import patience
from tests.tools import program

PATIENCE_SECONDS = patience.seconds(60)


class Prometheus:
    """What a running server answers."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **words: str) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(url, timeout=patience.seconds(10)) as answer:
            return json.load(answer)["data"]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready") as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    def query(self, expression: str, **words: str) -> list[dict[str, Any]]:
        """Series now: {"metric": labels, "value": [time, number as text]}."""
        return self.get("query", query=expression, **words)["result"]

    def rules(self) -> list[dict[str, Any]]:
        """All rules as the server sees them: their health, their last error."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


@contextmanager
def running(folder: Path, config: dict[str, Any]) -> Iterator[Prometheus]:
    """A server with its data in `folder`, on a port that it picks itself."""
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    log = folder / "prometheus.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (ready := re.search(r'msg="Listening on" address=(\S+)', log.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        server = Prometheus(ready[1])
        wait_until(server.ready, "a server that answers queries")  # it listens before
        yield server
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def wait_until(done: Callable[[], Any], what: str) -> Any:
    """What `done` returns once that is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (result := done()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:.0f} seconds: {what}"
        time.sleep(0.3)
    return result
