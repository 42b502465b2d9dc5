"""A command that runs in a container, and its output, through the API server."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from fedctl.cluster.api import errors

STDOUT, STDERR, ENDED, CLOSED = 1, 2, 3, 255
MOST_STDERR_BYTES = 1 << 16
SILENCE_SECONDS = 300  # of a command that reads a slow disk


class Execution:
    """A running command: iterate over its stdout in bytes, then read `status` and `stderr`.

    The official client's own reader would keep all of it in memory.
    """

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._stderr = bytearray()
        self.status: int | None = None

    @property
    def stderr(self) -> str:
        """The command's stderr so far."""
        return self._stderr.decode("utf-8", "replace").strip()

    def __iter__(self) -> Iterator[bytes]:
        from websocket import ABNF, WebSocketException

        try:
            while True:
                kind, frame = self._socket.recv_data_frame(True)
                if kind == ABNF.OPCODE_CLOSE:
                    break
                if kind not in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) or not frame.data:
                    continue
                channel, data = frame.data[0], frame.data[1:]
                if channel == STDOUT and data:
                    yield data
                elif channel == STDERR:
                    self._stderr += data
                    del self._stderr[:-MOST_STDERR_BYTES]  # the end says why a command failed
                elif channel == ENDED:
                    self.status = _status(data)
        except (WebSocketException, OSError) as error:
            if self.status is None:
                raise errors.Unreachable(f"the command's output was cut off: {error}") from None
        finally:
            self.close()
        if self.status is None:
            raise errors.Unreachable("the command's output was cut off")

    def close(self) -> None:
        """Close the connection, which ends the command."""
        self._socket.close()
        self._socket.shutdown()  # close() does nothing once the server has announced the end


def start(configuration: Any, path: str, query: Sequence[tuple[str, str]], token: str) -> Execution:
    """Start the command that `query` names in the container at `path`."""
    from kubernetes.stream.ws_client import create_websocket, get_websocket_url
    from websocket import WebSocketBadStatusException, WebSocketException

    url = get_websocket_url(configuration.host + path, list(query))
    headers = {"authorization": token} if token else {}
    try:
        socket = create_websocket(configuration, url, headers)
    except WebSocketBadStatusException as error:
        body = getattr(error, "resp_body", None) or b""
        raise errors.of(error.status_code, bytes(body), method="GET", path=path) from None
    except (WebSocketException, OSError) as error:
        raise errors.Unreachable(f"{configuration.host} cannot be reached: {error}") from None
    socket.settimeout(SILENCE_SECONDS)
    return Execution(socket)


def _status(data: bytes) -> int:
    """Return the exit status in the Status that ends a command; raise if it never started."""
    answer = json.loads(data)
    if answer.get("status") == "Success":
        return 0
    causes = (answer.get("details") or {}).get("causes") or []
    for cause in causes:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise errors.of_status({"code": 500, **answer})
