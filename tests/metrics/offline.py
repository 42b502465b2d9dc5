"""Run as a script: a run with all trackers, stopped and resumed, in processes without a network.

Prints as JSON what the test can't see in the run folder.
"""

import ctypes
import errno
import json
import logging
import platform
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.metrics.recorder import Recorder

LOST = 1000  # bytes of events, which is more than a round: as if killed before they were written
SOCKET_CALL = {"x86_64": 41, "aarch64": 198}  # the number of socket() in Linux
TREE = {
    "name": "demo",
    "metrics": {
        "tensorboard": True,
        "wandb": {"mode": "offline", "project": "tests", "model": True},
        "mlflow": {"enabled": True, "experiment": "tests", "model": True},
    },
}


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def forbid_internet() -> None:
    """The kernel refuses internet sockets to this process and to all that it starts (seccomp)."""
    steps = [
        (0x20, 0, 0, 0),  # load the number of the call
        (0x15, 0, 3, SOCKET_CALL[platform.machine()]),  # not socket(): allow
        (0x20, 0, 0, 16),  # load its first argument, the family
        (0x15, 2, 0, socket.AF_INET),
        (0x15, 1, 0, socket.AF_INET6),
        (0x06, 0, 0, 0x7FFF0000),  # allow
        (0x06, 0, 0, 0x00050000 | errno.EACCES),  # refuse
    ]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges, the condition of the next
    program = Program(len(steps), code)
    assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()


def internet_is_refused() -> bool:
    try:
        socket.socket().close()
    except PermissionError:
        return True
    return False


def record(recorder: "Recorder", number: int, *, final: bool = False) -> None:
    """A round's values, of the run and of the rank."""
    from trainer.metrics.catalog import Row

    payload = {"values": 10 * number, "votes": 0}
    run = Row(round=number, test_loss=1 / 2**number, payload_bytes_total=payload, final=final)
    recorder.record(run, Row(round=number))


def play(out: Path) -> None:
    """Rounds 1 to 5, a stop; from the checkpoint after round 3 on to the end with round 7."""
    from trainer.config.load import load
    from trainer.metrics.recorder import Recorder

    experiment, _ = load(TREE)
    recorder = Recorder(out, {}, 0, experiment)
    for number in range(1, 6):
        record(recorder, number)
    recorder.close("stopped")
    for events in (out / "trackers" / "tensorboard").iterdir():
        events.write_bytes(events.read_bytes()[:-LOST])
    recorder = Recorder(out, {}, 3, experiment)
    for number in range(4, 8):
        record(recorder, number)
    (out / "model.safetensors").write_bytes(b"the model")
    record(recorder, 7, final=True)
    recorder.close("finished")


def main() -> None:
    reached: list[str] = []
    lines: list[str] = []

    def watch(event: str, args: tuple[object, ...]) -> None:
        internet = event == "socket.connect" and not isinstance(args[1], str)
        if internet or event == "socket.getaddrinfo":
            reached.append(f"{event} {args[1:]}")

    forbid_internet()
    refused = internet_is_refused()
    sys.addaudithook(watch)
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("fedctl").addHandler(handler)
    play(Path(sys.argv[1]))
    print(json.dumps({"refused": refused, "reached": reached, "lines": lines}))


if __name__ == "__main__":
    main()
