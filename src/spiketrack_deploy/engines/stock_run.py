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
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.lava_interpreter import lava_python
from spiketrack_deploy.engines.stock_nodes import StockPlan
from spiketrack_deploy.engines.stock_plan import stock_plan
from spiketrack_deploy.engines.stock_unroll import has_memory, split, steps_of
from spiketrack_deploy.errors import EngineError
from spiketrack_deploy.program.types import AnyArray, IntArray, Program

_MAIN = Path(__file__).resolve().parent / "lava_worker" / "stock_main.py"
_SHARED_MEMORY = Path("/dev/shm")
MOST_PROCESSES = 300


@dataclass(frozen=True)
class StockRun:
    """``values``: ``[T, C, H, W]`` by value of the program; ``seconds``: of the Lava run alone; ``steps``: Lava's."""

    values: Mapping[str, IntArray]
    seconds: float
    steps: int


def write_plan(plan: StockPlan, folder: Path, name: str) -> None:
    """``NAME.json`` and ``NAME.npz``, the same bytes for the same plan."""
    document, arrays = plan.to_files()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    small: dict[str, Any] = {key: smallest(array) for key, array in arrays.items()}
    np.savez_compressed(folder / f"{name}.npz", **small)


def smallest(array: AnyArray) -> AnyArray:
    """The same integers in as few bytes as hold them."""
    ends = (np.min_scalar_type(int(end)) for end in (array.min(initial=0), array.max(initial=0)))
    return array.astype(np.result_type(*ends))


@dataclass(frozen=True)
class Job:
    """A network to run on ``inputs`` ``[T, C, H, W]`` (one picture held still where it is static); values to read."""

    plan: StockPlan
    inputs: Mapping[str, AnyArray]
    wanted: Sequence[str]

    @property
    def steps(self) -> int:
        """Of the inputs."""
        return 1 if self.plan.static else max(len(a) for a in self.inputs.values())

    def write(self, folder: Path) -> None:
        """What the worker reads."""
        write_plan(self.plan, folder, "network")
        given = [name for name in self.inputs if any(not e.end.node and e.end.out == name for e in self.plan.edges)]
        fed: dict[str, Any] = {str(n): np.asarray(self.inputs[name])[: self.steps] for n, name in enumerate(given)}
        np.savez(folder / "inputs.npz", **fed)
        (folder / "request.json").write_text(json.dumps({"inputs": given, "wanted": list(self.wanted)}))

    def read(self, folder: Path) -> StockRun:
        """What the worker wrote."""
        shapes = {name: _shape(self.plan, name) for name in self.wanted}
        found = {name: _value(folder / f"{n}.bin", shapes[name], self.steps) for n, name in enumerate(self.wanted)}
        total = self.steps + max((self.plan.latency[name] for name in self.wanted), default=0)
        return StockRun(found, float((folder / "seconds").read_text()), total)


def run_stock(
    jobs: Sequence[Job], *, python: str | None = None, timeout: float = 300.0
) -> Generator[StockRun, None, None]:
    """Run networks one after the other in one interpreter with Lava; ``timeout`` seconds each.

    EngineError: no such interpreter, a Process fails, dies or hangs.
    """
    interpreter = lava_python(python)
    for job in jobs:
        if len(job.plan.nodes) > MOST_PROCESSES:
            raise EngineError(
                f"lava: {len(job.plan.nodes)} Processes, each a process of the system; {MOST_PROCESSES} are the most"
            )
    folder = Path(tempfile.mkdtemp(prefix="spiketrack-stock-"))
    prefix = f"psm_st{os.getpid()}_{secrets.token_hex(4)}_"
    try:
        (folder / "runs").write_text(str(len(jobs)))
        for index, job in enumerate(jobs):
            job.write(folder / str(index))
        with _worker([str(interpreter), str(_MAIN), str(folder), str(os.getpid()), prefix], folder) as process:
            for index, job in enumerate(jobs):
                _wait(process, folder, folder / str(index) / "done", timeout)
                yield job.read(folder / str(index))
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


