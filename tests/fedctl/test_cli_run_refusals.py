"""What `fedctl run` refuses before it starts anything: one line, exit 2, and nothing on disk."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from fedctl.errors import RunError
from fedctl.local import preflight
from tests.fedctl.checkpoints import write_checkpoint

Invoke = Callable[..., Result]
WriteRun = Callable[..., Path]


def refused(result: Result) -> str:
    """The one line of a command that ended with 2."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").strip()


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*arguments: object) -> None:
        raise AssertionError("started")

    monkeypatch.setattr("fedctl.local.launch.run", start)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["--set", "sync.treshold=0.1"],
            "sync.treshold: unknown key; did you mean sync.threshold?",
        ),
        (["--set", "roundz=3"], "roundz: unknown key; did you mean rounds?"),
        (["--set", "sync.quorum=2"], "sync.quorum: 2: input should be less than or equal to 1"),
        (["--set", "rounds=many"], "rounds: 'many': input should be a valid integer"),
        (["--set", "sync.name=gwfp"], "sync.name: 'gwfp' is not one of"),
        (["--ranks", "0"], "ranks: 0: input should be greater than or equal to 1"),
        (["--ranks", "11"], "ranks: 11 is more than clients (10)"),
        (["--set", "clients=3", "--ranks", "4"], "ranks: 4 is more than clients (3)"),
        (["--set", "data.name=npz"], "data: name npz needs path; set data.path"),
        (["--set", "data.path=no.npz"], "data.path: has no effect while data.name is digits; drop"),
        (["--set", "data.name=npz", "--set", "data.path=no.npz"], "data.path: no.npz does not "),
        (["--set", "metrics.port=65535", "--ranks", "2"], "metrics.port: 65535 leaves no port for"),
        (
            ["--set", "metrics.host=no.such.host.invalid", "--set", "metrics.port=9"],
            "metrics.host:",
        ),
        (["--ranks", "two"], "Invalid value for '--ranks': 'two' is not a valid integer"),
        (["--resume", "runs/a"], "--resume continues the run in its folder: drop PRESET, FILE and"),
        (["--allow-changed", "seed"], "--allow-changed is for a run that resumes; name it with"),
    ],
)
def test_refusals(fedctl: Invoke, tmp_path: Path, words: list[str], problem: str) -> None:
    assert refused(fedctl("run", "gwpf-digits", "--out", "out", *words)).startswith(problem)
    assert list(tmp_path.iterdir()) == []


def test_something_to_run_must_be_named(fedctl: Invoke) -> None:
    assert refused(fedctl("run")) == (
        "name a PRESET or FILE to run; `fedctl presets` lists the presets"
    )
    assert refused(fedctl("run", "gwpf-digit")) == (
        "gwpf-digit: neither a preset nor a file; did you mean gwpf-digits?"
    )


def test_a_folder_with_something_in_it_is_left_alone(fedctl: Invoke, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("mine")
    assert refused(fedctl("run", "gwpf-digits", "--out", "out")) == (
        "--out out: exists and is not empty; name another folder"
    )
    (tmp_path / "out/experiment.json").write_text("{}")
    assert refused(fedctl("run", "gwpf-digits", "--out", "out")) == (
        "--out out: exists and is not empty; name another folder, "
        "or continue its run with --resume out"
    )
    assert refused(fedctl("run", "gwpf-digits", "--out", "out/precious")).startswith(
        "--out out/precious: is a file"
    )


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        ("x" * 300, f"--out {'x' * 300}: file name too long; name another folder"),
        ("dangling", "--out dangling: dangling is a link to nothing; remove it"),
        ("loop", "--out loop: too many levels of symbolic links; name another folder"),
        ("file", "--out file: is a file; name a folder that is empty or does not exist yet"),
        ("file/x", "--out file/x: file is a file; name a folder that is empty or does not exist"),
        ("", "Invalid value for '--out': is empty; name a file or a folder"),
    ],
)
@pytest.mark.parametrize(
    "words",
    [["run", "gwpf-digits"], ["sweep", "digits-freezing"], ["report", "run"], ["fetch", "digits"]],
    ids=["run", "sweep", "report", "fetch"],
)
def test_folders_that_can_not_be(
    fedctl: Invoke, write_run: WriteRun, tmp_path: Path, words: list[str], out: str, problem: str
) -> None:
    write_run("run")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("mine")
    assert refused(fedctl(*words, "--out", out)).startswith(problem)


@pytest.mark.parametrize("command", ["run", "values"])
def test_ranks_are_given_once(fedctl: Invoke, command: str) -> None:
    words = [command, "gwpf-digits", "--ranks", 5, "--set", "ranks=7"]
    assert refused(fedctl(*words)) == "ranks: --ranks 5 and --set ranks=7; drop one of them"


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_ports_in_use(fedctl: Invoke, tmp_path: Path, busy_port: int) -> None:
    words = ["--set", f"metrics.port={busy_port - 1}", "--ranks", "2"]
    line = refused(fedctl("run", "gwpf-digits", "--out", "out", *words))
    if f"{busy_port - 1} on" not in line:  # the port below may belong to somebody too
        assert line == (
            f"metrics.port: {busy_port} on 127.0.0.1, where rank 1 would serve its metrics: "
            "address already in use; choose another, or 0 for any free one"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["torch", "numpy", "sentencepiece", "psutil"])
