"""Runs tests in a private copy of the project, and measures which test executes which line (see ``mutants.py``).

The lower half runs inside pytest (``-p private_tests``), told what to do by the environment. ``MUTANTS_RECORD``: file
for the seconds of every test; contexts of coverage.py are switched test by test, in child processes through
``MUTANTS_CONTEXT``. ``MUTANTS_CHOSEN``: JSON file, test -> (place in the order, seconds allowed).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "mutants"
PACKAGE = Path("src/spiketrack_deploy")
MEMORY = 12 << 30
RECORD, CHOSEN = os.environ.get("MUTANTS_RECORD"), os.environ.get("MUTANTS_CHOSEN")
ORDER: dict[str, tuple[int, int]] = json.loads(Path(CHOSEN).read_text()) if CHOSEN else {}
SPENT: Counter[str] = Counter()


def copy_tree(folder: Path) -> Path:
    """A private copy of the project in which tests run."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, text=True, capture_output=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def run_tests(tree: Path, files: list[str], limit: float, under: tuple[str, ...] = (), **env: str) -> tuple[int, str]:
    """Exit status and output of the tests in ``tree``; what they started is ended with them."""
    path = os.pathsep.join(str(tree / name) for name in ("src", "scripts"))
    command = [sys.executable, *under, "-m", "pytest", "-q", "--tb=line", "-rfE", "--hypothesis-seed=0", "--timeout=0"]
    command += [] if under else ["-x"]
    # One thread of PyTorch: several lose a hundredfold where other jobs hold the processors.
    around = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | env
    with tempfile.TemporaryFile("w+") as told:
        child = subprocess.Popen(
            [*command, "-p", "no:cacheprovider", "-p", "private_tests", *files], cwd=tree, start_new_session=True,
            env=around, stdout=told, stderr=told,
        )  # fmt: skip
        try:
            status = child.wait(limit)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        told.seek(0)
        return status, told.read()


