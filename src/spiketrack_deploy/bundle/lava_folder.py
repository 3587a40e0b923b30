"""``lava/`` of a bundle: a phase as Processes that Lava ships, which any program with lava-nc and NumPy imports.

This module decides the files and the ten lines that use them. It must not know Lava: ``stock_network.py``, which goes
along, does.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.bundle.answers import Run
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.engines.lava_worker import stock
from spiketrack_deploy.engines.stock_nodes import StockPlan
from spiketrack_deploy.engines.stock_plan import stock_plan
from spiketrack_deploy.engines.stock_run import Comparison, StockParity, compare_all, comparisons, smallest, write_plan
from spiketrack_deploy.engines.stock_unroll import has_memory, split
from spiketrack_deploy.errors import EngineError, VerificationError
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.program.types import AnyArray, IntArray, Op, Program

FOLDER = "lava"
STEPS = 8
"""Of the answers of a network."""
MODULES = ("stock_network.py", "stock_processes.py")
LARGEST = 1 << 20
"""Values a run of a tracker's phase whose Processes go into its bundle unasked: under 1 s and 5 MB."""
_README = """# Phase `{phase}` as Lava Processes

`{phase}.json` and `{phase}.npz` say which; `stock_network.py` (lava-nc 0.10.0 and NumPy, nothing else) builds them:
{processes}.
`Own` does what none of Lava's does exactly (its `"reason"` says why). Ports have the axes (width, height, channels).
Keep programs of yours outside this folder: Lava runs every file that lies beside a Process.

```python
import sys
sys.path.append("{place}")
from stock_network import build
network = build("{phase}")  # network.processes, by name, connected to one another
inputs, answers = network.answers()  # recorded: {shape}
network.play(inputs)  # or network.feed(name, your_process.s_out)
values = network.run(*answers)  # or network.read(name, your_process.a_in)
assert all((values[name] == answers[name]).all() for name in answers)
network.stop()
```

{answers}
"""


def answered(program: Program, plan: StockPlan) -> list[str]:
    """Values that the answers hold: the phase's results, where Lava can read them."""
    visible = plan.visible()
    outputs = {v for n, v in program.phases[plan.phase].outputs.items() if plan.static or n not in program.states}
    return [value for value in visible if value.partition("@")[0] in outputs] or visible[-1:]


def write_lava(
    folder: Path, plan: StockPlan, inputs: Mapping[str, AnyArray], answers: Mapping[str, AnyArray], place: str
) -> None:
    """Everything into ``folder``, the same bytes for the same plan. ``inputs``, ``answers``: ``[T, C, H, W]``.
    ``place``: what the folder is called from where it is used."""
    write_plan(plan, folder, plan.phase)
    kept: dict[str, Any] = {f"input:{name}": smallest(a) for name, a in inputs.items()}
    kept |= {f"output:{name}": smallest(a) for name, a in answers.items()}
    np.savez_compressed(folder / f"{plan.phase}.answers.npz", **kept)
    for name in MODULES:
        shutil.copyfile(Path(stock.__file__).with_name(name), folder / name)
    still = " A picture is held still until everything has settled." if plan.static else ""
    late = ", ".join(f"`{name}` {plan.latency[name]} steps" for name in answers)
    text = _README.format(
        phase=plan.phase, place=place, shape="name -> [T, C, H, W]", processes=said(plan),
        answers=f"Answers come late, because a connection takes a step: {late}.{still}",
    )  # fmt: skip
    (folder / "README.md").write_text(text, encoding="utf-8")


def said(plan: StockPlan) -> str:
    """How many Processes of which kind."""
    counts = Counter(node.process for node in plan.nodes.values())
    return ", ".join(f"{count} {process}" for process, count in sorted(counts.items()))