def test_missing_trainer(fedctl: Invoke, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    find = preflight.importlib.util.find_spec
    monkeypatch.setattr(
        preflight.importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    result = fedctl("run", "gwpf-digits")
    assert (result.exit_code, result.stderr) == (
        RunError.exit_code,
        f"error: training needs {module}, which is not installed; "
        "in the checkout of fedctl, run .venv/bin/pip install -e '.[trainer]'\n",
    )


def test_a_run_of_this_machine_is_kept_in_its_folder(
    fedctl: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDCTL_RUN_URL", "s3://runs/mine")
    told = refused(fedctl("run", "gwpf-digits"))
    assert told.startswith("FEDCTL_RUN_URL: `fedctl run` keeps a run in its folder; unset it")


def test_data_is_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.npz").write_bytes(b"")
    plan = preflight.fresh("gwpf-mnist", ["data.path=mine.npz"], Path("out"))
    assert plan.experiment.data.path == str(tmp_path / "mine.npz")
    assert not plan.folder.exists()


def with_model(path: str) -> list[str]:
    return ["--set", f"data.tokenizer={{name: sentencepiece, model: {path}}}"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (with_model("no.model"), "data.tokenizer.model: no.model does not exist"),
        (with_model("."), "data.tokenizer.model: . is not a file"),
    ],
)
def test_the_model_of_a_tokenizer_must_be_there(
    fedctl: Invoke, words: list[str], problem: str
) -> None:
    assert refused(fedctl("run", "fedavg-text", "--out", "out", *words)).startswith(problem)


def test_the_model_of_a_tokenizer_is_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.model").write_bytes(b"")
    plan = preflight.fresh("fedavg-text", with_model("my.model")[1::2], Path("out"))
    assert plan.experiment.model_dump()["data"]["tokenizer"]["model"] == str(tmp_path / "my.model")


def test_resuming_what_cannot_be_resumed(fedctl: Invoke, write_run: WriteRun) -> None:
    assert refused(fedctl("run", "--resume", "nowhere")) == (
        "--resume nowhere: not a run folder, it has no experiment.json"
    )
    write_run("done")
    assert refused(fedctl("run", "--resume", "done")) == (
        "--resume done: has finished; `fedctl report done` shows it; to continue, set rounds=N "
        "with N above 10"
    )
    write_run("early", finished=False)
    assert refused(fedctl("run", "--resume", "early")).startswith(
        "--resume early: has no checkpoint; set checkpoint.every"
    )


@pytest.fixture
def saved(write_run: WriteRun) -> Path:
    """A run that was stopped after its third round."""
    folder = write_run("saved", finished=False)
    write_checkpoint(folder, 3)
    return folder


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["--set", "seed=7"],
            "seed: is 3000 in this run; 7 would make it a different experiment; start a new run, "
            "or resume with --allow-changed seed",
        ),
        (["--set", "optimizer.lr=0.3"], "optimizer.lr: is "),
        (
            ["--set", "sync.name=apf"],
            "sync.name: is full in this run; the saved state does not fit apf",
        ),
        (
            ["--allow-changed", "seed"],
            "--allow-changed seed: not a setting that --set changes",
        ),
        (["--set", "rounds=many"], "rounds: 'many': input should be a valid integer"),
    ],
)
def test_another_experiment_does_not_resume(
    fedctl: Invoke, saved: Path, words: list[str], problem: str
) -> None:
    assert refused(fedctl("run", "--resume", "saved", *words)).startswith(problem)


@pytest.mark.parametrize(
    "words",
    [
        {"sets": ["rounds=99", "checkpoint.every=2", "metrics.port=null", "cluster.timeout=9"]},
        {"ranks": 2},
        {"sets": ["seed=7"], "allowed": ["seed"]},
        {"sets": ["optimizer.lr=0.3"], "allowed": ["optimizer"]},
        {"allowed": ["data"]},
    ],
)
def test_the_same_experiment_does(saved: Path, words: dict[str, Any]) -> None:
    arguments = {"source": None, "sets": [], "ranks": None, "out": None, "resume": saved} | words
    plan = preflight.plan(**arguments)
    assert plan.resume and plan.folder == saved
    assert plan.allowed == tuple(words.get("allowed", ()))


def test_a_model_of_no_bytes_is_no_finished_run(write_run: WriteRun) -> None:
    folder = write_run("torn")
    write_checkpoint(folder, 3)
    (folder / "model.safetensors").write_bytes(b"")
    assert preflight.resumed(folder).resume
