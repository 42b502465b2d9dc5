"""docs/faults.md, from the table of faults; `python -m tests.faults.page` prints it."""

import re

from tests.faults.table import SECTIONS, Fault

INTRODUCTION = """\
# Faults

What happens to a run if something around it fails: what fedctl prints on stderr, its exit code, and
what is lost. Every failure is one line. `fedctl run --resume RUN` continues from the newest whole
checkpoint, with bit-identical results; `checkpoint.every` sets how many rounds may be lost.

Words in capitals stand for what differs: K a rank, N a round, S seconds, RUN the run folder. Each
row is a test of a real run (`make test-faults`). Written by scripts/regenerate from
`tests/faults/table.py`; not edited by hand.
"""


def page() -> str:
    """The page, in the order of the table."""
    parts = [INTRODUCTION]
    for title, faults in SECTIONS.items():
        parts += [f"## {title}\n", "| fault | printed | exit code | lost |", "|---|---|---|---|"]
        parts += [_row(fault) for fault in faults]
        parts.append("")
    return "\n".join(parts)


def _row(fault: Fault) -> str:
    who = "" if fault.by == "fedctl" else f"{fault.by}: "
    lines = [f"{who}`{_words(line)}`" for line in fault.all_seen if line]
    lines += [f"in its progress: `{_words(fault.notice)}`"] if fault.notice else []
    code = "none (killed)" if fault.code < 0 else str(fault.code)
    return f"| {fault.what} | {' or '.join(lines) or 'nothing'} | {code} | {fault.lost} |"


def _words(line: str) -> str:
    return re.sub(r"\{(\w+)\}", r"\1", line)


if __name__ == "__main__":
    print(page(), end="")