def measure(tree: Path, files: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Test file -> seconds of each test, and source file -> line -> who executed it: a test, or the name of the test
    file for its fixtures. ``files``: beginnings of the test files wanted. Kept until a test file, or a source of which
    it executes more than the import, changes.
    """
    found = {}
    for path in sorted(p for p in (tree / "tests").glob("test_*.py") if p.name.startswith(files)):
        name, kept = f"tests/{path.name}", KEPT / "lines" / f"{path.stem}.json"
        known = json.loads(kept.read_text()) if kept.is_file() else None
        if known is None or any(_digest(tree / file) != digest for file, digest in known["digests"].items()):
            known = _measured(tree, name)
            used = [file for file, lines in known["lines"].items() if any(who != [""] for who in lines.values())]
            known["digests"] = {file: _digest(tree / file) for file in (name, *used)}
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(known))
            print(f"measured {name}", flush=True)
        found[name] = known
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "gone"


def _measured(tree: Path, name: str) -> dict[str, Any]:
    """One test file under coverage.py; the script ends where it fails."""
    import coverage

    with tempfile.TemporaryDirectory() as folder:
        rc, spent, data = Path(folder, "rc"), Path(folder, "spent"), Path(folder, "data")
        rc.write_text(
            f"[run]\nsource = {tree / PACKAGE}\ndata_file = {data}\nparallel = true\ncore = ctrace\n"
            "context = ${MUTANTS_CONTEXT-}\nconcurrency = thread, multiprocessing\n"
        )
        under = ("-m", "coverage", "run", f"--rcfile={rc}")
        status, said = run_tests(tree, [name], 3600, under, COVERAGE_PROCESS_START=str(rc), MUTANTS_RECORD=str(spent))
        if status not in (0, 5):  # a test of full disks meets the files of coverage.py: once more without
            status, said = run_tests(tree, [name], 3600)
        if status not in (0, 5):
            sys.exit(f"{name} fails on the unchanged tree:\n{said}")
        lines: dict[str, dict[int, set[str]]] = {}
        for part in Path(folder).glob("data.*"):
            with suppress(coverage.CoverageException):  # of a child that a test ended while it wrote
                read = coverage.CoverageData(str(part))
                read.read()
                for source in read.measured_files():
                    by_line = lines.setdefault(str(Path(source).relative_to(tree)), {})
                    for line, contexts in read.contexts_by_lineno(source).items():
                        by_line.setdefault(line, set()).update(c.split("|")[-1] for c in contexts)
        listed = {f: {str(n): sorted(c) for n, c in by_line.items()} for f, by_line in lines.items()}
        return {"seconds": json.loads(spent.read_text()), "lines": listed}


def choose(
    measured: dict[str, dict[str, Any]], source: str, lines: range | None, first: tuple[str, ...], extent: str
) -> dict[str, tuple[int, int]]:
    """Test -> (place in the order, seconds allowed), for a change in ``lines`` of ``source``.

    ``lines`` None: outside functions, so every test that enters the file; the same where nobody is seen to execute the
    lines (compiled code), and the files of ``first`` where nobody enters the file (another interpreter does).
    ``first``: beginnings of test files to run first. ``extent``: ``hits`` (the tests that execute the lines), ``files``
    (then the others of their files) or ``suite`` (then all).
    """
    hits: dict[str, set[str]] = {}
    for name, m in measured.items():
        by_line = m["lines"].get(source, {})
        found = {c for n, contexts in by_line.items() if lines is None or int(n) in lines for c in contexts}
        found -= {""} if lines is None else set()  # whoever collects the tests has imported the file
        hits[name] = set(m["seconds"]) if found & {name, ""} else found
    if not any(hits.values()):
        if lines is not None:
            return choose(measured, source, None, first, extent)
        hits = {name: set(m["seconds"]) if _early(name, first) else set() for name, m in measured.items()}
    places: list[tuple[Any, ...]] = []
    for name, m in measured.items():
        cost = sum(m["seconds"].get(test, 0) for test in hits[name])
        wanted = m["seconds"] if extent == "suite" or (extent == "files" and hits[name]) else hits[name]
        places += [
            (test not in hits[name], not _early(name, first), cost, name, i, test) for i, test in enumerate(wanted)
        ]
    return {p[-1]: (i, 30 + int(10 * measured[p[3]]["seconds"].get(p[-1], 0))) for i, p in enumerate(sorted(places))}


def _early(name: str, first: tuple[str, ...]) -> bool:
    return Path(name).name.startswith(first)


def judge(mutant: dict[str, Any], tree: Path, chosen: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Runs the chosen tests on one mutant; ``by`` names the first test that failed, or how the run ended."""
    path, order = tree / mutant["file"], tree / "chosen.json"
    source, before = path.read_text(encoding="utf-8"), path.stat().st_mtime
    lines = source.splitlines(keepends=True)
    line, start = lines[mutant["line"] - 1], mutant["column"]
    lines[mutant["line"] - 1] = line[:start] + mutant["new"] + line[start + len(mutant["old"]) :]
    order.write_text(json.dumps(chosen))
    files, allowed = list(dict.fromkeys(test.split("::")[0] for test in chosen)), [s for _, s in chosen.values()]
    began = time.monotonic()
    try:
        path.write_text("".join(lines), encoding="utf-8")
        os.utime(path, (random.randrange(1 << 30),) * 2)  # so that no compiled file is taken for this one
        status, said = run_tests(tree, files, 60 + sum(allowed) / 3, MUTANTS_CHOSEN=str(order)) if files else (0, "")
    finally:
        path.write_text(source, encoding="utf-8")
        os.utime(path, (before, before))
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
    by = failed.group(1) if failed else f"exit status {status}" if status else ""
    found = {"text": line.strip(), "tests": len(chosen), "killed": status != 0, "by": by}
    return {k: mutant[k] for k in ("key", "area", "source")} | found | {"seconds": round(time.monotonic() - began, 1)}


def pytest_configure() -> None:
    """A mutant may ask for any amount of memory; what a script starts in the background ignores interrupts."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """The chosen tests alone, in their order, each with its time."""
    if CHOSEN:
        items[:] = sorted((item for item in items if item.nodeid in ORDER), key=lambda item: ORDER[item.nodeid])
        for item in items:
            item.add_marker(pytest.mark.timeout(ORDER[item.nodeid][1]), append=False)


def pytest_runtest_setup(item: Any) -> None:
    """What a fixture executes belongs to the whole file."""
    _note(item.location[0])


def pytest_runtest_call(item: Any) -> None:
    """From here on lines belong to the test."""
    _note(item.nodeid)


def pytest_runtest_teardown(item: Any) -> None:
    """From here on to the file again."""
    _note(item.location[0])


def _note(context: str) -> None:
    if RECORD:
        import coverage

        os.environ["MUTANTS_CONTEXT"] = context
        current = coverage.Coverage.current()
        assert current is not None
        current.switch_context(context)


def pytest_runtest_logreport(report: Any) -> None:
    """Setup, call and teardown of every test."""
    SPENT[report.nodeid] += report.duration


def pytest_sessionfinish() -> None:
    """Leaves the seconds behind."""
    if RECORD:
        Path(RECORD).write_text(json.dumps(SPENT))
