"""Watches: a list, then its changes, through lost connections and expired versions."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from fedctl.cluster.api import errors

Object = dict[str, Any]
Change = tuple[str, Object]  # ADDED, MODIFIED or DELETED, and the object

TURN_SECONDS = 120  # of one request, and so the most that an unnoticed dead connection costs
PAUSE_SECONDS = 1.0  # before the next request
# Opens a list or a watch: query -> its answer, or the lines of it as they arrive.
Ask = Callable[[dict[str, str]], Any]


def changes(
    listed: Ask, watched: Ask, timeout: float | None, stop: threading.Event | None = None
) -> Iterator[Change]:
    """Yield what exists as ADDED, then its changes, for `timeout` seconds or until `stop`.

    `listed` returns the JSON of a list, `watched` lines of JSON.
    """
    ends = None if timeout is None else time.monotonic() + timeout
    known: dict[str, Object] = {}
    version, silent_since = "", time.monotonic()
    stop = stop or threading.Event()
    while not stop.is_set() and (ends is None or time.monotonic() < ends):
        try:
            if not version:
                version, found = _relist(listed, known)
                yield from found
            quiet = True
            for kind, obj in _turn(watched, version, ends):
                quiet = False
                version = obj["metadata"].get("resourceVersion", version)
                silent_since = time.monotonic()
                if kind != "BOOKMARK":
                    _note(known, kind, obj)
                    yield kind, obj
            silent_since = time.monotonic()
            if quiet:  # if a proxy ends each watch at once, avoid a thousand requests a second
                _pause(stop, ends)
        except errors.Gone:  # the server has forgotten that version: list again
            version = ""
        except (errors.Unreachable, errors.ApiError) as error:
            waited = time.monotonic() - silent_since
            if not errors.passing(error) or waited > errors.TIMEOUT_SECONDS:
                raise
            _pause(stop, ends)


def _pause(stop: threading.Event, ends: float | None) -> None:
    left = PAUSE_SECONDS if ends is None else ends - time.monotonic()
    stop.wait(max(0.0, min(PAUSE_SECONDS, left)))


def _relist(listed: Ask, known: dict[str, Object]) -> tuple[str, list[Change]]:
    """List again; return the list's version and what has changed since the last one."""
    answer = listed({})
    now = {obj["metadata"]["uid"]: obj for obj in answer["items"]}
    found = [("DELETED", obj) for uid, obj in known.items() if uid not in now]
    for uid, obj in now.items():
        if uid not in known:
            found.append(("ADDED", obj))
        elif known[uid] != obj:
            found.append(("MODIFIED", obj))
    known.clear()
    known.update(now)
    return answer["metadata"]["resourceVersion"], found


def _turn(watched: Ask, version: str, ends: float | None) -> Iterator[Change]:
    """Yield the changes of one request."""
    left = TURN_SECONDS if ends is None else min(TURN_SECONDS, ends - time.monotonic())
    seconds = max(1, round(left))
    query = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": str(seconds),
    }
    for line in watched(query):
        try:
            change = json.loads(line)
        except ValueError:  # a proxy may end an answer properly, and in the middle of a line
            raise errors.Unreachable("a watch was cut off in the middle of a line") from None
        if change["type"] == "ERROR":
            raise errors.of_status(change["object"])
        yield change["type"], change["object"]


def _note(known: dict[str, Object], kind: str, obj: Object) -> None:
    if kind == "DELETED":
        known.pop(obj["metadata"]["uid"], None)
    else:
        known[obj["metadata"]["uid"]] = obj
