"""The processes of a run's ranks on this machine: their environment, how they start and end.

Nothing of it listens: the ranks find each other through a file in the run folder, and exchange
over the loopback interface. Each rank is in a session of its own, because the terminal's Ctrl-C is
for fedctl, which passes it on.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import psutil

from fedctl.errors import RunError
from fedctl.local.preflight import Plan
from fedctl.report import runs

STOPPED = 143  # a rank's exit code after a SIGTERM, once it has saved a checkpoint
LONGEST = 1 << 16  # bytes at the end of what ranks have printed, in which their last error is
STORE = ".rendezvous"  # the file in the run folder through which ranks find each other
# What torchrun, an operator or a pod may have left in the environment says who a rank is.
FOREIGN = ("PET_", "TORCHELASTIC_", "FEDCTL_")
NUMBERS = {"MASTER_ADDR", "MASTER_PORT", "JOB_COMPLETION_INDEX", "NODE_RANK", "ROLE_NAME"}
NUMBERS |= {
    f"{group}{name}"
    for group in ("", "LOCAL_", "GROUP_", "ROLE_")
    for name in ("RANK", "WORLD_SIZE")
}


class Ranks:
    """The processes; `codes` has the exit code of each that has ended, by rank."""

    def __init__(self, plan: Plan, lock: int, devices: Sequence[str] = ()) -> None:
        """Start them. lock: the descriptor that holds the run folder, which they keep as well."""
        folder = plan.folder.resolve()
        self.codes: dict[int, int] = {}
        self.hung: set[int] = set()  # those that `end` had to kill
        self._store = folder / STORE
        self._asked: set[int] = set()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._output = runs.output_log(folder)
        self._start = self._output.stat().st_size if self._output.exists() else 0
        base = environment(os.environ, plan, devices)
        try:
            self._store.unlink(missing_ok=True)
            for rank in range(plan.experiment.ranks):
                self._processes.append(self._process(plan, folder, base, rank, lock))
        except BaseException as error:
            self.end()
            if isinstance(error, OSError):
                what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
                raise RunError(f"the ranks cannot be started: {what}") from None
            raise

    def _process(
        self, plan: Plan, folder: Path, base: Mapping[str, str], rank: int, lock: int
    ) -> subprocess.Popen[bytes]:
        ranks = str(plan.experiment.ranks)
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        own |= {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        own |= {"FEDCTL_STORE": str(self._store)}
        with self._output.open("ab") as output:
            return subprocess.Popen(
                command(plan, folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**base, **own},
                pass_fds=(lock,),
                start_new_session=True,
                preexec_fn=partial(_end_with_parent, os.getpid()),
            )

    def ended(self) -> bool:
        """Return whether all have ended; note the exit codes of those that have."""
        for rank, process in enumerate(self._processes):
            if process.poll() is not None:
                self.codes[rank] = process.returncode
        return len(self.codes) == len(self._processes)

    @property
    def succeeded(self) -> bool:
        """Whether each of them ended with success."""
        return self.ended() and not any(self.codes.values())

    @property
    def some_failed(self) -> bool:
        """Whether one of them ended neither with success nor with a checkpoint, as it was asked to.

        A rank that a request to stop has killed failed too: it had not begun, and the others may
        wait for it.
        """
        return any(code not in (0, STOPPED) for code in self.codes.values())

    def ask_to_stop(self) -> None:
        """Send SIGTERM to each once: it then saves a checkpoint after its round."""
        for rank, process in enumerate(self._processes):
            if rank not in self._asked and process.poll() is None:
                self._asked.add(rank)
                process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Kill those that are left, with what they have started; return when they have ended."""
        for rank, process in enumerate(self._processes):
            if process.poll() is None:
                self.hung.add(rank)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()
        self.ended()
        with contextlib.suppress(OSError):
            self._store.unlink(missing_ok=True)

    def output(self) -> str:
        """Return the last of what they have printed since this start."""
        try:
            with self._output.open("rb") as log:
                log.seek(max(self._start, log.seek(0, os.SEEK_END) - LONGEST))
                return log.read().decode("utf-8", "replace")
        except OSError:
            return ""


def command(plan: Plan, folder: Path) -> list[str]:
    """Return the command of a rank."""
    experiment = runs.NEXT if plan.resume else runs.EXPERIMENT
    trainer = ["-m", "trainer", str(folder / experiment), "--out", str(folder)]
    resume = ["--resume"] if plan.resume else []
    for name in plan.allowed:
        resume += ["--allow-changed", name]
    return [sys.executable, *trainer, *resume]


def environment(inherited: Mapping[str, str], plan: Plan, devices: Sequence[str]) -> dict[str, str]:
    """Return what all ranks share: the user's own variables, none that says who a rank is.

    Gloo and NCCL would otherwise resolve the name of this machine, which need not resolve at all,
    and listen on the address that they find.
    """
    kept = {k: v for k, v in inherited.items() if k not in NUMBERS and not k.startswith(FOREIGN)}
    # The trainer next to this fedctl, not a folder of that name in the user's working folder.
    root = str(Path(__file__).resolve().parent.parent.parent)
    paths = [root, *filter(None, [kept.get("PYTHONPATH")])]
    kept |= {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    loopback = _loopback()
    kept |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    if devices:
        kept["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    if threads := plan.experiment.cluster.threads:
        kept["OMP_NUM_THREADS"] = str(threads)
    return kept


def _loopback() -> str:
    """Return the name of the loopback interface: lo on Linux, lo0 on a Mac."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == "127.0.0.1" for address in addresses):
            return name
    raise RunError(
        "this machine has no loopback interface (127.0.0.1), over which its ranks exchange; "
        "bring it up: ip link set lo up"
    )


def _end_with_parent(parent: int) -> None:
    """In a rank before it starts: ask for a SIGTERM when fedctl dies (Linux only)."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
        if os.getppid() != parent:  # it died before that
            os.kill(os.getpid(), signal.SIGTERM)
