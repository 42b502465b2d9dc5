"""The rules of the house that no linter knows: sizes, names, boundaries, the README's tree."""

import ast
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from fedctl.cli import main

ROOT = Path(__file__).parent.parent
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for package in ("dashboards", "fedctl", "trainer")
    for path in sorted((ROOT / package).rglob("*.py"))
}
MODULES = {name: ast.parse(source) for name, source in SOURCES.items()}

MOST_LINES_OF_A_FILE = 300
MOST_LINES_OF_A_FUNCTION = 60

# Names that say nothing: what is in them belongs to somebody.
EMPTY_NAMES = {"common", "constants", "core", "helpers", "misc", "types", "util", "utils"}

# What reads a pipe and ends before its writer does, which a script under pipefail then dies of.
ENDS_EARLY = re.compile(
    r"(?<!\|)\|&?\s*(head\b|grep\s+-\w*[qm]|sed\s[^|]*?['; {\d]q\b|awk\s[^|]*?\bexit\b)"
)

# What would install the package of that name on PyPI, which is another project.
BY_NAME = re.compile(r"\b(?:pip|pipx|uv)\b[^\n`;]*\binstall\b[^\n`;]*?['\" ]fedctl\b(?!/)")

GROUP = "trainer/exchange/group.py"
COLLECTIVE = re.compile(
    r"(all_|batch_|barrier|broadcast|gather|irecv|isend|monitored_|recv|reduce|scatter|send)"
)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def test_files_are_short() -> None:
    lengths = {name: len(source.splitlines()) for name, source in SOURCES.items()}
    assert {n: size for n, size in lengths.items() if size > MOST_LINES_OF_A_FILE} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{name}:{function.name}": lines_without_docstring(function)
        for name, tree in MODULES.items()
        for function in functions(tree)
    }
    assert {n: size for n, size in lengths.items() if size > MOST_LINES_OF_A_FUNCTION} == {}


def test_names_say_something() -> None:
    assert [name for name in MODULES if EMPTY_NAMES & {*Path(name).with_suffix("").parts}] == []


def test_modules_say_what_they_own() -> None:
    assert [name for name, tree in MODULES.items() if not ast.get_docstring(tree)] == []


def test_package_files_hold_nothing_but_their_docstring() -> None:
    packages = {name: tree for name, tree in MODULES.items() if name.endswith("/__init__.py")}
    assert [name for name, tree in packages.items() if len(tree.body) > 1] == []


