"""Inputs that once were a traceback, a hang or an unreadable line: the smallest of each.

An open one is not mended yet. It is expected to fail, strictly, and the fuzzing takes no notice of
the same failure again; when it is mended, its `open` goes.
"""

import io
import json
import tarfile
from dataclasses import dataclass
from typing import Any

from safetensors.torch import save

from fedctl.cluster.transfer import packer
from tests.fuzz import inputs
from tests.fuzz.targets import EXPERIMENT, MANIFEST, RECORD, ROW, signed


@dataclass(frozen=True)
class Found:
    """An input of a target; open: the start of the failure's `Type: text`, while there is one."""

    target: str
    what: str
    case: Any
    open: str = ""


GOOD = json.dumps(ROW).encode() + b"\n"


def tar_of(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


FOUND = [
    Found("manifest", "a signed null", signed(b"null")),
    Found("manifest", "no round", signed(inputs.as_json(MANIFEST | {"round": None}))),
    Found("manifest", "a checksum that is none", signed(inputs.as_json(MANIFEST | {"data": 1}))),
    Found("manifest", "too deep", signed(b"[" * 100_000)),
    Found("state", "no metadata", save({})),
    Found("state", "metadata of others", save({}, {"other": "x"})),
    Found("state", "a tensor that is missing", save({}, {"state": '{"tensor": "7"}'})),
    Found("state", "a mapping of nothing", save({}, {"state": "{}"})),
    Found("run", "a line that is no text", (EXPERIMENT, GOOD + b"\xff\n" + GOOD, RECORD)),
    Found("run", "a line too deep", (EXPERIMENT, GOOD + b"[" * 100_000 + b"\n", RECORD)),
    Found("run", "an experiment too deep", (b"[" * 100_000, GOOD, RECORD)),
    Found("run", "no seed", (EXPERIMENT.replace(b'"seed":1,', b""), GOOD, RECORD)),
    Found(
        "run",
        "a record's endless round",
        (EXPERIMENT, GOOD, RECORD.replace(b'nd":1', b'nd":1e999')),
    ),
    Found(
        "run",
        "a number larger than any float",
        (EXPERIMENT, GOOD + inputs.as_json(ROW | {"time_seconds": 10**400}) + b"\n", RECORD),
    ),
    Found("experiment", "an escape code in a key", b'{"\\u001b[31m": 1}'),
    Found(
        "tar",
        "a size that is no text",
        tar_of(packer.FIRST, b"\x80"),
    ),
    Found(
        "set",
        "a number of more than 4,300 digits",
        "rounds=" + "9" * 5000,
    ),
    Found(
        "sweep",
        "half of a surrogate pair",
        b'{"\\ud800"}',
    ),
]
