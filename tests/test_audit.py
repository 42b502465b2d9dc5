"""`scripts/audit` with the real pip-audit, against a server of ours that speaks OSV's API."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import patience

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
CLICK = next(line.partition("==")[2] for line in LOCK if line.startswith("click="))
KNOWN = ("pyyaml", "5.3")


class Service(ThreadingHTTPServer):
    """Knows some versions as vulnerable, and remembers which it was asked about."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.vulnerable = {KNOWN}
        self.asked: set[tuple[str, str]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/query"


class Answer(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pair = (asked["package"]["name"], asked["version"])
        self.server.asked.add(pair)
        found = {
            "id": "PYSEC-2099-1",
            "summary": "It is bad.",
            "affected": [{"package": {"name": pair[0], "ecosystem": "PyPI"}, "ranges": []}],
        }
        text = json.dumps({"vulns": [found]} if pair in self.server.vulnerable else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        yield server
        server.shutdown()


def audit(url: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [ROOT / "scripts/audit", *words],
        env=os.environ | {"OSV_URL": url, "SERVICES": "osv", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=patience.seconds(60),
    )


@pytest.mark.slow
def test_if_none_is_vulnerable_it_ends_in_0(service: Service) -> None:
    done = audit(service.url)
    assert done.returncode == 0, done.stderr


def test_every_locked_version_is_asked_about_and_a_vulnerable_one_named(service: Service) -> None:
    service.vulnerable.add(("click", CLICK))
    done = audit(service.url)
    assert done.returncode == 1
    assert "PYSEC-2099-1" in done.stdout and "click" in done.stdout
    locked = {tuple(line.split(" ")[0].split("==")) for line in LOCK if line[0] != "#"}
    assert service.asked == {KNOWN, *locked}


@pytest.mark.slow
def test_a_vulnerability_can_be_accepted_by_its_name(service: Service) -> None:
    service.vulnerable.add(("click", CLICK))
    assert audit(service.url, "--ignore-vuln", "PYSEC-2099-1").returncode == 0


def test_a_service_that_cannot_be_reached_ends_in_3_and_says_so(service: Service) -> None:
    done = audit("http://127.0.0.1:1/v1/query")
    assert done.returncode == 3
    assert "audit: osv cannot be reached (" in done.stderr and "pyyaml" not in done.stderr
    assert "NOTHING WAS LOOKED UP" in done.stderr


def test_a_service_that_knows_nothing_is_none(service: Service) -> None:
    """A mirror's "no such page" is "no vulnerability" to pip-audit."""
    service.vulnerable.clear()
    done = audit(service.url)
    assert done.returncode == 3
    assert "audit: osv does not know that pyyaml 5.3 is vulnerable" in done.stderr
    assert "NOTHING WAS LOOKED UP" in done.stderr
    assert service.asked == {KNOWN}


@pytest.mark.slow
def test_an_audit_that_fails_is_not_one_that_found_something(service: Service) -> None:
    assert audit(service.url, "--no-such-option").returncode == 2
