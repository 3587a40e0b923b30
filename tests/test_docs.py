"""Documents say what the code says: the operation table, and that every command and file they name exists."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from test_imports import MAY_KNOW

from spiketrack_deploy import api
from spiketrack_deploy.api import results as api_results
from spiketrack_deploy.api import results_networks
from spiketrack_deploy.frontends.nir import tables
from spiketrack_deploy.program.ops import OP_TABLE

ROOT = Path(__file__).parent.parent


def operation_table() -> str:
    """The rows of the operation table as Markdown."""
    lines = ["| op | from -> to | equation | what |", "| --- | --- | --- | --- |"]
    for row in OP_TABLE.values():
        kinds = f"{', '.join(row.inputs)} -> {row.output}"
        lines.append(f"| {row.name} | {kinds} | `{row.equation}` | {row.text} |")
    return "\n".join(lines) + "\n"


def result_table() -> str:
    """The results of the verbs as Markdown."""
    lines = ["| verb | returns | keys |", "| --- | --- | --- |"]
    for verb, result in results():
        keys = ", ".join(f"`{key}`" for key in get_type_hints(result))
        text = " ".join((result.__doc__ or "").replace("``", "`").split())
        lines.append(f"| `{verb}` | {text} | {keys} |")
    return "\n".join(lines) + "\n"


def results() -> list[tuple[str, type]]:
    """Verb and each type that it may return, of all functions of the api that return one."""
    found = []
    for name in api.__all__:
        hint = get_type_hints(getattr(api, name)).get("return") if inspect.isfunction(getattr(api, name)) else None
        for one in get_args(hint) or (hint,):
            if getattr(one, "__module__", None) in (api_results.__name__, results_networks.__name__):
                found.append((name, one))
    return found


@pytest.mark.golden
@pytest.mark.parametrize(
    ("document", "what", "table"),
    [
        ("exactness.md", "operation", operation_table),
        ("python.md", "result", result_table),
        ("nir.md", "primitive", lambda: f"{tables.primitives_table()}\n"),
        ("nir.md", "convention", lambda: f"{tables.convention_text()}\n"),
        ("nir.md", "diagnostic", lambda: f"{tables.codes_table()}\n"),
    ],
)
def test_tables_in_the_documents_are_the_code_s(document: str, what: str, table: Callable[[], str]) -> None:
    path = ROOT / "docs" / document
    start, end = f"<!-- {what} table -->\n", f"<!-- end of {what} table -->"
    head, rest = path.read_text(encoding="utf-8").split(start)
    body, tail = rest.split(end)
    if os.environ.get("SPIKETRACK_UPDATE_GOLDEN"):
        path.write_text(head + start + table() + end + tail, encoding="utf-8")
        body = table()
    assert body == table(), "run `make golden`"


DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_documents_name_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:tests|benchmarks|docs|scripts)/[\w/]+\.(?:py|md|png|svg|sh)", text))
    named |= set(re.findall(r"\]\(([^)#:]+)\)", text))
    missing = sorted(n for n in named if not (ROOT / n).exists() and not (ROOT / name).parent.joinpath(n).exists())
    roots = (ROOT, ROOT / "src" / "spiketrack_deploy")
    inside = set(re.findall(r"`((?:\w+/)+(?:\w+\.(?:py|toml|sh))?)`", text)) - {"export/", "models/", "lava/"}
    missing += sorted(n for n in inside if not any((root / n).exists() for root in roots))
    assert not missing, f"{name} names files that do not exist: {missing}"
    assert named


def sources() -> list[Path]:
    """Python files, documents and price lists of the project."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.md", "*.toml", "*.sh"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the git checkout")


@needs_git
def test_no_text_cites_a_document_that_a_reader_does_not_have() -> None:
    elsewhere = re.compile(
        r"\bfacts/|\bfacts[,:]? sections?|\bof the facts\b|\(design|\bdesign(\.md| [0-9]| sections?)\b|\breview\.md"
    )
    guilty = []
    for path in sources():
        if path != Path(__file__).resolve():
            lines = path.read_text(encoding="utf-8").splitlines()
            guilty += [f"{path.relative_to(ROOT)}:{i}" for i, line in enumerate(lines, 1) if elsewhere.search(line)]
    assert not guilty, f"cite a paper, an equation or a file of this repository instead: {guilty}"


@needs_git
def test_sections_that_are_cited_exist() -> None:
    cited = set()
    for path in sources():
        cited |= set(re.findall(r'(docs/\w+\.md)(?:,\s+"([^"]+)")?', path.read_text(encoding="utf-8")))
    missing = []
    for document, section in sorted(cited):
        if not (ROOT / document).is_file():
            missing.append(document)
        elif section and f"\n## {section}\n" not in (ROOT / document).read_text(encoding="utf-8"):
            missing.append(f'{document}, "{section}"')
    assert len(cited) > 10 and not missing, f"cited, but not there: {missing}"


def test_the_glossary_explains_each_word_once() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = [
        word
        for row in re.findall(r"^\| (\*\*.*?) \|", text, re.MULTILINE)
        for word in re.findall(r"\*\*(.+?)\*\*", row)
    ]
    assert len(words) > 40 and len(words) == len(set(words))
    for document in ("README.md", "docs/architecture.md"):
        assert "glossary.md)" in (ROOT / document).read_text(encoding="utf-8"), (
            f"{document} does not lead to the glossary"
        )


def test_the_architecture_has_a_row_for_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*`) \|", text.split("## Rooms")[1].split("\n## ")[0], re.MULTILINE)
    named = [room for row in rows for room in re.findall(r"`([\w.]+)/?`", row)]
    package = ROOT / "src" / "spiketrack_deploy"
    rooms = {path.name for path in package.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    rooms |= {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    assert sorted(named) == sorted(rooms)
    order = [room.removesuffix(".py") for room in named]
    wrong = [(room, known) for room in order for known in MAY_KNOW[room] if order.index(known) > order.index(room)]
    assert not wrong, f"the table says that a room knows only those above it: {wrong}"
