"""Steps of a network that lives in time, whoever made it: recorded, compared on every engine, kept with the bundle.

This module decides how many steps are checked and kept. It must not know where a network came from.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from spiketrack_deploy.bundle import answers, layout
from spiketrack_deploy.bundle.clock import Clock
from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.errors import InputError, VerificationError
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.untrusted import Arrays
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.program.store import AGAIN
from spiketrack_deploy.program.types import IntArray, Program

PHASE = "step"
CHECKED_STEPS, KEPT_STEPS = 50, 8
"""Steps whose every operation is compared between engines, and those of them that travel with the bundle."""
CHECKED_VALUES = 1 << 24
Steps = Sequence[Mapping[str, IntArray]]
"""What enters in every step, by input ``[1, C, H, W]``."""


class Run(Protocol):
    """What of an export's plan decides who runs."""

    @property
    def engine(self) -> str: ...
    @property
    def threads(self) -> int | None: ...


def record(program: Program, steps: Steps, tell: Tell | None) -> list[answers.Run]:
    """The first steps with the reference engine, states among their inputs, so that each stands alone."""
    held = sum(spec.size for spec in program.phases[PHASE].inputs.values())
    count = max(2, min(CHECKED_STEPS, len(steps), CHECKED_VALUES // max(held, 1)))
    runs: list[answers.Run] = []
    with ReferenceEngine(program) as engine:
        states = engine.session().states
        for index, inputs in enumerate(steps[:count]):
            if tell:
                tell("known answers", index, count)
            run, outputs, _ = answers.execute(program, engine, PHASE, {**inputs, **states})
            states = {name: value for name, value in outputs.items() if name in program.states}
            runs.append(run)
    return runs


def keep(folder: Path, program: Program, recorded: Sequence[answers.Run]) -> None:
    """Steps from the first to the last of them, as the bundle's known answers."""
    chosen = [recorded[i] for i in sorted({round(i) for i in np.linspace(0, len(recorded) - 1, KEPT_STEPS)})]
    answers.save(folder, program, chosen, layout.VECTORS, layout.EXPECTED)


def others(engine: str) -> list[str]:
    """Engines that are asked beside the chosen one; Lava only where it is chosen, because it starts processes."""
    found = ["sim", *(["onnx"] if find_spec("onnxruntime") else [])]
    return [name for name in found if name != engine]


def threads(plan: Run) -> dict[str, Any]:
    return {"threads": plan.threads} if plan.engine == "sim" else {}


def checked(name: str, program: Program, recorded: Sequence[answers.Run], clock: Clock) -> dict[str, Any]:
    with clock.stage(f"{name} against reference"), make_engine(name, program) as engine:
        return row(name, answers.check(program, engine, recorded, "export", clock.tell))


def in_stock(program: Program, steps: Steps, clock: Clock) -> dict[str, Any]:
    """One Lava run of all ``steps``, states beginning as declared; VerificationError where a value differs."""
    from spiketrack_deploy.engines.stock_run import compare_stock

    inputs = {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}
    with clock.stage("stock Lava against reference"):
        done = compare_stock(program, PHASE, inputs, timeout=600)
    wrong = {name: count for name, count in done.differing.items() if count}
    if wrong:
        raise VerificationError(f"lava, stock Processes: {sum(wrong.values())} integers differ, first in {min(wrong)}")
    seen = answers.Checked(len(steps), len(steps) * len(done.differing), done.compared, 0)
    return row(f"lava (stock Processes: {done.compared} integers leave them)", seen)


def row(name: str, found: answers.Checked) -> dict[str, Any]:
    return {"engine": name, "against": "reference", **asdict(found)}


def write_onnx(program: Program, path: Path) -> None:
    from spiketrack_deploy.engines.onnx_export import export_onnx

    export_onnx(program, path, PHASE)


def save_input(folder: Path, steps: Steps) -> None:
    """Everything that entered, so that the bundle can run it again: input -> int32 ``[steps, C, H, W]``."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        name: np.concatenate([step[name] for step in steps]).astype(np.int32) for name in steps[0]
    }
    np.savez_compressed(buffer, **arrays)
    write_whole(folder / layout.INPUT, buffer.getvalue())


def load_input(folder: Path, program: Program) -> list[dict[str, IntArray]]:
    """Inverse of :func:`save_input`; InputError where the file is missing or not of this program."""
    path, found = folder / layout.INPUT, dict[str, IntArray]()
    if not path.is_file():
        raise InputError(f"{path}: file is missing; {AGAIN}")
    with Arrays(path, packed=True, remedy=AGAIN) as archive:
        for name, spec in program.external(program.phases[PHASE]).items():
            values = archive.read(name)
            if values.shape[1:] != tuple(spec.shape[1:]) or values.dtype != np.int32 or not len(values):
                raise InputError(f"{path}: array {name} is {values.dtype} {values.shape}, not of this program; {AGAIN}")
            found[name] = values.astype(np.int64)
    if len({len(values) for values in found.values()}) != 1:
        raise InputError(f"{path}: its arrays have different numbers of steps; {AGAIN}")
    return [{name: values[t : t + 1] for name, values in found.items()} for t in range(len(next(iter(found.values()))))]
