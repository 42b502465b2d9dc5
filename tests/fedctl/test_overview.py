"""What a sweep shows while it goes: a bar for all and a line for each run, or plain lines."""

import io
from typing import Any

import pytest
from rich.console import Console

from fedctl.sweep import overview
from fedctl.sweep.overview import Live, Plain


def row(number: int, accuracy: float | None) -> dict[str, Any]:
    return {
        "round": number,
        "test_accuracy_ratio": accuracy,
        "payload_bytes_total": {"values": 2_000_000, "evaluation": 999},
    }


def picture(live: Live) -> list[str]:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(live._picture())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_live_picture_has_a_bar_for_all_and_a_line_for_each_active_run() -> None:
    live = Live(runs=3, rounds=30)
    first = live.started("lr=0.1,seed=1", rounds=10, start=0)
    second = live.started("lr=0.1,seed=2", rounds=10, start=4)
    first.row(row(0, 0.1))  # before training
    first.row(row(6, 0.8))
    first.row(row(7, None))  # keeps the accuracy of the last evaluation
    second.preparing("")
    every, one, two = picture(live)
    assert every.startswith("0/3 runs") and live.share() == pytest.approx(7 / 30)
    assert one.startswith("lr=0.1,seed=1") and one.endswith("7/10  accuracy 80.0 %")
    assert two.startswith("lr=0.1,seed=2") and two.endswith("starting the ranks ...")


def test_a_run_that_ends_before_its_last_round_is_done_all_the_same() -> None:
    live = Live(runs=1, rounds=10)
    line = live.started("a", rounds=10, start=0)
    line.row(row(3, 0.99))
    live.finished(line)
    assert live.share() == 1 and live.active == []


def test_plain_lines_say_how_each_run_ended_and_now_and_then_how_far_all_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("fedctl.sweep.overview.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    plain = Plain(runs=2, rounds=20, stream=stream)
    first, second = plain.started("a", 10, 0), plain.started("b", 10, 0)
    for number in range(1, 6):
        now[0] += 0.5
        first.row(row(number, 0.5))
        plain.refresh()
    assert stream.getvalue() == ""  # at most one line in a while
    now[0] = 100 + overview.STATUS_SECONDS
    plain.refresh()
    plain.refresh()
    plain.finished(first)
    plain.finished(second, "rank 0 was killed")
    assert stream.getvalue().splitlines() == [
        "0/2  5.0 s, left 15.0 s  a 5/10 accuracy 50.0 %; b starting the ranks ...",
        "1/2  a: accuracy 50.0 % after 5 rounds, sent 2.00 MB",
        "2/2  b: rank 0 was killed",
    ]


def test_a_language_model_goes_by_its_perplexity() -> None:
    live = Live(runs=1, rounds=10)
    line = live.started("a", rounds=10, start=0)
    line.row(row(3, 0.1) | {"test_perplexity": 91.23})
    assert picture(live)[1].endswith("3/10  perplexity 91.23")
