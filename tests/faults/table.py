"""What goes wrong around a run, and what its user sees: docs/faults.md, and what tests assert.

Each fault is here once. Its test (tests/faults/test_*.py, by name) makes it happen to a real run
and compares what fedctl prints with `sees`; page.py writes the page from it.
"""

from dataclasses import dataclass

CONTINUE = "; continue with: fedctl run --resume {RUN}"
NOTHING, SINCE = "nothing", "the rounds since the last checkpoint"


@dataclass(frozen=True)
class Fault:
    """One fault: `sees` is stderr, with words of lines.py in braces; several if several may come.

    notice: a line of the progress that tells it; lost: of the run; by: who reports it.
    """

    name: str
    what: str
    sees: str | tuple[str, ...]
    code: int
    lost: str = NOTHING
    notice: str = ""
    by: str = "fedctl"

    @property
    def all_seen(self) -> tuple[str, ...]:
        """The lines of which one is seen; none where nothing is printed."""
        return (self.sees,) if isinstance(self.sees, str) else self.sees


PROCESSES = [
    Fault(
        "rank-killed",
        "a rank is killed (SIGKILL, or the kernel, when memory runs out)",
        "error: rank {K} was killed in round {N} (SIGKILL, out of memory?); the others stopped"
        + CONTINUE,
        1,
        SINCE,
    ),
    Fault(
        "rank-crashes",
        "a rank crashes (SIGSEGV, SIGBUS, SIGABRT)",
        "error: rank {K} was killed in round {N} ({REASON}); the others stopped" + CONTINUE,
        1,
        SINCE,
    ),
    Fault(
        "rank-hangs",
        "a rank no longer answers (SIGSTOP), longer than `cluster.timeout`",
        "error: rank {K} did not answer the others in round {N}, and was ended; the others stopped"
        + CONTINUE,
        1,
        SINCE,
    ),
    Fault(
        "rank-terminated",
        "a rank is asked to end (SIGTERM)",
        "error: the ranks were stopped from outside (SIGTERM) in round {N}" + CONTINUE,
        1,
    ),
    Fault(
        "rank-never-starts",
        "a rank does not start within `cluster.start_timeout`",
        "error: rank {K} before the first round ended: rank {K} did not start within {S} s; look "
        "at its log and at its pod; see {FILE}",
        1,
        "nothing was trained",
    ),
    Fault("launcher-killed", "fedctl is killed (SIGKILL); on Linux its ranks save and end", "", -9),
    Fault(
        "launcher-stopped",
        "fedctl is asked to end: Ctrl-C, SIGTERM, or the terminal is closed (SIGHUP)",
        "stopped after round {N}" + CONTINUE,
        130,
    ),
    Fault(
        "ctrl-c-twice",
        "Ctrl-C, and again before the round is over",
        "killed after round {N}" + CONTINUE,
        130,
        SINCE,
    ),
    Fault(
        "ctrl-c-before-round-1",
        "Ctrl-C before the first round ended",
        "stopped before the first round ended; nothing was kept",
        130,
        "nothing was trained",
    ),
    Fault(
        "failure-after-ctrl-c",
        "a rank is killed after Ctrl-C, before the checkpoint is saved",
        "error: rank {K} was killed in round {N} (SIGKILL, out of memory?); the others stopped"
        + CONTINUE,
        1,
        SINCE,
    ),
    Fault(
        "reader-gone",
        "the reader of fedctl's output ends, as `head` does",
        "",
        0,
        notice="the output cannot be written; the work continues",
    ),
    Fault(
        "terminal-gone",
        "the terminal is closed under a run that ignores SIGHUP (`nohup`, `disown`)",
        "",
        0,
        notice="the output cannot be written; the work continues",
    ),
]

