"""HTTP requests to an API server: credentials, time limits, and broken connections.

Login, TLS and the connection pool are the official client's.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from fedctl.cluster.api import errors, kubeconfig
from fedctl.errors import RunError

CONNECT_SECONDS, READ_SECONDS = 10, 30
MOST_LINE_BYTES = 1 << 24  # far above any object; a log without line breaks is cut
CONNECTIONS = 256  # that are kept open: a followed log has one for each rank
OWNER = "fedctl"  # the field manager


class Server:
    """An API server as a context of the kubeconfig reaches it."""

    def __init__(self, access: kubeconfig.Access) -> None:
        import urllib3
        from kubernetes.client import ApiClient
        from urllib3.util.retry import Retry

        self.context, self.namespace = access.context, access.namespace
        self._configuration = access.configuration
        self.server: str = self._configuration.host
        self._configuration.keep_alive = True
        # The client's default depends on the number of CPUs here; beyond it urllib3 warns on
        # stderr of each connection that it does not keep.
        self._configuration.connection_pool_maxsize = CONNECTIONS
        if not self._configuration.verify_ssl:  # as the kubeconfig asks, so no warning is needed
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._pool = ApiClient(self._configuration).rest_client.pool_manager
        # Retry only if the server asks for it: it has done nothing then.
        self._retries = Retry(
            total=4, connect=0, read=0, redirect=0, other=0, status=4, status_forcelist=[429],
            allowed_methods=None, raise_on_status=False, backoff_factor=0.3,
        )  # fmt: skip

    def json(self, method: str, path: str, **options: Any) -> Any:
        """Send a request and return the JSON in the answer."""
        return self.tree(self.raw(method, path, **options))

    def tree(self, answer: Any) -> Any:
        """Parse the JSON in an answer; raise for anything else, such as a proxy's login page."""
        try:
            return json.loads(answer.data)
        except ValueError:
            raise RunError(
                f"{self.server} (context {self.context}) does not answer like an API server; "
                "check the address of the context, and whether a proxy requires a login"
            ) from None

    def lines(
        self, method: str, path: str, *, query: Mapping[str, str], read_seconds: float | None
    ) -> Iterator[str]:
        """Yield the lines of an answer as they arrive; raise Unreachable if it is cut off."""
        import urllib3

        answer = self.raw(method, path, query=query, stream=True, read_seconds=read_seconds)
        rest = b""
        try:
            for piece in answer.stream(2**16, decode_content=True):
                *whole, rest = (rest + piece).split(b"\n")
                if len(rest) > MOST_LINE_BYTES:
                    whole, rest = [*whole, rest], b""
                for line in whole:
                    yield line.decode("utf-8", "replace")
            if rest:
                yield rest.decode("utf-8", "replace")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise errors.Unreachable(
                f"{self.server} closed the connection: {_why(error)}"
            ) from None
        finally:
            answer.close()

    def raw(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: str | None = None,
        content: str = "application/json",
        accept: str = "application/json, */*",
        stream: bool = False,
        read_seconds: float | None = READ_SECONDS,
    ) -> Any:
        """Send one request and return urllib3's response; raise errors in one line."""
        import urllib3

        headers = {"Accept": accept, "User-Agent": OWNER}
        if body is not None:
            headers["Content-Type"] = content
        if token := self._token():
            headers["Authorization"] = token
        words = f"?{urlencode(query)}" if query else ""
        try:
            answer = self._pool.request(
                method,
                f"{self.server}{path}{words}",
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
                retries=self._retries,
                preload_content=not stream,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from None
        if answer.status >= 400:
            refusal = answer.read() if stream else answer.data
            raise errors.of(answer.status, refusal, method=method, path=path, server=self.server)
        return answer

    def _token(self) -> str:
        """Return the Authorization header; the official client renews expired tokens."""
        settings = self._configuration.auth_settings()
        return str((settings.get("BearerToken") or {}).get("value") or "")

    def _unreachable(self, error: Exception) -> errors.Unreachable:
        cause = getattr(error, "reason", None) or error
        where = f"{self.server} (context {self.context})"
        text = str(cause).lower()
        if "ssl" in text or "certificate" in text:
            remedy = "check the address and the certificate authority of the context"
            if "expired" in text:
                remedy = "the certificate has expired; ask the cluster's administrator to renew it"
            return errors.Unreachable(f"{where}: no secure connection: {_why(cause)}; {remedy}")
        return errors.Unreachable(
            f"{where} cannot be reached: {_why(cause)}; check the network or VPN, or name another "
            "--context"
        )


def warnings(answer: Any) -> list[str]:
    """Return the server's warnings, from headers such as `Warning: 299 - "text"`."""
    found = []
    for text in answer.headers.getlist("Warning"):
        found += re.findall(r"\d{3} \S+ \"((?:[^\"\\]|\\.)*)\"", text)
    return [text.replace('\\"', '"').replace("\\\\", "\\") for text in found]


def _why(error: object) -> str:
    """Return the last part of a chain of causes, which is the one that people recognise."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^.*?(?:object at 0x\w+>|HTTPS?Connection\w*\([^)]*\)): ", "", text)
    text = text.removeprefix("Failed to establish a new connection: ")
    return re.sub(r"\[Errno -?\d+\] ", "", text).rstrip(".")
