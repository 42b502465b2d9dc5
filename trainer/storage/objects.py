"""Files by name under a URL of an object store (s3://, gs://); no other module knows obstore.

A file is stored whole or not at all. Each request has a time limit, and is repeated a few times.
What fails is told in one line with the URL, which has no secrets: those are in the environment, in
the variables that each store's own tools read.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

from trainer.config.errors import ConfigError, EnvironmentFault, install
from trainer.files import partial_of

VARIABLE = "FEDCTL_RUN_URL"  # where the run is kept, if not in its folder
URL = re.compile(r"(s3|gs)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*/?")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
PIECE = 16 << 20  # bytes of one request; larger files take several
AT_ONCE = 8  # files under way
CLIENT = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(seconds=60)}
RETRY: Any = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}

BUCKET = re.compile("NoSuchBucket|bucket does not exist", re.IGNORECASE)
# where clients look for credentials when the environment has none
NONE_GIVEN = re.compile(r"/latest/api/token|/latest/meta-data|metadata\.google|computeMetadata")
DENIED = re.compile(
    "status code: 40[13]|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|UserNotFound"
)
CODE = re.compile(r"<Code>(\w+)</Code>")


class Refused(EnvironmentFault):
    """The store does not let us in, which no repetition changes."""


class Objects:
    """The files under one URL."""

    def __init__(self, url: str) -> None:
        """Only prepare; nothing is requested yet."""
        if not URL.fullmatch(url):
            raise ConfigError(
                VARIABLE,
                "is not s3://BUCKET/PATH or gs://BUCKET/PATH; put credentials in their own "
                "variables, such as AWS_ACCESS_KEY_ID",
            )
        self.url = url.rstrip("/")
        self.failed = False  # whether a request has failed for good
        try:
            import obstore
            from obstore import store
        except ImportError:
            raise ConfigError(
                VARIABLE,
                f"{self.url} needs obstore, which is not installed; {install('remote')}",
            ) from None
        self._obstore: Any = obstore
        options: Any = CLIENT
        if any(os.environ.get(name, "").startswith("http://") for name in ENDPOINTS):
            options = CLIENT | {"allow_http": True}
        with self._asking():
            self._store = store.from_url(self.url, client_options=options, retry_config=RETRY)

    def check(self) -> None:
        """Raise a ConfigError if the store does not let us in."""
        try:
            self.names("nothing")
        except Refused as error:
            raise ConfigError(VARIABLE, str(error)) from None

    # ------------------------------------------------------------------ files

    def names(self, below: str = "") -> dict[str, int]:
        """Return the files in a folder and in those in it, by full name, with their lengths."""
        with self._asking():
            pages = self._obstore.list(self._store, below or None, chunk_size=1000)
            return {item["path"]: item["size"] for page in pages for item in page}

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, None if there is no such file."""
        with suppress(FileNotFoundError), self._asking():
            return bytes(self._obstore.get(self._store, name).bytes())
        return None

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        return self._size(name) is not None

    def fetch(self, name: str, path: Path) -> bool:
        """Copy a file to this disk; return False, and leave no file, if there is none."""
        # in place only when it is complete; ranks on one machine may fetch the same file
        partial = partial_of(path)
        with partial.open("wb") as file:
            try:
                found = self._copy(name, file)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        if found:
            partial.replace(path)
        else:
            partial.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        return found

    def _copy(self, name: str, file: BinaryIO) -> bool:
        size = self._size(name)
        if size is None:
            return False
        with suppress(FileNotFoundError), self._asking():
            for start in range(0, size, PIECE):
                length = min(PIECE, size - start)
                file.write(self._obstore.get_range(self._store, name, start=start, length=length))
            return True
        return False

    def _size(self, name: str) -> int | None:
        with suppress(FileNotFoundError), self._asking():
            return int(self._obstore.head(self._store, name)["size"])
        return None

    def put(self, name: str, content: Path | bytes) -> None:
        """Store a file whole, instead of what had the name before."""
        with self._asking():
            self._obstore.put(self._store, name, content, chunk_size=PIECE, max_concurrency=4)

    def delete(self, names: Iterable[str]) -> None:
        """Delete these files, in any order; one that does not exist is no error."""
        listed = list(names)
        with suppress(FileNotFoundError), self._asking():
            if listed:
                self._obstore.delete(self._store, listed)

    def put_all(self, files: Mapping[str, Path]) -> None:
        """Store several files, by name."""
        _several(self.put, files)

    def fetch_all(self, files: Mapping[str, Path]) -> None:
        """Copy several files to this disk, by name; those that do not exist are left out."""
        _several(self.fetch, files)

    # ------------------------------------------------------------------ errors

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if BUCKET.search(str(error)):
                raise self._fault(error) from None
            raise
        except self._obstore.exceptions.BaseError as error:
            raise self._fault(error) from None

    def _fault(self, error: Exception) -> EnvironmentFault:
        """Return what a person is told: the library's own text has requests and their ids."""
        self.failed = True
        text = str(error)
        if BUCKET.search(text):
            bucket = self.url.split("/")[2]
            return Refused(
                f"{self.url}: there is no bucket {bucket}; create it, or correct the URL"
            )
        if NONE_GIVEN.search(text):
            return Refused(
                f"{self.url}: no credentials were given; set those of your store, such as "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in a pod from a Secret"
            )
        names = ("PermissionDeniedError", "UnauthenticatedError")
        if type(error).__name__ in names or DENIED.search(text):
            return Refused(
                f"{self.url}: access is denied{_code(text)}; check the credentials, and that they "
                "may list, read, write and delete there"
            )
        return EnvironmentFault(
            f"{self.url}: the store cannot be used{_code(text) or f' ({_reason(text)})'}; check "
            "that it runs, and that its address (such as AWS_ENDPOINT_URL) can be reached from here"
        )


def _code(text: str) -> str:
    found = CODE.search(text)
    return f" ({found[1]})" if found else ""


def _reason(text: str) -> str:
    """Return the end of the first line, where the library says what has happened."""
    line = text.strip().partition("\n")[0].rpartition(" - ")[2]
    shown = "".join(letter for letter in line.partition("<")[0] if letter.isprintable())
    return shown.strip()[:120].rstrip(" :")


def _several(do: Callable[[str, Path], Any], files: Mapping[str, Path]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(do, files.keys(), files.values()):
            pass
