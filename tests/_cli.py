"""The real command in a real process, for tests: run it, and prove that a refusal changed nothing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300


def command(*args: object) -> list[str]:
    """``spiketrack ARGS`` with this interpreter."""
    return [sys.executable, "-m", "spiketrack_deploy", *map(str, args)]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The checkout's package first, one thread unless a test says otherwise."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    found = dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    found.pop("SPIKETRACK_DEBUG", None)
    return found | dict(extra or {})


def spiketrack(
    cwd: Path, *args: object, env: Mapping[str, str] | None = None, **kwargs: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command in ``cwd``; stdout and stderr apart."""
    return subprocess.run(
        command(*args),
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        **kwargs,
    )


def succeed(cwd: Path, *args: object, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run with ``--json`` and return the object on stdout."""
    done = spiketrack(cwd, *args, "--json", env=env)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


def refuse(
    cwd: Path, code: int, words: tuple[str, ...], *args: object, env: Mapping[str, str] | None = None, **kwargs: Any
) -> str:
    """The command must end with ``code`` and one sentence that holds ``words``, and leave ``cwd`` as it was."""
    before = contents(cwd)
    done = spiketrack(cwd, *args, env=env, **kwargs)
    sentence = done.stderr.strip()
    assert done.returncode == code, f"exit code {done.returncode} instead of {code}: {sentence} {done.stdout[:500]}"
    assert "Traceback" not in sentence, sentence
    assert sentence.startswith("error: ") and "\n" not in sentence, f"not one sentence: {sentence!r}"
    missing = [word for word in words if word not in sentence]
    assert not missing, f"{missing} not in {sentence!r}"
    assert contents(cwd) == before, f"files changed: {sorted(contents(cwd).keys() ^ before.keys())}"
    return sentence


def processes(session: int, patience: float = 5.0) -> list[int]:
    """Processes of a session that still live after ``patience`` seconds, by /proc; none where there is no /proc."""
    end = time.monotonic() + patience
    while found := [pid for pid, group, state in _states() if group == session and state not in "ZX"]:
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return found


def _states() -> Iterator[tuple[int, int, str]]:
    """Process, session and state of every process."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            yield int(stat.parent.name), int(fields[3]), fields[0]


_MANY = """
import json, os, sys
import numpy, h5py, click
from spiketrack_deploy.cli import commands, main
for index, args in enumerate(json.load(sys.stdin)):
    child = os.fork()
    if child == 0:
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{sys.argv[1]}/{index}.{name}", os.O_CREAT | os.O_WRONLY), stream)
        main.main(args)
    status = os.waitpid(child, 0)[1]
    open(f"{sys.argv[1]}/{index}.code", "w").write(str(os.waitstatus_to_exitcode(status)))
"""


def many(cwd: Path, log: Path, commands: list[list[str]]) -> list[tuple[int, str, str]]:
    """Run every command in a process of its own, forked from one that has done the imports: (exit code, stdout,
    stderr) of each. ``log``: an empty folder for what they print."""
    subprocess.run(
        [sys.executable, "-c", _MANY, str(log)],
        cwd=cwd,
        env=environment(),
        input=json.dumps(commands),
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return [
        (int((log / f"{i}.code").read_text()), (log / f"{i}.out").read_text(), (log / f"{i}.err").read_text())
        for i in range(len(commands))
    ]
