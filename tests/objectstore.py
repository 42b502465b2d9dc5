"""A real S3 server for tests, in a process of its own: versitygw, whose objects are files here."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import patience
from tests.tools import program

ID, SECRET = "tests", "a-secret-of-the-tests"
BUCKET = "runs"


class Server:
    """The server: what a client needs to know of it, and its files."""

    def __init__(self, folder: Path, port: int, address: str = "127.0.0.1") -> None:
        self.folder, self.address = folder, f"{address}:{port}"
        self.bucket = folder / "objects" / BUCKET
        self.bucket.mkdir(parents=True, exist_ok=True)
        (folder / "about").mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "AWS_ACCESS_KEY_ID": ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            # no credentials: what is asked for them then is nobody, and not this machine's cloud
            "AWS_METADATA_ENDPOINT": "http://127.0.0.1:1",
        }

    def url(self, name: str) -> str:
        return f"s3://{BUCKET}/{name}"

    def files(self, name: str) -> dict[str, Path]:
        """The objects below a name, as the files in which the server has them."""
        top = self.bucket / name
        return {str(path.relative_to(top)): path for path in top.rglob("*") if path.is_file()}

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program("versitygw"), "--port", self.address, "--health", "/health", "--quiet",
                 "posix", "--sidecar", str(self.folder / "about"), str(self.folder / "objects")],
                env={**os.environ, "ROOT_ACCESS_KEY": ID, "ROOT_SECRET_KEY": SECRET},
                stdout=log,
                stderr=log,
            )  # fmt: skip
        until = time.monotonic() + patience.seconds(30)
        while not self._healthy():
            said = (self.folder / "log").read_text()
            assert self.process.poll() is None and time.monotonic() < until, said
            time.sleep(0.05)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/health", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def server(folder: Path, port: int, address: str = "127.0.0.1") -> Iterator[Server]:
    made = Server(folder, port, address)
    made.start()
    try:
        yield made
    finally:
        made.stop()
