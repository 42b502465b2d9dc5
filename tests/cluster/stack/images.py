"""Owns images of programs that are one static file, as archives in Docker's format.

The operators run in pods, as on any cluster, but their images are in registries that a test should
not need; so they are made from what the Go modules built.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path


def archive(program: Path, tag: str, target: Path, path: str = "/manager") -> Path:
    """Write an image `tag` that holds `program` at `path`, run by a user who is not root."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as tar:
        for folder in ("tmp",):  # some write there
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.size, entry.mode = program.stat().st_size, 0o755
        with program.open("rb") as content:
            tar.addfile(entry, content)
    layer = inner.getvalue()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [path], "User": "65532:65532", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    about = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    files = {"config.json": json.dumps(config), "manifest.json": json.dumps(about)}
    with tarfile.open(target, "w") as tar:
        for name, content in [*((n, t.encode()) for n, t in files.items()), ("layer.tar", layer)]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return target