@contextlib.contextmanager
def _worker(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The worker, killed with everything that it started."""
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
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], folder: Path, done: Path, timeout: float) -> None:
    end = time.monotonic() + timeout
    while not done.exists():
        if (folder / "error.json").exists():
            raise EngineError(f"lava: {json.loads((folder / 'error.json').read_text())['error']}")
        if process.poll() is not None and not done.exists():
            raise EngineError(f"lava: the worker died (status {process.returncode}){_tail(folder)}")
        if time.monotonic() > end:
            raise EngineError(f"lava: the stock run did not end within {timeout:g} s{_tail(folder)}")
        time.sleep(0.02)


def _tail(folder: Path) -> str:
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()[-3:]
    return "; its log ends with: " + " | ".join(line.strip() for line in lines) if lines else ""


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
    """Every operation's value ``[T, ...]`` by the reference rules, states beginning as declared or as given; of a
    phase of several time steps, which runs once, by the names of the unrolled one."""
    session = ReferenceEngine(program).session()
    session.states.update(states or {})
    if steps_of(program.phases[phase]) > 1:
        once: dict[str, IntArray] = {}
        session.step(phase, inputs, watch=lambda op, value: once.__setitem__(op.name, value), count=False)
        return split(program.phases[phase], once)
    seen: dict[str, list[IntArray]] = {}
    for t in range(max(len(a) for a in inputs.values())):
        given = {name: a[t : t + 1] for name, a in inputs.items()}
        session.step(phase, given, watch=lambda op, value: seen.setdefault(op.name, []).append(value[0]), count=False)
    return {name: np.stack(values) for name, values in seen.items()}


@dataclass(frozen=True)
class Comparison:
    """A job, and ``seen``, what the reference gives for every value."""

    job: Job
    seen: Mapping[str, AnyArray]

    def judged(self, done: StockRun) -> StockParity:
        """What differs in a run."""
        differing = {name: int((done.values[name] != self.seen[name]).sum()) for name in self.job.wanted}
        return StockParity(differing, sum(done.values[name].size for name in self.job.wanted), self.job.plan, done)


def comparison(
    program: Program,
    phase: str,
    inputs: Mapping[str, AnyArray],
    *,
    ops: Iterable[str] | None = None,
    memories: Mapping[str, IntArray] | None = None,
    as_weights: bool = True,
    values: Mapping[str, IntArray] | None = None,
) -> Comparison:
    """All steps of a phase, states beginning as declared, in stock Processes and by the reference rules.

    ``inputs`` ``[T, ...]`` by name. ``ops``: these operations alone; what they read of others is taken from the
    reference. ``memories``: content of states, which become weights unless ``as_weights`` is false. Every value that
    can be seen is compared. ``values``: :func:`reference_values`, where they are known.
    """
    plan = stock_plan(program, phase, ops, memories if as_weights else None)
    given = {e.end.out for e in plan.edges if not e.end.node}
    states = {name: np.asarray(a) for name, a in (memories or {}).items()}
    if values is None:
        values = reference_values(program, phase, inputs, states)
    if steps_of(program.phases[phase]) > 1:
        seen = split(program.phases[phase], {**states, **inputs}) | dict(values)
    else:
        seen = {**{name: a[None, 0] for name, a in states.items()}, **values, **inputs}
    shown = [name for name in plan.visible() if name in seen]  # a membrane of an unrolled neuron is none of its values
    return Comparison(Job(plan, {name: np.asarray(seen[name]) for name in given}, shown), seen)


def compare_all(found: Sequence[Comparison], **options: Any) -> Generator[StockParity, None, None]:
    """Run them one after the other (``options`` of :func:`run_stock`)."""
    with contextlib.closing(run_stock([one.job for one in found], **options)) as runs:
        for one, done in zip(found, runs):
            yield one.judged(done)


def compare_stock(
    program: Program,
    phase: str,
    inputs: Mapping[str, AnyArray],
    *,
    python: str | None = None,
    timeout: float = 300.0,
    **words: Any,
) -> StockParity:
    """One :func:`comparison`, run."""
    (found,) = compare_all([comparison(program, phase, inputs, **words)], python=python, timeout=timeout)
    return found


def comparisons(
    program: Program, phase: str, inputs: Mapping[str, AnyArray], memories: Mapping[str, IntArray]
) -> dict[str, Comparison]:
    """All operations, run by run: a phase without memory block by block, each on the reference's values, its
    ``memories`` being weights; one with memory in one run, its states beginning as declared."""
    ops = program.phases[phase].ops
    if has_memory(program.phases[phase]):
        return {phase: comparison(program, phase, inputs)}
    words: dict[str, Any] = {"memories": memories, "values": reference_values(program, phase, inputs, memories)}
    blocks = {block: [op.name for op in ops if op.block == block] for block in dict.fromkeys(op.block for op in ops)}
    return {block: comparison(program, phase, inputs, ops=here, **words) for block, here in blocks.items()}
