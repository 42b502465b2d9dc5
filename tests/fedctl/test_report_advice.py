"""What ranks found out about a run is in its report: in the terminal, the page and the JSON."""

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

ADVICE = "codec.name=int8: each rank spent 10.0 s on coding messages"


def test_a_finished_run_says_what_its_ranks_advise(
    fedctl: Callable[..., Result],
    write_run: Callable[..., Path],
    write_rank: Callable[..., None],
) -> None:
    plain, advised = write_run("plain"), write_run("advised")
    write_rank(plain, 0, "finished")
    write_rank(advised, 0, "finished", advice=f"{ADVICE}\x1b[2J")
    result = fedctl("report", plain, advised)
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if ADVICE in line)
    assert line.startswith("run advised: ") and "\x1b" not in line
    page = next(Path(word) for word in result.stdout.split() if word.endswith("report.html"))
    assert page.read_text().count(ADVICE) == 1
    told = json.loads(fedctl("report", plain, advised, "-o", "json").stdout)["runs"]
    assert ["advice" in run for run in told] == [False, True]


def test_one_that_is_not_finished_says_nothing_yet(
    fedctl: Callable[..., Result],
    write_run: Callable[..., Path],
    write_rank: Callable[..., None],
) -> None:
    """What is there is what it found when it ended the last time, before it was resumed."""
    folder = write_run("again", finished=False)
    write_rank(folder, 0, "running", advice=ADVICE)
    assert ADVICE not in fedctl("report", folder).output