def add_tracker(folder: Path, program: Program, phase: str, inputs: Mapping[str, AnyArray]) -> dict[str, Any]:
    """:func:`add_lava` of a small tracker; a large one's takes minutes, so it is written where it is asked for."""
    values = sum(spec.size for spec in program.phases[phase].values.values())
    if values > LARGEST:
        reason = f"{values} values a run, more than {LARGEST}: spiketrack lava BUNDLE writes its Processes"
        return {"phase": phase, "processes": {}, "reason": reason}
    return add_lava(folder, program, phase, inputs)


def add_lava(folder: Path, program: Program, phase: str, inputs: Mapping[str, AnyArray]) -> dict[str, Any]:
    """``lava/`` in a bundle, with what the program gives for ``inputs`` ``[T, ...]`` (states that another phase writes
    among them). Where an operation has no Process, nothing is written and ``reason`` says which."""
    try:
        plan = stock_plan(program, phase)
    except EngineError as error:
        return {"phase": phase, "processes": {}, "reason": str(error)}
    wanted = answered(program, plan)
    seen: dict[str, list[IntArray]] = {}

    def watch(op: Op, value: IntArray) -> None:
        seen.setdefault(op.name, []).append(np.array(value))

    if plan.static:  # one picture
        inputs = {name: a[: program.phases[phase].spec(name).shape[0]] for name, a in inputs.items()}
    outside = {name: a for name, a in inputs.items() if name not in program.states}
    with make_engine("sim", program) as engine:
        session = engine.session()
        session.states.update({name: a for name, a in inputs.items() if name in program.states})
        for step in range(1 if plan.static else max(map(len, outside.values()))):
            given = outside if plan.static else {name: a[step : step + 1] for name, a in outside.items()}
            session.step(phase, given, watch=watch, count=False)
    values = {name: np.concatenate(found) for name, found in seen.items()}
    if plan.static:
        inputs, values = (split(program.phases[phase], found) for found in (inputs, values))
    write_lava(folder / FOLDER, plan, inputs, {name: values[name] for name in wanted}, FOLDER)
    return {"phase": phase, "processes": dict(Counter(n.process for n in plan.nodes.values())), "reason": ""}


def compare_recorded(
    program: Program, recorded: Sequence[Run], tell: Tell | None = None, python: str | None = None
) -> Iterator[tuple[str, str, StockParity]]:
    """Recorded inputs in stock Processes, as (phase, block, what was found): every phase of a tracker block by block on
    its first run, a network in one Lava run of all its steps. EngineError before the first of them where one cannot
    be; VerificationError: an integer differs."""
    todo: dict[tuple[str, str], Comparison] = {}
    for phase in program.phases:
        runs = [one for one in recorded if one.phase == phase]
        runs = runs if has_memory(program.phases[phase]) else runs[:1]
        if not runs:
            continue
        outside = {n: np.concatenate([one.inputs[n] for one in runs]) for n in program.external(program.phases[phase])}
        held = {n: np.asarray(a, dtype=np.int64) for n, a in runs[0].inputs.items() if n not in outside}
        todo |= {(phase, block): one for block, one in comparisons(program, phase, outside, held).items()}
    with closing(compare_all(list(todo.values()), python=python, timeout=600)) as done:
        for index, ((phase, block), found) in enumerate(zip(todo, done)):
            wrong = {name: count for name, count in found.differing.items() if count}
            if wrong:
                raise VerificationError(
                    f"lava, stock Processes: {sum(wrong.values())} of {found.compared} integers of {phase}, {block} "
                    f"differ, the first in {next(iter(wrong))}"
                )
            if tell:
                tell(f"stock Lava: {phase} {block}", index + 1, len(todo))
            yield phase, block, found


def summed(found: Iterable[tuple[str, str, StockParity]]) -> dict[str, Any]:
    """Lava runs, their Processes by kind, integers that left one and how many of them differ."""
    done = [one for _, _, one in found]
    kinds = Counter(node.process for one in done for node in one.plan.nodes.values())
    compared, differing = (sum(one.compared for one in done), sum(sum(one.differing.values()) for one in done))
    return {"runs": len(done), "processes": dict(kinds), "integers": compared, "differing": differing}