MACHINE = [
    Fault(
        "disk-full-at-start",
        "the disk is full before the first checkpoint",
        "error: rank {K} {REASON}: the disk of {DISK} is full; make room on it, or use another "
        "folder; see {FILE}",
        1,
        "all of the run",
    ),
    Fault(
        "disk-full",
        "the disk is full when a checkpoint is saved",
        "error: rank {K} in round {N}: the disk of {DISK} is full; make room on it, or use another "
        "folder; see {FILE}" + CONTINUE,
        1,
        SINCE,
    ),
    Fault(
        "disk-full-at-report",
        "the disk is full when the report of a finished run is written",
        "error: {RUN}: the report cannot be written: No space left on device",
        1,
        "nothing but the report; `fedctl report RUN --out DIR` writes it elsewhere",
    ),
    Fault(
        "folder-removed",
        "the run folder is removed or moved during the run",
        "error: {RUN}: was removed or moved during the run, which was ended; put it back and "
        "resume, or start a new run",
        1,
        "all of the run if the folder was removed",
    ),
    Fault(
        "out-of-memory",
        "an allocation fails",
        "error: rank {K} before the first round ended: out of memory ({SIZE} more were needed); "
        "use a smaller schedule.batch_size or model, fewer ranks on this machine, or give it more; "
        "see {FILE}",
        1,
        "nothing was trained",
    ),
    Fault(
        "port-taken",
        "the port of a rank's metrics is taken",
        "error: metrics.port: {PORT} on {HOST}, where rank {K} would serve its metrics: address "
        "already in use; choose another, or 0 for any free one",
        2,
    ),
    Fault(
        "no-loopback",
        "the machine has no loopback interface",
        "error: this machine has no loopback interface (127.0.0.1), over which its ranks exchange; "
        "bring it up: ip link set lo up",
        1,
    ),
    Fault(
        "no-host-name", "the machine's own name does not resolve: the run does not need it", "", 0
    ),
    Fault(
        "foreign-variables",
        "variables of torchrun or a pod are set (RANK, MASTER_ADDR, PET_..., FEDCTL_...): they are "
        "ignored",
        "",
        0,
    ),
]

STATE = [
    Fault(
        "checkpoint-damaged",
        "a file of the newest checkpoint is damaged, cut or missing: the one before is used",
        "",
        0,
        "the rounds since the checkpoint before",
        notice="checkpoint round-{N} is passed over: {REASON}",
    ),
    Fault(
        "metrics-cut",
        "metrics.jsonl has lost rows that the newest checkpoint knows: an older one is used",
        "",
        0,
        "the rounds since a checkpoint that has all of its rows",
        notice="checkpoint round-{N} is passed over: metrics.jsonl was cut: {REASON}",
    ),
    Fault(
        "checkpoints-damaged",
        "no checkpoint is whole",
        "error: rank {K} in round {N}: no checkpoint in {FILE} can be used ({REASON}); restore the "
        "files, or start a new run; see {FILE}",
        1,
        "all of the run, unless the files are restored",
    ),
    Fault(
        "two-resumes",
        "a run is resumed twice at one moment: the second is refused",
        (
            "error: {RUN}: is being run by process {PID}; wait for it",
            "error: --resume {RUN}: is still running (process {PID})",
        ),
        2,
    ),
    Fault(
        "two-runs",
        "two new runs use one `--out`: the second is refused",
        (
            "error: {RUN}: is being run by process {PID}; wait for it",
            "error: --out {RUN}: exists and is not empty; name another folder, or continue its run "
            "with --resume {RUN}",
        ),
        2,
    ),
    Fault(
        "data-gone",
        "the data is gone when the run resumes",
        "error: data.path: {FILE} does not exist",
        2,
        "nothing, once the data is back",
    ),
    Fault(
        "data-changed",
        "the data is another when the run resumes",
        "error: data: the samples are not those that the run began with; give the same data, or "
        "resume with --allow-changed data",
        2,
    ),
]

NETWORK = [
    Fault(
        "partition",
        "the network between two pods is cut for longer than `cluster.timeout`",
        "lost another rank: {REASON}",
        1,
        SINCE,
        by="each rank",
    ),
    Fault(
        "partition-at-start",
        "a pod cannot reach rank 0 within `cluster.start_timeout`",
        "cannot reach rank 0 at {HOST}:{PORT} after {S} s: {REASON}; check that rank 0 is running "
        "and that this pod may connect to it",
        1,
        "nothing was trained",
        by="the rank",
    ),
    Fault(
        "slow-link",
        "the network between two pods is slow: the run takes longer, and ends in the same bits",
        "",
        0,
    ),
]

SECTIONS = {
    "Processes": PROCESSES,
    "The machine": MACHINE,
    "State and data": STATE,
    "The network between pods": NETWORK,
}
TABLE = {fault.name: fault for faults in SECTIONS.values() for fault in faults}
