"""What all tests share: one thread per process, honest skips, repeatable properties."""

import os

# Before anything imports torch: spinning OpenMP threads on shared cores cost factors.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
from hypothesis import settings

from tests import bounds, patience

IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}

# No deadline: a first call may import torch. In CI the same examples every time; here new ones.
settings.register_profile("fedctl", deadline=None, derandomize=IN_CI, print_blob=True)
settings.load_profile("fedctl")


@pytest.hookimpl(tryfirst=True)  # before pytest-timeout reads it
def pytest_configure(config: pytest.Config) -> None:
    """The limit of a test is in seconds of this machine, unless a command line names one."""
    if config.option.timeout is None:
        config.option.timeout = patience.seconds(float(config.getini("timeout")))


def pytest_report_header() -> str:
    return f"patience: tests wait {patience.factor():g} times as long as they are written"


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(getattr(item, "module", None), "bounds", None) is bounds:
            item.add_marker(pytest.mark.numeric)
    deselect_gpu(config, items)


def deselect_gpu(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests for a GPU where there is none: a skip is for what somebody here could run."""
    for_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not for_gpu:
        return
    import torch  # only now: most runs of a few tests need no torch

    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=for_gpu)
        items[:] = [item for item in items if item not in for_gpu]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under CI a skip is a failure: a test that CI skips is a test nobody runs."""
    if IN_CI and skipped_tests(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if IN_CI and (skipped := skipped_tests(config)):
        terminalreporter.section("SKIPPED UNDER CI, WHICH FAILS THE RUN", red=True, bold=True)
        for report in skipped:
            terminalreporter.line(f"{report.nodeid}: {report.longrepr[2]}")


def skipped_tests(config: pytest.Config) -> list[pytest.TestReport]:
    """Nothing on xdist's workers, which have no reporter: their controller counts for all."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.stats.get("skipped", []) if reporter else []


@pytest.fixture(scope="session", autouse=True)
def _end_ranks():
    """Processes that tests/ranks.py started end with the session."""
    yield
    from tests.ranks import close_all

    close_all()
