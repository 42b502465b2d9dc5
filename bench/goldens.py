"""Digests of the final models and byte counters of many short runs: did a change move a bit?

    python -m bench.goldens record FILE.json [--vectors DIR] [--ranks 1,2,4] [--only PATTERN]
    python -m bench.goldens compare FILE.json [--vectors DIR] [--ranks 1,2,4] [--only PATTERN]

Bits depend on the processor and on torch, so this is no test: record before a change and compare
after it, on one machine. The vectors (of each run's final model; outside the repository) tell by
how much a run differs. Only what stays through a rewriting of the engine is used: the loader,
`trainer.__main__.train`, the variables that name a rank, and the files of a run folder.
"""

import argparse
import hashlib
import json
import multiprocessing as mp
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import fnmatch
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from bench.golden_cases import Case, cases
from bench.harness import commit, machine, versions
from trainer.__main__ import Mirror, Status, train  # type: ignore[attr-defined]
from trainer.config.errors import ConfigError
from trainer.config.load import flatten, load

MP = mp.get_context("forkserver")
MP.set_forkserver_preload(["bench.harness", "trainer.__main__"])  # once, not once per rank
PORTS = count(20_000 + os.getpid() % 1000 * 10)  # below those that the kernel hands out by itself

CASE_SECONDS = 120  # then a case counts as hung
GRACE_SECONDS = 5  # for the other ranks, once one has failed
KEPT = (  # of the last row; those that count end in _total
    *("payload_bytes_total", "wire_bytes_total", "dense_equivalent_bytes_total"),
    *("samples_total", "local_steps_total", "messages_total"),
    *("test_accuracy_ratio", "test_loss", "train_loss"),
    *("gradient_variance", "gradient_deviation_ratio"),
    *("frozen_parameters_ratio", "labelled_frozen_ratio", "thawed_parameters"),
)
NO_RUN = {"refused", "failed"}

Outcome = dict[str, Any]  # of a run: {"refused": text}, {"failed": text}, or what it came to
Vector = np.ndarray[Any, Any] | None


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.goldens", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--vectors", type=Path, help="folder of the final models' parameters")
    parser.add_argument("--ranks", type=lambda t: [int(n) for n in t.split(",")], default=[1, 2, 4])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="such as '*gwpf*'")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in all")
    options = parser.parse_args()
    chosen = {
        name: (tree, [*sets, *options.set])
        for name, (tree, sets) in cases().items()
        if fnmatch(name, options.only)
    }
    start = time.monotonic()
    action = record if options.action == "record" else compare
    differ = action(options.file, options.vectors, chosen, options.ranks, options.only)
    print(f"{time.monotonic() - start:.0f} seconds")
    sys.exit(differ)


def record(
    file: Path, vectors: Path | None, chosen: Mapping[str, Case], ranks: list[int], only: str
) -> bool:
    """Write what the runs come to; whether one failed."""
    if vectors:
        vectors.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Outcome]] = {}
    for name, runs in outcomes(chosen, ranks):
        found[name] = {str(size): outcome for size, (outcome, _) in runs.items()}
        told: dict[str, list[str]] = {}  # the same text is told once
        for size, (outcome, vector) in runs.items():
            if vectors and vector is not None:
                np.save(vectors / f"{name}.{size}.npy", vector)
            for how in outcome.keys() & NO_RUN:
                told.setdefault(f"{how}: {outcome[how]}", []).append(f"W={size}")
        for text, where in told.items():
            print(f"{name}: {', '.join(where)} {text}", flush=True)
    utc = datetime.now(UTC).isoformat(timespec="seconds")
    head = {"machine": machine(), "versions": versions(), **commit(), "utc": utc}
    # a line for each case, so that a new record shows in a diff what moved
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(each)}" for name, each in found.items())
    file.write_text(f'{json.dumps(head)[:-1]}, "cases": {{\n{lines}\n}}}}\n')
    print(f"{len(found)} cases recorded")
    return any("failed" in outcome for each in found.values() for outcome in each.values())


def compare(
    file: Path, vectors: Path | None, chosen: Mapping[str, Case], ranks: list[int], only: str
) -> bool:
    """Say what the runs come to now that differs from the record; whether anything does."""
    recorded = json.loads(file.read_text())
    here = (machine()["cpu"], versions())
    if here != (recorded["machine"]["cpu"], recorded["versions"]):
        print("recorded on another processor or with other versions: bits may differ")
    totals: Counter[str] = Counter()
    for name in recorded["cases"].keys() - chosen.keys():
        if fnmatch(name, only):
            print(f"{name}: is no longer a case")
            totals["failed"] += 1
    for name, runs in outcomes(chosen, ranks):
        told: list[str] = []
        kinds: set[str] = set()
        for size, (now, vector) in runs.items():
            before = recorded["cases"].get(name, {}).get(str(size), {"failed": "not recorded"})
            path = vectors / f"{name}.{size}.npy" if vectors else None
            if differences := list(_differences(before, now, path, vector)):
                told.append(f"W={size} " + "; ".join(text for _, text in differences))
                kinds.update(kind for kind, _ in differences)
        if told:
            print(f"{name}: {' | '.join(told)}", flush=True)
        totals.update(kinds or {"equal"})
    print(
        f"{totals['equal']} cases equal, {totals['bits']} differ in bits, {totals['counters']} in "
        f"counters, {totals['results']} in results, {totals['failed']} failed"
    )
    return totals.keys() != {"equal"}


