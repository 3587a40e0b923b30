"""Asking an independent witness that lives in an environment of its own.

This module decides how a witness is found, asked and its answer read, and how a benchmark reports. It must not know
what is asked.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from witness_tiles import Tile, tiles

from spiketrack_deploy.errors import EngineError, SpiketrackError

HERE = Path(__file__).resolve().parent
SECONDS = 300


@dataclass(frozen=True, slots=True)
class Witness:
    """``package`` (name and version on PyPI) in the interpreter that the environment ``variable`` names; ``worker``
    reads one JSON object from stdin and answers with one, on a line of its own."""

    name: str
    package: str
    variable: str
    worker: str

    def interpreter(self) -> str:
        """The interpreter; EngineError says how to get one."""
        found = os.environ.get(self.variable)
        if not found or not Path(found).is_file():
            raise EngineError(
                f"set {self.variable} to a Python that has {self.package.replace('==', ' ')} "
                f"(pip install {self.package} in its own venv)."
            )
        return found

    def ask(self, task: dict[str, Any]) -> dict[str, Any]:
        """The worker's answer; EngineError where it gives none."""
        done = subprocess.run(
            [self.interpreter(), str(HERE / self.worker)],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            why = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise EngineError(f"{self.name} failed: {why}")
        found: dict[str, Any] = json.loads(lines[-1])
        return found


def report(
    witness: Witness,
    description: str,
    key: str,
    compare: Callable[[Tile], Sequence[dict[str, Any]]],
    lines: Callable[[dict[str, Any]], Sequence[str]],
) -> int:
    """Parse the command line, compare all tiles, print (``--json``: one object with the results under ``key``).

    Exit code 0: all of at least three results agree; 1: one differs; 6: no witness.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path, nargs="?", default=HERE.parent / "tests" / "golden")
    parser.add_argument("--config", default="n128_t1")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        witness.interpreter()
        results = [result for tile in tiles(options.folder, options.config) for result in compare(tile)]
    except SpiketrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    ok = len(results) >= 3 and all(result["ok"] for result in results)
    if options.json:
        print(json.dumps({"witness": witness.package.replace("==", " "), key: results, "ok": ok}, indent=1))
        return 0 if ok else 1
    for result in results:
        first, *rest = lines(result)
        print("\n".join([f"{'ok  ' if result['ok'] else 'FAIL'} {first}", *rest]))
    return 0 if ok else 1
