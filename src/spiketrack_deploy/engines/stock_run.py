"""A run of stock Lava Processes, from outside: started, waited for, ended, its values read.

This module decides how the interpreter with Lava is started and stopped, and what is compared with a program. It must
not know Lava. The worker leads a process group of its own that is killed on every way out, as the Lava engine's is.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.lava_interpreter import lava_python
from spiketrack_deploy.engines.stock_nodes import StockPlan
from spiketrack_deploy.engines.stock_plan import NEURON, stock_plan
from spiketrack_deploy.errors import EngineError
from spiketrack_deploy.program.types import AnyArray, IntArray, Phase, Program

_MAIN = Path(__file__).resolve().parent / "lava_worker" / "stock_main.py"
_SHARED_MEMORY = Path("/dev/shm")
MOST_PROCESSES = 300


@dataclass(frozen=True)
class StockRun:
    """``values``: ``[T, C, H, W]`` by value of the program; ``seconds``: of the Lava run alone; ``steps``: Lava's."""

    values: Mapping[str, IntArray]
    seconds: float
    steps: int


def write_plan(plan: StockPlan, folder: Path) -> None:
    """``network.json`` and ``arrays.npz``."""
    document, arrays = plan.to_files()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "network.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]


def run_stock(
    plan: StockPlan,
    inputs: Mapping[str, AnyArray],
    wanted: Iterable[str],
    *,
    python: str | None = None,
    timeout: float = 300.0,
) -> StockRun:
    """Run a plan on ``inputs`` ``[T, C, H, W]`` (one picture held still where the plan is static).

    ``wanted``: values to read. EngineError: no interpreter with Lava, a Process fails, dies or hangs.
    """
    interpreter = lava_python(python)
    names = list(wanted)
    steps = 1 if plan.static else max(len(a) for a in inputs.values())
    total = steps + max((plan.latency[name] for name in names), default=0)
    if len(plan.nodes) > MOST_PROCESSES:
        raise EngineError(
            f"lava: {len(plan.nodes)} Processes, each a process of the system; {MOST_PROCESSES} are the most"
        )
    folder = Path(tempfile.mkdtemp(prefix="spiketrack-stock-"))
    prefix = f"psm_st{os.getpid()}_{secrets.token_hex(4)}_"
    try:
        write_plan(plan, folder)
        (folder / "values").mkdir()
        given = [name for name in inputs if any(not e.end.node and e.end.out == name for e in plan.edges)]
        fed: dict[str, Any] = {str(n): np.asarray(inputs[name]) for n, name in enumerate(given)}
        np.savez(folder / "inputs.npz", **fed)
        shapes = {name: _shape(plan, name) for name in names}
        rows = [(name, shapes[name], plan.latency[name] + 1, plan.latency[name] + 1 + steps) for name in names]
        (folder / "request.json").write_text(json.dumps({"steps": total, "inputs": given, "wanted": rows}))
        _execute([str(interpreter), str(_MAIN), str(folder), str(os.getpid()), prefix], folder, timeout)
        values = {name: _value(folder / "values" / f"{n}.bin", shapes[name], steps) for n, name in enumerate(names)}
        return StockRun(values, float((folder / "seconds").read_text()), total)
    finally:
        for left in _SHARED_MEMORY.glob(prefix + "*") if _SHARED_MEMORY.is_dir() else ():
            left.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _shape(plan: StockPlan, name: str) -> list[int]:
    end = plan.values[name][0]
    return [int(n) for n in (end.views[-1] if end.views else end.shape)]


def _value(path: Path, shape: list[int], steps: int) -> IntArray:
    raw = np.fromfile(path, dtype=np.int32).reshape(steps, *shape[::-1])
    value: IntArray = np.swapaxes(raw, 1, 3).astype(np.int64)
    return value