def _differences(
    before: Outcome, now: Outcome, path: Path | None, vector: Vector
) -> Iterator[tuple[str, str]]:
    """What kind of a difference, and how it is told."""
    if "refused" in now and now == before:
        return
    for when, outcome in (("before", before), ("now", now)):
        for how in outcome.keys() & NO_RUN:
            yield "failed", f"{how} {when}: {outcome[how]}"
    if "sha256" not in before or "sha256" not in now:
        return
    if before["sha256"] != now["sha256"]:
        far = ""
        if path and path.exists() and vector is not None:
            old = np.load(path)
            far = ", other shape"
            if old.shape == vector.shape:
                far = f" by at most {np.abs(old.astype(float) - vector).max():.2g}"
        yield "bits", f"bits differ{far}"
    for name in [key for key in {**before, **now} if key != "sha256"]:
        old, new = before.get(name, 0), now.get(name, 0)
        if json.dumps(old) != json.dumps(new):  # as text, so that NaN is NaN
            yield "counters" if "_total" in name else "results", f"{name} {old} -> {new}"


# ---------------------------------------------------------------------------------------------
# runs


def outcomes(
    chosen: Mapping[str, Case], ranks: list[int]
) -> Iterator[tuple[str, dict[int, tuple[Outcome, Vector]]]]:
    """What each case comes to with each number of ranks, which run side by side."""
    groups = [Group(size) for size in ranks]
    try:
        with ThreadPoolExecutor(len(groups)) as pool, tempfile.TemporaryDirectory() as folder:
            for name, case in chosen.items():
                jobs = {
                    group.size: pool.submit(
                        group.outcome, case, Path(folder, f"{name}.{group.size}")
                    )
                    for group in groups
                }
                yield name, {size: job.result() for size, job in jobs.items()}
    finally:
        for group in groups:
            group.close()


class Group:
    """`size` processes, each of them one rank of one run after the other."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.start()

    def start(self) -> None:
        self.pipes: list[Any] = []
        self.processes: list[Any] = []
        for rank in range(self.size):
            ours, theirs = MP.Pipe()
            process = MP.Process(target=_serve, args=(rank, self.size, theirs), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def outcome(self, case: Case, out: Path) -> tuple[Outcome, Vector]:
        """Play one case in the new folder `out`."""
        tree, sets = case
        try:
            experiment, _ = load({**tree, "ranks": self.size}, sets=sets)
        except ConfigError as error:
            return {"refused": str(error)}, None
        out.mkdir()
        (out / "experiment.json").write_text(experiment.canonical())
        # Where a run saved its state on the way, its last rounds are played again from there.
        for resume in (None, "always") if experiment.checkpoint.every else (None,):
            if problem := self._train(out, resume):
                return problem, None
        return _read(out)

    def _train(self, out: Path, resume: str | None) -> Outcome | None:
        """Each rank's part; what went wrong, if anything did."""
        port = _port()
        for pipe in self.pipes:
            pipe.send((out, resume, port))
        deadline = time.monotonic() + CASE_SECONDS
        problems: list[Outcome] = []
        waiting: set[Any] = set(self.pipes)
        while waiting:
            ready: list[Any] = wait(waiting, max(0.0, deadline - time.monotonic()))
            if not ready:
                problems.append({"failed": "a rank hung"})
                break
            for pipe in ready:
                waiting.remove(pipe)
                try:
                    answer = pipe.recv()
                except (EOFError, ConnectionError):
                    answer = {"failed": "a rank died"}
                if answer:
                    problems.append(answer)
                    deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        failed = [problem for problem in problems if "failed" in problem]
        if failed:  # who knows what the others wait for
            self.close()
            self.start()
        return next(iter(failed + problems), None)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(1)
            process.kill()


def _serve(rank: int, size: int, pipe: Any) -> None:
    """One rank: a case at a time, until the pipe closes."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    if Path("/sys/class/net/lo").exists():  # no need to resolve the host's name
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with suppress(EOFError, ConnectionError):
        while True:
            out, resume, port = pipe.recv()
            os.environ["MASTER_PORT"] = str(port)
            answer: Outcome = {}
            try:
                how, _ = train(
                    out / "experiment.json", Mirror(out, rank), resume, Status(out, rank)
                )
                if how != "finished":
                    answer = {"failed": how}
            except ConfigError as error:
                answer = {"refused": str(error)}
            except BaseException as error:
                answer = {"failed": f"rank {rank}: {type(error).__name__}: {error}"}
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a run catches it, and then nobody asks
            pipe.send(answer)


def _port() -> int:
    """One that is free at the moment, and was handed to no run before."""
    for port in PORTS:
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("PORTS has no end")


def _read(out: Path) -> tuple[Outcome, Vector]:
    """What a finished run came to: the model's digest, the last row, the parameters."""
    tensors = [tensor for _, tensor in sorted(load_file(out / "model.safetensors").items())]
    digest = hashlib.sha256(b"".join(tensor.tobytes() for tensor in tensors)).hexdigest()[:16]
    row = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    pairs = flatten({name: row.get(name) for name in KEPT})
    values = np.concatenate([tensor.ravel() for tensor in tensors if tensor.dtype.kind == "f"])
    return {"sha256": digest, **{name: number for name, number in pairs if number}}, values


if __name__ == "__main__":
    main()
