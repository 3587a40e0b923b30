"""Documents say what the code says: the operation table, and that every command and file they name exists."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from spiketrack_deploy.program.ops import OP_TABLE

ROOT = Path(__file__).parent.parent
START, END = "<!-- operation table -->\n", "<!-- end of operation table -->"


def operation_table() -> str:
    """The rows of the operation table as Markdown."""
    lines = ["| op | from -> to | equation | what |", "| --- | --- | --- | --- |"]
    for row in OP_TABLE.values():
        kinds = f"{', '.join(row.inputs)} -> {row.output}"
        lines.append(f"| {row.name} | {kinds} | `{row.equation}` | {row.text} |")
    return "\n".join(lines) + "\n"


@pytest.mark.golden
def test_operation_table_in_the_documents_is_the_code_s() -> None:
    path = ROOT / "docs" / "exactness.md"
    text = path.read_text(encoding="utf-8")
    head, rest = text.split(START)
    body, tail = rest.split(END)
    if os.environ.get("SPIKETRACK_UPDATE_GOLDEN"):
        path.write_text(head + START + operation_table() + END + tail, encoding="utf-8")
        body = operation_table()
    assert body == operation_table(), "run `make golden`"


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md", "docs/exactness.md", "docs/energy.md"])
def test_files_that_documents_name_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:tests|benchmarks|docs|scripts)/[\w/]+\.(?:py|md|png|svg|sh)", text))
    named |= set(re.findall(r"\]\(([^)#:]+)\)", text))
    missing = sorted(n for n in named if not (ROOT / n).exists() and not (ROOT / name).parent.joinpath(n).exists())
    assert not missing, f"{name} names files that do not exist: {missing}"
    assert named
