"""Folders and variables of the user that fedctl meets: other packages, a home that is read-only."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.products import sampled

ROOT = Path(__file__).parent.parent.parent
FEDCTL = [sys.executable, "-c", "import sys; from fedctl.cli import main; main()"]


def fedctl(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [*FEDCTL, *words], env=environment, capture_output=True, text=True, cwd="/"
    )


@pytest.mark.parametrize("regular", [True, False], ids=["package", "namespace"])
def test_another_package_of_the_trainers_name_is_named(tmp_path: Path, regular: bool) -> None:
    (tmp_path / "trainer").mkdir()
    if regular:
        (tmp_path / "trainer/__init__.py").write_text("raise SystemExit('imported')")
    done = fedctl("presets", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    if not regular:  # Python itself prefers a regular package, wherever it is
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path}/trainer: a package `trainer` of others hides fedctl's "
        f"({ROOT}/trainer); remove its folder from PYTHONPATH\n"
    )


ENDS = {"presets": 0, "validate fedavg-digits": 0, "list": 1}  # there is no run to list


@pytest.mark.parametrize("home,words", sampled(["missing", "file", "proc"], ENDS))
def test_a_home_that_cannot_be_written_to_is_no_error(
    tmp_path: Path, home: str, words: str
) -> None:
    (tmp_path / "file").write_text("")
    where = "/proc" if home == "proc" else str(tmp_path / home)
    variables = {"HOME": where, "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "", "KUBECONFIG": ""}
    done, code = fedctl(*words.split(), **variables), ENDS[words]
    assert done.returncode == code and done.stderr.count("\n") == code, done.stderr


@pytest.mark.parametrize("module", ["click", "pydantic"])
def test_ctrl_c_is_one_line_from_the_first_import_on(tmp_path: Path, module: str) -> None:
    script = (
        "import builtins, os, signal, time\n"
        # whoever started these tests in the background may have had it ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "imported = builtins.__import__\n"
        "def once(name, *args, **more):\n"
        f"    if name == {module!r}:\n"
        "        builtins.__import__ = imported\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(5)\n"
        "    return imported(name, *args, **more)\n"
        "builtins.__import__ = once\n"
        "from fedctl.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "show", "fedavg-digits"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "stopped by Ctrl-C\n"


def test_ctrl_c_after_the_result_changes_nothing() -> None:
    script = (
        "import atexit, os, signal\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "from fedctl.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--version"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("fedctl ")


def test_figures_need_no_home() -> None:
    script = "from fedctl.report import figures; import matplotlib.font_manager"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/proc"}
    environment = {k: v for k, v in environment.items() if not k.startswith(("XDG_", "MPL"))}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd="/"
    )
    assert (done.returncode, done.stderr) == (0, "")
