"""The table of faults: each entry has a test, and its lines are ones that can differ."""

import ast
from pathlib import Path

from tests.faults.lines import fits
from tests.faults.page import page
from tests.faults.table import TABLE


def names_with_tests() -> set[str]:
    """The names that tests of this folder give to the decorator `fault`."""
    return {
        decorator.args[0].value
        for path in Path(__file__).parent.glob("test_*.py")
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef)
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Name)
        and decorator.func.id == "fault"
        and isinstance(decorator.args[0], ast.Constant)
    }


def test_each_fault_has_a_test() -> None:
    assert names_with_tests() == set(TABLE)


def test_what_fails_prints_one_line_and_what_does_not_prints_none() -> None:
    for fault in TABLE.values():
        assert (fault.code > 0) == any(fault.all_seen), fault.name
        for line in fault.all_seen:
            assert "\n" not in line
            assert not fits(line, f"{line}\nTraceback (most recent call last):"), fault.name


def test_a_line_fits_its_own_words_only() -> None:
    line = str(TABLE["rank-killed"].sees)
    examples = {"K": "1", "N": "12", "RUN": "runs/out"}
    assert fits(line, line.format(**examples))
    assert not fits(line, line.format(**examples | {"K": "one"}))
    assert not fits(line, line.format(**examples).replace("; continue with", ""))


def test_the_page_has_each_fault_and_no_word_in_braces() -> None:
    assert "{" not in page()
    assert all(f"| {fault.what} |" in page() for fault in TABLE.values())
