"""Owns one measured run: `python -m trainer` on one rank and one thread, and what it recorded."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import ROOT
from trainer.config.load import load

PRESETS = ROOT / "fedctl" / "presets"
QUIET = {"metrics": {"port": None}}  # several run at once


@dataclass(frozen=True)
class Trial:
    """The rows of metrics.jsonl (the last is the final model's), and the processor's time."""

    rows: list[dict[str, Any]]
    cpu_seconds: float


def train(tree: Mapping[str, Any], out: Path) -> Trial:
    """Train this experiment to its end in the new folder `out`."""
    experiment, _ = load({**tree, **QUIET}, presets=PRESETS)
    out.mkdir(parents=True)
    (out / "experiment.json").write_text(experiment.canonical())
    command = [sys.executable, "-m", "trainer", str(out / "experiment.json"), "--out", str(out)]
    with (out / "output").open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{experiment.name}: " + (out / "output").read_text()[-2000:])
    return Trial(_rows(out), round(usage.ru_utime + usage.ru_stime, 2))


def on_ranks(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl of a run on as many processes as it has ranks."""
    experiment, _ = load({**tree, **QUIET}, presets=PRESETS)
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder, "experiment.json"), Path(folder, "run")
        file.write_text(experiment.canonical())
        program = Path(sys.executable).with_name("fedctl")
        ended = subprocess.run([program, "run", file, "--out", out], capture_output=True, text=True)
        if ended.returncode:
            sys.exit(f"{experiment.name}: {ended.stderr[-2000:]}")
        return _rows(out)


def _rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def payload(row: Mapping[str, Any]) -> int:
    """Bytes that the clients had to upload so far."""
    kinds: dict[str, int] = row["payload_bytes_total"]
    return sum(kinds.values())


@dataclass(frozen=True)
class Job:
    """One run of a comparison: its name there, and its experiment, with the seed."""

    case: str
    seed: int
    tree: dict[str, Any]


def played(jobs: Sequence[Job], at_once: int) -> Iterator[tuple[Job, Trial]]:
    """Train all of them, so many at a time, each on one thread; yield each with what it said."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(at_once) as pool:
        outs = [Path(folder) / str(number) for number in range(len(jobs))]
        yield from zip(jobs, pool.map(train, [job.tree for job in jobs], outs), strict=True)
