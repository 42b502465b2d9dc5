"""What a run shows while it goes: the live picture, and the plain lines."""

import io
from typing import Any

import pytest
from rich.console import Console

from fedctl import bundled
from fedctl.local.progress import Live, Plain, View, view
from trainer.config.load import load
from trainer.config.schema import Experiment


@pytest.fixture
def experiment() -> Experiment:
    return load("gwpf-digits", sets=["ranks=4"], presets=bundled.PRESETS)[0]


def row(number: int, accuracy: float | None) -> dict[str, Any]:
    return {
        "round": number,
        "test_accuracy_ratio": accuracy,
        "test_loss": None if accuracy is None else 0.25,
        "frozen_parameters_ratio": 0.4,
        "payload_bytes_total": {"values": 2_000_000, "votes": 100_000, "evaluation": 999},
        "wire_bytes_total": {"values": 3_000_000, "moves": 1_000, "evaluation": 999},
        "dense_equivalent_bytes_total": 4_000_000,
    }


def picture(live: Live) -> list[str]:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(live._picture())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_live_picture(experiment: Experiment) -> None:
    live = Live(experiment)
    assert picture(live)[0] == "gwpf-digits  10 clients on 4 ranks"
    assert "starting the ranks ..." in picture(live)[1]
    live.preparing("12:00:00 rank 0: downloading 40 %")
    assert "preparing data ... 12:00:00 rank 0: downloading 40 %" in picture(live)[1]
    live.row(row(7, 0.9123))
    live.row(row(8, None))  # keeps the accuracy of the last evaluation
    live.notice("stopping")
    _, bar, numbers, notice = picture(live)
    assert bar.startswith("round   8/120  ━") and ", left " in bar
    assert numbers == (
        "accuracy 91.2 %  loss 0.250  frozen 40.0 %  sent 2.10 MB  wire 3.00 MB  saved 47.5 %"
    )
    assert notice == "stopping"


@pytest.mark.parametrize("wrong", [None, float("nan")])
def test_a_loss_that_is_not_finite(experiment: Experiment, wrong: float | None) -> None:
    """Null in a row with an evaluation; NaN in one that an earlier version wrote."""
    stream, live = io.StringIO(), Live(experiment)
    for shown in (Plain(experiment, stream), live):
        shown.row(row(2, 0.1) | {"test_loss": wrong})
    assert stream.getvalue().startswith("round 2/120  accuracy 10.0 %  loss not finite  frozen ")
    assert "accuracy 10.0 %  loss not finite  frozen " in picture(live)[2]


def test_plain_lines_only_for_evaluations(experiment: Experiment) -> None:
    stream = io.StringIO()
    plain = Plain(experiment, stream)
    plain.preparing("")
    plain.preparing("")
    plain.preparing("reading")
    plain.row(row(1, None))
    plain.row(row(2, 0.5))
    plain.row(row(2, 0.6) | {"final": True})
    starting, preparing, line = stream.getvalue().splitlines()
    assert (starting, preparing) == ("starting the ranks ...", "preparing data ...")
    assert line.startswith(
        "round 2/120  accuracy 50.0 %  loss 0.250  frozen 40.0 %  sent 2.10 MB  wire 3.00 MB  "
        "saved 47.5 %  left "
    )


def test_the_view_fits_the_place(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert type(view(experiment, quiet=True, output="text")) is View
    with view(experiment, quiet=False, output="json") as beside_json:
        beside_json.notice("hello")
    with view(experiment, quiet=False, output="text") as in_a_pipe:
        in_a_pipe.notice("world")
    assert capsys.readouterr() == ("world\n", "hello\n")


def test_plain_lines_are_spread_over_time_and_end_with_the_last_round(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("fedctl.local.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    plain = Plain(experiment, stream)
    for number, after in ((1, 0.0), (2, 0.1), (3, 1.2), (119, 0.1), (120, 0.1)):
        now[0] += after
        plain.row(row(number, 0.9))
    lines = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert lines == ["1/120", "3/120", "120/120"]


@pytest.mark.parametrize(
    "phases,left",
    [
        ("[{steps: 5}]", "20.0 s"),
        ("[{epochs: 1}]", "20.0 s"),
        ("[{rounds: 2, steps: 5}, {steps: 20}]", "1:20"),
        ("[{total_steps: 18, steps: 5}]", "16.0 s"),
        ("[{rounds: 3, steps: 5}, {total_steps: 10, steps: 5, alpha: 0.1}]", "20.0 s"),
    ],
)
def test_the_time_left_is_that_of_the_steps_left(
    phases: str, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of four rounds are over, of five steps each, and the second took ten seconds."""
    now = [100.0]
    monkeypatch.setattr("fedctl.local.progress.time.monotonic", lambda: now[0])
    settings = ["rounds=4", f"schedule.phases={phases}"]
    stream = io.StringIO()
    plain = Plain(load("fedavg-digits", sets=settings, presets=bundled.PRESETS)[0], stream)
    for number in (1, 2):
        plain.row(row(number, 0.9))
        now[0] += 10 * (number < 2)
    assert stream.getvalue().splitlines()[-1].endswith(f"left {left}")


def test_pipelines_are_named_and_their_idle_share_is_shown(experiment: Experiment) -> None:
    settings = ["ranks=6", "parallel.pipeline=3", "parallel.microbatches=3"]
    pipelines = load("gwpf-digits", sets=settings, presets=bundled.PRESETS)[0]
    shown = row(2, 0.5) | {"pipeline_idle_ratio": 0.512, "pipeline_ideal_idle_ratio": 0.4}
    live, stream = Live(pipelines), io.StringIO()
    plain = Plain(pipelines, stream)
    plain.row(shown)
    live.row(shown)
    assert "saved 47.5 %  idle 51.2 % (ideal 40.0 %)  left " in stream.getvalue()
    assert picture(live)[0] == "gwpf-digits  10 clients on 2 pipelines of 3 ranks"
    assert " ".join(picture(live)[2:]).endswith("saved 47.5 %  idle 51.2 % (ideal 40.0 %)")
    one = load("gwpf-digits", sets=["ranks=3", "parallel.pipeline=3"], presets=bundled.PRESETS)[0]
    assert picture(Live(one))[0] == "gwpf-digits  10 clients on 1 pipeline of 3 ranks"


def test_a_language_model_shows_its_perplexity(experiment: Experiment) -> None:
    stream, live = io.StringIO(), Live(experiment)
    for shown in (Plain(experiment, stream), live):
        shown.row(row(2, 0.1) | {"test_perplexity": 1234.5})
    assert "accuracy 10.0 %  loss 0.250  perplexity 1,234  frozen 40.0 %" in stream.getvalue()
    assert "loss 0.250  perplexity 1,234  frozen" in picture(live)[2]
