"""Ten thousand damaged NIR files against the reader: none crashes, hangs, reads elsewhere, takes too much or stays.

    python benchmarks/nir_fuzz.py [--files N] [--seed S] [--whole-every K] [--json]

Each file is read in a forked process under the reader's own limits on time and memory; every K-th one the way a user
reads it, with a child interpreter of its own (``nir_graph/guard.py``). A file either is a network or is refused in one
sentence that names it. A secret lies beside the files: no number of it may turn up in what was read.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from _nir_mutants import mutant, originals  # noqa: E402

from spiketrack_deploy.errors import InputError  # noqa: E402
from spiketrack_deploy.frontends.nir.build import read_network  # noqa: E402
from spiketrack_deploy.nir_graph.guard import MEMORY_BASE  # noqa: E402
from spiketrack_deploy.nir_graph.tree import NETWORK_LIMITS, SLACK_BYTES  # noqa: E402

SECRET = 0.123456789012345
MEMORY = MEMORY_BASE + NETWORK_LIMITS.array_bytes + SLACK_BYTES
"""Bytes that a reading process may have at most: the interpreter and what a file may declare."""


def answer(path: Path, isolate: bool) -> tuple[str, str]:
    """("network" or "refused", sentence), or ("leak", where) if the secret was read."""
    try:
        network = read_network(path, isolate=isolate).network
    except InputError as error:
        return "refused", str(error)
    for node in network.nodes.values():
        for value in node.params.values():
            if isinstance(value, np.ndarray) and bool((value == SECRET).any()):
                return "leak", node.name
    return "network", ""


def forked(path: Path) -> tuple[str, str, float, int]:
    """:func:`answer` in a forked process: with seconds and peak resident bytes; status in words where it died."""
    start = time.perf_counter()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        for kind, value in (
            (resource.RLIMIT_AS, MEMORY),
            (resource.RLIMIT_CPU, 60),
        ):
            resource.setrlimit(kind, (value, value))
        signal.alarm(90)
        try:
            found: Any = answer(path, isolate=False)
        except BaseException as error:  # noqa: BLE001 - whatever escapes is the finding
            found = ("bug", f"{type(error).__name__}: {error}")
        os.write(writer, pickle.dumps(found)[:60_000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    _, status, usage = os.wait4(child, 0)
    seconds, resident = time.perf_counter() - start, usage.ru_maxrss * 1024
    if not data:
        return "died", f"status {status}", seconds, resident
    return (*pickle.loads(data), seconds, resident)  # noqa: S301 - our own child's


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole-every", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    worst = {"seconds": 0.0, "resident": 0, "whole_seconds": 0.0}
    findings: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        whole, path, secret = originals(folder), folder / "mutant.nir", folder / "secret.h5"
        with h5py.File(secret, "w") as file:
            file["tau"] = np.full(4, SECRET)
        for seed in range(args.seed, args.seed + args.files):
            way = mutant(whole, seed, path, secret)
            verdict, said, seconds, resident = forked(path)
            worst["seconds"], worst["resident"] = max(worst["seconds"], seconds), max(worst["resident"], resident)
            one = "\n" not in said and (verdict != "refused" or str(path) in said)
            # What kills a reading process is one sentence where the guard reads: looked at there.
            if verdict == "died" or seed % args.whole_every == 0:
                start = time.perf_counter()
                verdict, said = answer(path, isolate=True)
                worst["whole_seconds"] = max(worst["whole_seconds"], time.perf_counter() - start)
                verdict = "refused by the guard" if "died" in said or "did not end" in said else verdict
            counts.setdefault(way, Counter())[verdict] += 1
            if verdict in ("bug", "leak", "died") or not one or resident > MEMORY:
                findings.append(f"seed {seed} ({way}): {verdict}: {said[:300]}, {resident >> 20} MiB, {seconds:.1f} s")
        left = _children()
    result = {"files": args.files, "ways": {way: dict(found) for way, found in sorted(counts.items())}, "worst": worst,
              "findings": findings, "processes_left": left}  # fmt: skip
    print(json.dumps(result, indent=1) if args.json else _table(result))
    return 1 if findings or left else 0


def _children() -> int:
    return len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def _table(result: dict[str, Any]) -> str:
    rows = [f"{way:10s} {dict(found)}" for way, found in result["ways"].items()]
    worst = result["worst"]
    return "\n".join(
        [
            *rows,
            f"{result['files']} files: longest {worst['seconds']:.2f} s, {worst['whole_seconds']:.2f} s with its own "
            f"interpreter; {worst['resident'] >> 20} MiB resident at most; {result['processes_left']} processes left",
            *(result["findings"] or ["no finding"]),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
