"""Owns how memory is measured: the peak resident set of a process with one subject in it.

`python -m bench.memory '{}'` is a process without one: it imports torch and numpy.
"""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def peak_bytes() -> int:
    """Of this process, since its program started."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    # elsewhere; on Linux this one would begin with what the parent had
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def alone(module: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What a subject answers that plays in a process of its own, on one thread."""
    answer = subprocess.run(
        [sys.executable, "-m", module, json.dumps(asked)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    said: dict[str, Any] = json.loads(answer.stdout)
    return said


def main() -> None:
    import numpy  # noqa: F401  # both only to be in memory
    import torch  # noqa: F401

    print(json.dumps({"peak_rss_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
