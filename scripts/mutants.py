"""Do the tests bite? Draws one-token mutants of the package, runs the tests on each and names the survivors.

``make mutants MUTANTS="--count 50 --area mapping"``; ``--help`` lists the options. A mutant is one changed token: an
arithmetic or comparison operator, and/or, a lost ``not``, a number, True for False, max for min. Docstrings, messages,
annotations, decorators, ``raise`` statements and keywords without an effect on results are left alone. The draw is a
function of the printed seed and of the sources. A private copy of the files that git lists is changed, one per job.

First every test file runs once on an unchanged copy under coverage.py, child processes included: that run must pass,
and it tells which tests execute which line. A mutant meets the tests that execute its line (those of its area and the
quickest files first), then the others of their files. The first failure kills it, and so does a crash or a test that
takes far longer than before.

``build/mutants`` keeps the journal (a line of JSON per mutant: an interrupted run goes on, a changed source file makes
its mutants new) and what each test file executes (measured again when it or the package changes). ``--again`` tries
the survivors once more after tests were added. A survivor is a question, not always a fault: some mutants change
nothing that can be observed.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import random
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from private_tests import KEPT, PACKAGE, ROOT, choose, copy_tree, judge, measure

AREAS = {  # area -> rooms of the package, beginnings of its test files
    "program": (("program",), ("test_program", "test_integers")),
    "lowering": (("lowering", "frontends"), ("test_lowering", "test_integers")),
    "engines": (("engines",), ("test_engine", "test_lava", "test_cli_lava", "test_program_counts")),
    "energy": (("energy",), ("test_energy", "test_anchors")),
    "mapping": (("mapping",), ("test_mapping", "test_anchors")),
    "nir_graph": (("nir_graph",), ("test_nir",)),
    "tracker": (("trackers", "tracking"), ("test_tracker", "test_tracking", "test_engine_network")),
}
SWAPS = {
    "+": "-", "-": "+", "*": "+", "/": "*", "//": "*", "%": "//", "**": "*", "<<": ">>", ">>": "<<", "&": "|", "|": "&",
    "^": "&", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "and": "or", "or": "and", "not": "",
    "in": "not in", "is": "is not", "is not": "is", "not in": "in", "max": "min", "min": "max", "maximum": "minimum",
    "minimum": "maximum", "True": "False", "False": "True", "+=": "-=", "-=": "+=", "*=": "+=",
}  # fmt: skip
EXTREMES = {"max", "min", "maximum", "minimum"}
SILENT = {"print", "tell", "warn", "echo", "getLogger", "TypeVar"}
NO_EFFECT = {"indent", "strict", "stacklevel", "timeout", "daemon", "exist_ok", "missing_ok", "sort_keys", "repr"}


def left_alone(node: Any) -> list[Any]:
    """Parts of ``node`` that are not mutated."""
    match node:
        case ast.Raise() | ast.JoinedStr() | ast.Assign(targets=[ast.Name(id="__all__")]):
            return [node]
        case ast.keyword(arg=name) if name in NO_EFFECT:
            return [node]
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name.endswith("Error") or name in SILENT:
            return [node]
        case ast.BinOp(left=ast.JoinedStr() | ast.Constant(value=str())) | ast.BinOp(right=ast.Constant(value=None)):
            return [node]
        case ast.FunctionDef():
            return [*node.decorator_list, node.returns]
        case ast.ClassDef():
            return [*node.decorator_list, *node.bases, *node.keywords]
        case ast.arg() | ast.AnnAssign():
            return [node.annotation]
    return []


def sites(source: str) -> Iterator[tuple[int, int, str, str, int | None]]:
    """Line, column, old token, new token, first line of the statement (None outside functions) of every mutant."""
    lines, where, spots, begins = source.splitlines(), {}, set(), {}
    for t in tokenize.generate_tokens(io.StringIO(source).readline):
        if t.type in (tokenize.OP, tokenize.NAME, tokenize.NUMBER) and t.string not in "()[]{},:":
            where[t.start] = t.string

    def at(line: int, column: int) -> tuple[int, int]:
        return line, len(lines[line - 1].encode()[:column].decode())  # ast counts bytes, tokenize characters

    def between(left: Any, right: Any) -> tuple[int, int]:
        low, high = at(left.end_lineno, left.end_col_offset), at(right.lineno, right.col_offset)
        return min(p for p in where if low <= p < high)

    nodes = list(ast.walk(ast.parse(source)))
    skipped = {id(n) for node in nodes for part in left_alone(node) if part is not None for n in ast.walk(part)}
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.stmt) and inner is not node:
                    begins |= dict.fromkeys(range(inner.lineno, inner.end_lineno + 1), inner.lineno)  # inner ones last
        if id(node) in skipped:
            continue
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name) as called) if name in EXTREMES:
                line, column = at(called.end_lineno, called.end_col_offset)
                spots.add((line, column - len(name)))
            case ast.BinOp():
                spots.add(between(node.left, node.right))
            case ast.AugAssign():
                spots.add(between(node.target, node.value))
            case ast.BoolOp(values=[*chain]):
                spots.update(between(*pair) for pair in pairwise(chain))
            case ast.Compare(left=first, comparators=others):
                spots.update(between(*pair) for pair in pairwise([first, *others]))
            case ast.UnaryOp(op=ast.Not() | ast.USub()) | ast.Constant(value=int() | float()):
                spots.add(at(node.lineno, node.col_offset))

    for line, column in sorted(spots):
        old, rest = where[line, column], lines[line - 1][column:]
        old = next((two for two in ("is not", "not in") if rest.startswith(two + " ")), old)
        new = str(ast.literal_eval(old) + 1) if old[0] in "0123456789." else SWAPS.get(old, old)
        if new != old:
            yield line, column, old, new, begins.get(line)


def draw(count: int, seed: int, areas: list[str]) -> list[dict[str, Any]]:
    """``count`` mutants of ``areas``, every site as likely as any other."""
    found = []
    for area in areas:
        for path in sorted(p for room in AREAS[area][0] for p in (ROOT / PACKAGE / room).rglob("*.py")):
            source, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
            digest = hashlib.sha256(source.encode()).hexdigest()[:12]
            for line, column, old, new, begin in sites(source):
                key = f"{name}:{line}:{column + 1} {old} -> {new or 'nothing'}"
                found.append({"key": key, "area": area, "file": name, "line": line, "column": column, "old": old,
                              "new": new, "begin": begin, "source": digest})  # fmt: skip
    return random.Random(seed).sample(found, count)


def main() -> None:
    """Draws, measures, judges what the journal does not hold yet, and prints survivors and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="mutants to draw (200)")
    parser.add_argument("--seed", type=int, default=13, help="of the draw (13)")
    parser.add_argument("--area", action="append", choices=AREAS, help="only these areas (all)")
    parser.add_argument("--tests", choices=("hits", "files", "suite"), default="files", help="how many tests to run")
    parser.add_argument("--only-area-tests", action="store_true", help="leave test files of other areas out")
    parser.add_argument("--again", action="store_true", help="try survivors of the journal once more")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time (1)")
    given = parser.parse_args()
    areas = given.area or list(AREAS)
    print(f"{given.count} mutants of {', '.join(areas)}; seed {given.seed}", flush=True)
    mutants, journal = draw(given.count, given.seed, areas), KEPT / "journal.jsonl"
    old = [json.loads(line) for line in journal.read_text().splitlines()] if journal.is_file() else []
    known = {(m["key"], m["source"]): m for m in old}
    todo = [m for m in mutants if not (k := known.get((m["key"], m["source"]))) or (given.again and not k["killed"])]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.jobs) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(given.jobs):
            trees.put(copy_tree(Path(folder, str(number))))
        files = tuple(f for a in areas for f in AREAS[a][1]) if given.only_area_tests else ("test_",)
        measured = measure(copy_tree(Path(folder, "unchanged")), files) if todo else {}

        def work(mutant: dict[str, Any]) -> dict[str, Any]:
            tree, begin = trees.get(), mutant["begin"]
            lines = None if begin is None else range(begin, mutant["line"] + 1)
            try:
                first = AREAS[mutant["area"]][1]
                return judge(mutant, tree, choose(measured, mutant["file"], lines, first, given.tests))
            finally:
                trees.put(tree)

        for found in pool.map(work, todo):
            known[found["key"], found["source"]] = found
            with journal.open("a") as out:
                out.write(json.dumps(found) + "\n")
            print("killed  " if found["killed"] else "SURVIVED", found["key"], found["by"], flush=True)
    judged = [known[m["key"], m["source"]] for m in mutants]
    print("\nSurvivors:", *(f"  {m['key']}    {m['text']}" for m in judged if not m["killed"]), sep="\n")
    drawn, killed = Counter(m["area"] for m in judged), Counter(m["area"] for m in judged if m["killed"])
    print(f"\n{'area':<10} killed drawn", *(f"{a:<10} {killed[a]:>6} {drawn[a]:>5}" for a in areas), sep="\n")
    print(f"{'all':<10} {killed.total():>6} {drawn.total():>5}   {killed.total() / drawn.total():.1%}")


if __name__ == "__main__":
    main()