def _execute(command: list[str], folder: Path, timeout: float) -> None:
    environment = dict(
        os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1", TMPDIR=str(folder)
    )
    for variable in ("PYTHONPATH", "PYTHONHOME"):
        environment.pop(variable, None)
    with (folder / "log").open("wb") as log:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                                       env=environment, start_new_session=True)  # fmt: skip
        except OSError as error:
            raise EngineError(f"lava: {command[0]} does not start ({error})") from None
        end = time.monotonic() + timeout
        try:
            while not (folder / "done").exists():
                if (folder / "error.json").exists():
                    raise EngineError(f"lava: {json.loads((folder / 'error.json').read_text())['error']}")
                if process.poll() is not None and not (folder / "done").exists():
                    raise EngineError(f"lava: the worker died (status {process.returncode}){_tail(folder)}")
                if time.monotonic() > end:
                    raise EngineError(f"lava: the stock run did not end within {timeout:g} s{_tail(folder)}")
                time.sleep(0.02)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _tail(folder: Path) -> str:
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()[-3:]
    return "; last lines of its log:\n  " + "\n  ".join(lines) if lines else ""


@dataclass(frozen=True)
class StockParity:
    """``differing``: integers by value; ``compared``: how many; ``plan``, ``run``: what was compared."""

    differing: Mapping[str, int]
    compared: int
    plan: StockPlan
    run: StockRun

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not any(self.differing.values())


def reference_values(
    program: Program, phase: str, inputs: Mapping[str, AnyArray], states: Mapping[str, AnyArray] | None = None
) -> dict[str, IntArray]:
    """Every operation's value ``[T, ...]`` by the reference rules, states beginning as declared or as given."""
    session = ReferenceEngine(program).session()
    session.states.update(states or {})
    seen: dict[str, list[IntArray]] = {}
    for t in range(max(len(a) for a in inputs.values())):
        given = {name: a[t : t + 1] for name, a in inputs.items()}
        session.step(phase, given, watch=lambda op, value: seen.setdefault(op.name, []).append(value[0]), count=False)
    return {name: np.stack(values) for name, values in seen.items()}


def compare_stock(
    program: Program,
    phase: str,
    inputs: Mapping[str, AnyArray],
    *,
    ops: Iterable[str] | None = None,
    memories: Mapping[str, IntArray] | None = None,
    as_weights: bool = True,
    values: Mapping[str, IntArray] | None = None,
    **options: Any,
) -> StockParity:
    """All steps of a phase, states beginning as declared, in stock Processes and by the reference rules.

    ``inputs`` ``[T, ...]`` by name. ``ops``: these operations alone; what they read of others is taken from the
    reference. ``memories``: content of states, which become weights unless ``as_weights`` is false. Every value that
    can be seen is compared. ``values``: :func:`reference_values`, where they are known.
    """
    plan = stock_plan(program, phase, ops, memories if as_weights else None)
    wanted = plan.visible()
    given = {e.end.out for e in plan.edges if not e.end.node}
    states = {name: np.asarray(a) for name, a in (memories or {}).items()}
    if values is None:
        values = reference_values(program, phase, inputs, states)
    seen = {**{name: a[None, 0] for name, a in states.items()}, **values, **inputs}
    done = run_stock(plan, {name: np.asarray(seen[name]) for name in given}, wanted, **options)
    differing = {name: int((done.values[name] != seen[name]).sum()) for name in wanted}
    return StockParity(differing, sum(done.values[name].size for name in wanted), plan, done)


def has_memory(phase: Phase) -> bool:
    """Whether what it computes depends on the steps before, so that its picture cannot be held still."""
    return any(op.kind in NEURON or op.kind == "remember" for op in phase.ops)


def compare_whole(
    program: Program, phase: str, inputs: Mapping[str, AnyArray], memories: Mapping[str, IntArray], **options: Any
) -> Iterator[tuple[str, StockParity]]:
    """:func:`compare_stock` of all operations, run by run: a phase without memory block by block, each on the
    reference's values, its ``memories`` being weights; one with memory in one run, its states beginning as declared."""
    ops = program.phases[phase].ops
    if has_memory(program.phases[phase]):
        yield phase, compare_stock(program, phase, inputs, **options)
        return
    values = reference_values(program, phase, inputs, memories)
    for block in dict.fromkeys(op.block for op in ops):
        here = [op.name for op in ops if op.block == block]
        yield block, compare_stock(program, phase, inputs, ops=here, memories=memories, values=values, **options)
