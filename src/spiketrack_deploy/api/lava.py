"""Out to Lava: a folder of stock Processes that others import, and ``.net`` files of lava-dl.

This module decides defaults and what a verb returns. It must not print; heavy parts are imported when a verb runs.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiketrack_deploy.api.asked import Place
from spiketrack_deploy.api.results_networks import LavaResult, NetxResult, StockResult
from spiketrack_deploy.bundle import layout
from spiketrack_deploy.errors import InputError, VerificationError
from spiketrack_deploy.inputs.progress import Tell

if TYPE_CHECKING:
    from spiketrack_deploy.program.types import Program

SUFFIX = ".net"


def _program(subject: Place) -> tuple[Program, str]:
    """The program of a bundle, or of a ``.net`` file."""
    path = Path(subject)
    if (path / layout.MANIFEST).is_file():
        from spiketrack_deploy.bundle.contents import read_alone

        return read_alone(path), path.name
    if path.suffix == SUFFIX:
        from spiketrack_deploy.frontends.netx.lower import lower_netx
        from spiketrack_deploy.frontends.netx.read import read_netx

        return lower_netx(read_netx(path), "aligned", width=24), path.stem
    raise InputError(f"{path}: is neither a bundle nor a {SUFFIX} file of lava-dl")


def lava(
    subject: Place, out: Place | None = None, phase: str | None = None, steps: int = 8, seed: int = 0,
    check: bool = False, force: bool = False, python: str | None = None, timeout: float = 600.0,
) -> LavaResult:  # fmt: skip
    """Write a phase as importable Lava Processes with recorded answers; ``check``: run them and compare everything.

    InputError, UsageError; EngineError: an operation has no Process, Lava is missing, hangs or dies; VerificationError:
    an integer differs. Nothing is written then.
    """
    import numpy as np

    from spiketrack_deploy.bundle.lava_folder import answered, write_lava
    from spiketrack_deploy.engines.stock_plan import stock_plan
    from spiketrack_deploy.engines.stock_run import compare_stock, reference_values
    from spiketrack_deploy.engines.stock_unroll import split
    from spiketrack_deploy.inputs.whole_folder import whole_folder

    program, name = _program(subject)
    chosen = phase or list(program.phases)[-1]
    if chosen not in program.phases:
        raise InputError(f"{subject}: has no phase {chosen!r}; it has {', '.join(program.phases)}")
    target = Path(out) if out is not None else Path(f"{name}-lava")
    if target.exists() and not force:
        raise InputError(f"{target}: is there already; choose another place with -o, or replace it with --force")
    part, plan = program.phases[chosen], stock_plan(program, chosen)
    sizes = {n: spec.shape if plan.static else (steps, *spec.shape[1:]) for n, spec in part.inputs.items()}
    rng = np.random.default_rng(seed)
    drawn = {
        n: rng.integers(spec.extremes[0], max(spec.extremes[1], 3) + 1, sizes[n])
        for n, spec in part.inputs.items() if n not in program.states or n not in program.phases[chosen].outputs
    }  # fmt: skip
    held = {n: a for n, a in drawn.items() if n in program.states}
    outside = {n: a for n, a in drawn.items() if n not in program.states}
    values = reference_values(program, chosen, outside, held)
    shown = answered(program, plan)
    differing = compared = None
    if check:
        done = compare_stock(
            program, chosen, outside, memories=held, as_weights=False, values=values, python=python, timeout=timeout
        )
        differing, compared = sum(done.differing.values()), done.compared
        if differing:
            worst = next(n for n, count in done.differing.items() if count)
            raise VerificationError(f"lava: {differing} of {compared} integers differ, the first in {worst}")
    with whole_folder(target) as folder:
        given = split(part, drawn) if plan.static else drawn
        write_lava(folder, plan, given, {n: values[n] for n in shown}, target.name)
    return {
        "folder": str(target), "phase": chosen, "processes": dict(Counter(n.process for n in plan.nodes.values())),
        "rows": plan.rows(), "outputs": {n: plan.latency[n] for n in shown},
        "compared": compared, "differing": differing,
    }  # fmt: skip


def simulate_stock(folder: Place, tell: Tell | None = None, python: str | None = None) -> StockResult:
    """Run a bundle's recorded inputs in Lava Processes that Lava ships, each value that leaves one being compared with
    the program: a tracker's phases block by block on their first recorded run, a network in one run of its recorded
    steps, one after the other. :func:`simulate` runs the program itself, in whichever engine.

    InputError; EngineError: an operation has no Process, or Lava is missing, hangs or dies; VerificationError.
    """
    from spiketrack_deploy.bundle import answers
    from spiketrack_deploy.bundle.contents import read_alone
    from spiketrack_deploy.bundle.lava_folder import compare_recorded
    from spiketrack_deploy.engines.lava_interpreter import lava_python
    from spiketrack_deploy.inputs.sources import demand_spiking

    folder = Path(folder)
    layout.check_bundle(folder)
    demand_spiking(folder)
    lava_python(python)
    program = read_alone(folder)
    _, recorded = answers.load(folder, program, layout.VECTORS, layout.EXPECTED)
    rows: list[dict[str, Any]] = [
        {
            "phase": phase, "block": block,
            "processes": dict(Counter(n.process for n in done.plan.nodes.values())),
            "own": [row for row in done.plan.rows() if row["reason"]], "steps": done.run.steps,
            "seconds": done.run.seconds, "compared": done.compared, "differing": sum(done.differing.values()),
        }
        for phase, block, done in compare_recorded(program, recorded, tell, python)
    ]  # fmt: skip
    return {"bundle": str(folder), "runs": len(recorded), "rows": rows}


def netx(subject: Place, out: Place | None = None) -> NetxResult:
    """What a ``.net`` file holds, or a bundle's network as one; ``out``: written there.

    InputError: the file is damaged or no such file, or the network is none that netx can hold; nothing is written.
    """
    from spiketrack_deploy.frontends.netx.read import read_netx
    from spiketrack_deploy.frontends.netx.recognise import recognise
    from spiketrack_deploy.frontends.netx.write import write_netx

    path = Path(subject)
    network = read_netx(path) if path.suffix == SUFFIX else recognise(*_program(path))
    if out is not None:
        write_netx(network, Path(out))
    layers = [
        {
            "name": layer.name, "kind": layer.kind, "shape": list(layer.shape), "neuron": layer.neuron.kind,
            "weights": int(layer.weight.size), "threshold": layer.neuron.threshold,
            "decays": [layer.neuron.i_decay, layer.neuron.v_decay],
        }
        for layer in network.layers
    ]  # fmt: skip
    return {
        "network": network.name,
        "layers": layers,
        "notes": list(network.notes),
        "written": None if out is None else str(out),
    }