def names_in_torch_distributed(tree: ast.Module) -> Iterator[str]:
    """Every name that a module takes out of torch.distributed, under whatever alias."""
    aliases = {"torch.distributed"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("torch.distributed"):
                    aliases.add(alias.asname or alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if node.module.startswith("torch.distributed"):
                    yield alias.name
                if f"{node.module}.{alias.name}".startswith("torch.distributed"):
                    aliases.add(alias.asname or alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in aliases:
            yield node.attr


def test_only_the_group_calls_collectives() -> None:
    calls = {
        name: sorted(filter(COLLECTIVE.match, names_in_torch_distributed(tree)))
        for name, tree in MODULES.items()
        if name != GROUP
    }
    assert {name: found for name, found in calls.items() if found} == {}


def test_collectives_are_recognised_under_every_alias() -> None:
    for source in (
        "import torch\ntorch.distributed.all_reduce(x)",
        "import torch.distributed as dist\ndist.all_reduce(x)",
        "from torch import distributed\ndistributed.all_reduce(x)",
        "from torch.distributed import all_reduce",
    ):
        assert "all_reduce" in names_in_torch_distributed(ast.parse(source)), source
    assert list(names_in_torch_distributed(ast.parse("tensor.gather(0, index)"))) == []


def scripts() -> Iterator[Path]:
    """Everything that a shell runs."""
    for path in (
        ROOT / "Makefile",
        ROOT / "Dockerfile",
        *ROOT.glob(".ci/*"),
        *ROOT.glob("scripts/*"),
    ):
        if path.is_file() and path.suffix != ".py":
            yield path


def test_no_script_pipes_into_what_ends_early() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in scripts()
        for match in ENDS_EARLY.finditer(path.read_text("utf-8"))
    }
    assert found == set()


def test_what_ends_early_is_recognised() -> None:
    for line in (
        "a | head -n 1", "a |\n  head", "a | grep -q b", "a | grep -Fxq b", "a | grep -m 1 b",
        "a | sed -n '1p;q'", "a | sed 1q", "a | awk '$1 == 2 { print $3; exit }'",
    ):  # fmt: skip
        assert ENDS_EARLY.search(line), line
    for line in (
        "a || grep -q b c",
        "a | tail -n 1",
        "a | grep -v b",
        "a | sed 's/quick/q/'",
        "a | awk '{ print }'",
    ):
        assert not ENDS_EARLY.search(line), line


def test_the_smoke_tests_of_the_cluster_use_each_backend_and_each_command() -> None:
    marked = [
        function
        for path in sorted((ROOT / "tests/cluster").glob("test_*.py"))
        for function in functions(ast.parse(path.read_text("utf-8")))
        if "pytest.mark.smoke" in map(ast.unparse, function.decorator_list)
    ]
    assert any("BACKENDS" in ast.unparse(d) for f in marked for d in f.decorator_list)
    named = {
        word
        for function in marked
        for node in ast.walk(function)
        for word in (getattr(node, "attr", None), getattr(node, "value", None))
        if isinstance(word, str)
    }
    asking = {
        name
        for name, command in main.commands.items()
        if "context" in {parameter.name for parameter in command.params}
    }
    assert len(asking) > 10 and asking - named == set()


def test_version_is_the_newest_in_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    headings = re.findall(
        r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert headings[0] in {version, "Unreleased"}


def test_readme_shows_the_tree_as_it_is() -> None:
    tree = re.search(
        r"^## The tree\n+```\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S
    )
    assert tree, "README.md has no section 'The tree' with a fenced block"
    shown = {line.split()[0] for line in tree[1].splitlines() if line[:1].strip()}
    ignored = [
        line.strip("/")
        for line in (ROOT / ".gitignore").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    folders = {
        f"{path.name}/"
        for path in ROOT.iterdir()
        if path.is_dir()
        and path.name != ".git"
        and not any(fnmatch(path.name, pattern) for pattern in ignored)
    }
    assert {name for name in shown if name.endswith("/")} == folders
    assert [name for name in shown if not (ROOT / name).exists()] == []


def test_the_readme_names_each_tier_of_tests_and_ci_runs_them() -> None:
    called = re.compile(r"^ *(?:\w+=\S+ )?(?:timed )?make ([\w-]+)", re.M)
    section = (ROOT / "README.md").read_text("utf-8").partition("## Tests")[2].split("```")[1]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    tiers = {
        name for name in re.findall(r"^([\w-]+):", makefile, re.M) if re.match("test|fuzz", name)
    }
    assert set(called.findall(section)) == tiers
    assert set(called.findall((ROOT / ".ci/run").read_text("utf-8"))) == tiers


def test_paths_in_the_documents_exist() -> None:
    named = {
        f"{document}: {path}"
        for document in ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md")
        for path in re.findall(
            r"`((?:\.ci|charts|dashboards|docs|fedctl|manifests|scripts|tests|trainer)/[\w./-]*[\w/])`",
            (ROOT / document).read_text("utf-8"),
        )
    }
    assert sorted(line for line in named if not (ROOT / line.split(": ")[1]).exists()) == []


def test_nobody_is_told_to_install_it_by_its_name() -> None:
    """On PyPI the name is that of another project."""
    texts = [
        *(path for path in ROOT.rglob("*.md") if ".venv" not in path.parts),
        *scripts(),
        *(ROOT / name for name in SOURCES),
    ]
    assert [
        path.relative_to(ROOT) for path in texts if BY_NAME.search(path.read_text("utf-8"))
    ] == []


def test_an_install_by_name_is_recognised() -> None:
    for line in ("pip install 'fedctl[remote]'", "pip install -U fedctl", "uv pip install fedctl"):
        assert BY_NAME.search(line), line
    for line in ("pip install -e '.[remote]'", "pip install mlflow; fedctl run", "fedctl install"):
        assert not BY_NAME.search(line), line


def test_json_is_written_by_the_function_that_knows_no_nan() -> None:
    """Of what holds measured numbers: all that commands print, and what the trainer writes."""
    written = [
        name
        for name, source in SOURCES.items()
        if name.startswith(("fedctl/commands/", "trainer/engine/", "trainer/metrics/"))
        and re.search(r"\bjson\.dumps?\(", source)
    ]
    # state, which is read back as it was; a list of settings
    assert written == ["trainer/engine/state_file.py", "trainer/metrics/trackers.py"]
