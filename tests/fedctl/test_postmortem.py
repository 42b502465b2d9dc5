"""Why a run ended: the most specific cause in one line, from what was left behind."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from fedctl.errors import RunError, Stopped, UserError
from fedctl.report import postmortem
from fedctl.report.postmortem import End
from tests.fedctl.checkpoints import write_checkpoint

WriteRank = Callable[..., None]

PEER = {"exit": 1, "message": "lost another rank: Connection closed by peer"}


def test_a_killed_rank_comes_before_those_who_lost_it(
    tmp_path: Path, write_rank: WriteRank
) -> None:
    for rank in (0, 1, 3):
        write_rank(tmp_path, rank, "failed", **PEER)
    write_rank(tmp_path, 2, "running")
    error = postmortem.cause(tmp_path, End({0: 1, 1: 1, 2: -9, 3: 1}, rounds=16))
    assert isinstance(error, RunError)
    assert str(error) == (
        "rank 2 was killed in round 17 (SIGKILL, out of memory?); the others stopped"
    )


def test_resume_is_offered_where_there_is_a_checkpoint(
    tmp_path: Path, write_rank: WriteRank
) -> None:
    write_rank(tmp_path, 0, "running")
    write_checkpoint(tmp_path, 3)
    assert str(postmortem.cause(tmp_path, End({0: -9}, rounds=4))) == (
        "rank 0 was killed in round 5 (SIGKILL, out of memory?); "
        f"continue with: fedctl run --resume {tmp_path}"
    )


def test_the_command_that_continues_can_be_pasted(tmp_path: Path, write_rank: WriteRank) -> None:
    run = tmp_path / "it's; a run"
    write_rank(run, 0, "running")
    write_checkpoint(run, 3)
    again = ["--set", "name=a b"]
    line = str(postmortem.cause(run, End({0: -9}, rounds=4, again=again)))
    command = line.partition("continue with: ")[2]
    assert shlex.split(command) == ["fedctl", "run", "--resume", str(run), *again]


def test_a_rank_with_a_reason_comes_before_those_that_were_cut_off(
    tmp_path: Path, write_rank: WriteRank
) -> None:
    write_rank(tmp_path, 0, "failed", **PEER)
    write_rank(tmp_path, 1, "failed", exit=1, message="OSError: No space left on device")
    write_rank(tmp_path, 2, "running")
    assert str(postmortem.cause(tmp_path, End({0: 1, 1: 1, 2: -15}, rounds=2))) == (
        f"rank 1 in round 3: OSError: No space left on device; see {tmp_path}/logs/rank-1.log"
    )


def test_a_wrong_setting_is_the_users(tmp_path: Path, write_rank: WriteRank) -> None:
    write_rank(tmp_path, 0, "failed", **PEER)
    write_rank(tmp_path, 1, "failed", exit=2, message="data.path: x.npz has no x_train")
    error = postmortem.cause(tmp_path, End({0: 1, 1: 2, 2: -9}))
    assert isinstance(error, UserError) and str(error) == "data.path: x.npz has no x_train"


def test_stopped_from_outside(tmp_path: Path, write_rank: WriteRank) -> None:
    write_rank(tmp_path, 0, "stopped", exit=143)
    assert str(postmortem.cause(tmp_path, End(rounds=4))) == (
        "the ranks were stopped from outside (SIGTERM) in round 5"
    )


def test_ranks_that_never_started(tmp_path: Path) -> None:
    output = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'numpy'\n"
    assert str(postmortem.cause(tmp_path, End({0: 1}, output=output))) == (
        "no rank started: ModuleNotFoundError: No module named 'numpy'; "
        f"see {tmp_path}/logs/output.log"
    )


@pytest.mark.parametrize(("rounds", "where"), [(8, "in round 9"), (9, "at the end")])
def test_no_round_comes_after_the_last(
    tmp_path: Path, write_rank: WriteRank, rounds: int, where: str
) -> None:
    write_rank(tmp_path, 0, "failed", exit=1, message="the disk is full")
    line = str(postmortem.cause(tmp_path, End({0: 1}, rounds=rounds, planned=9)))
    assert line.startswith(f"rank 0 {where}: the disk is full; see ")


def test_a_library_that_finds_no_memory_to_load_says_so(tmp_path: Path) -> None:
    output = "ImportError: libtorch_cpu.so: failed to map segment from shared object\n"
    assert str(postmortem.cause(tmp_path, End({0: 1}, output=output))) == (
        "no rank started: out of memory (ImportError: libtorch_cpu.so: failed to map segment from "
        "shared object); use fewer ranks, or give them more (ulimit -v, the container's limit); "
        f"see {tmp_path}/logs/output.log"
    )


def test_a_rank_that_hangs_is_named(tmp_path: Path, write_rank: WriteRank) -> None:
    write_rank(tmp_path, 0, "failed", **PEER)
    write_rank(tmp_path, 1, "running")
    assert str(postmortem.cause(tmp_path, End({0: 1, 1: -9}, hung={1}, rounds=3))) == (
        "rank 1 did not answer the others in round 4, and was ended; the others stopped"
    )


def test_a_failure_after_ctrl_c_is_not_hidden(tmp_path: Path, write_rank: WriteRank) -> None:
    write_rank(tmp_path, 0, "failed", **PEER)
    write_rank(tmp_path, 1, "failed", exit=1, message="the disk of /data is full")
    error = postmortem.cause(tmp_path, End({0: 1, 1: 1}, rounds=3, stops=1))
    assert isinstance(error, RunError) and "the disk of /data is full" in str(error)


@pytest.mark.parametrize("codes", [{0: 143, 1: 1}, {0: 143, 1: -15}])
def test_what_a_stop_does_to_others_is_no_failure(
    tmp_path: Path, write_rank: WriteRank, codes: dict[int, int]
) -> None:
    write_rank(tmp_path, 0, "stopped", exit=143)
    write_rank(tmp_path, 1, "failed", **PEER)
    error = postmortem.cause(tmp_path, End(codes, rounds=3, stops=1))
    assert isinstance(error, Stopped) and str(error).startswith("stopped after round 3")


@pytest.mark.parametrize(
    ("rounds_done", "stops", "text"),
    [
        (0, 1, "stopped before the first round ended; nothing was kept"),
        (3, 2, "killed after round 3; no checkpoint was saved, its metrics are in {folder}"),
    ],
)
def test_stopped_on_request(tmp_path: Path, rounds_done: int, stops: int, text: str) -> None:
    error = postmortem.cause(tmp_path, End(rounds=rounds_done, stops=stops))
    assert (error.exit_code, str(error)) == (130, text.format(folder=tmp_path))
