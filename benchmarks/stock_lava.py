"""Stock Lava Processes: every layer of spiketrack-nano and its blocks on a recorded frame; what a chain costs.

    python benchmarks/stock_lava.py [--blocks NAME,NAME | --blocks all] [--frame N] [--memory own|weights] [--chain N]

A tracked clip gives frame and memories. Each block of the search phase runs as one Lava network of Conv, Sparse, LIF
(four for a neuron of four levels), GradedVec and RingBuffer Processes, its input held still until everything has
settled; every value that leaves a Process is compared with the reference. The table names the Processes of each
operation and why one is not Lava's. ``--chain 40``: 3x3 convolutions of 64 channels on 32 x 32, stock Lava beside sim.
Exit code 0: nothing differs.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
sys.path.insert(0, str(ROOT / "benchmarks"))

from engine_parity import Recorder, clip  # noqa: E402

from spiketrack_deploy.engines.factory import make_engine  # noqa: E402
from spiketrack_deploy.engines.stock_run import compare_stock, reference_values  # noqa: E402
from spiketrack_deploy.errors import SpiketrackError  # noqa: E402
from spiketrack_deploy.frontends.compile import compile  # noqa: E402
from spiketrack_deploy.frontends.netx.lower import lower_netx  # noqa: E402
from spiketrack_deploy.frontends.netx.network import Layer, NetxNetwork, Neuron  # noqa: E402
from spiketrack_deploy.frontends.spiketrack.source import SpikeTrackSource  # noqa: E402
from spiketrack_deploy.program.types import Program  # noqa: E402
from spiketrack_deploy.tracking.loop import Tracker  # noqa: E402
from spiketrack_deploy.tracking.program_network import ProgramNetwork  # noqa: E402


def recorded(frame: int) -> tuple[Program, dict[str, Any]]:
    """spiketrack-nano, and the inputs of a search frame of a tracked clip."""
    source = SpikeTrackSource.read(ROOT / "models" / "spiketrack-nano")
    program = compile(source).program
    with make_engine("sim", program) as engine:
        recorder = Recorder(engine)
        tracker = Tracker(ProgramNetwork(program, recorder, source.config, count=False))
        pictures = clip(frame + 1)
        tracker.init(pictures[0], (60.0, 50.0, 60.0, 45.0))
        for picture in pictures[1:]:
            tracker.track(picture)
    return program, [inputs for phase, inputs in recorder.runs if phase == "search"][-1]


def blocks_of(program: Program) -> dict[str, list[str]]:
    """Operations of the search phase by block."""
    found: dict[str, list[str]] = {}
    for op in program.phases["search"].ops:
        found.setdefault(op.block, []).append(op.name)
    return found


def nano(wanted: str, frame: int, memory: str) -> int:
    """Blocks of the tracker; integers that differ."""
    program, inputs = recorded(frame)
    image = {"image": np.asarray(inputs["image"])}
    states = {name: np.asarray(a, dtype=np.int64) for name, a in inputs.items() if name in program.states}
    values = reference_values(program, "search", image, states)
    wrong, compared, used = 0, 0, Counter[str]()
    for block, ops in blocks_of(program).items():
        if wanted != "all" and block not in wanted.split(","):
            continue
        began = perf_counter()
        done = compare_stock(
            program,
            "search",
            image,
            ops=ops,
            memories=states,
            as_weights=memory == "weights",
            values=values,
            timeout=600,
        )
        print(
            f"{block}: {len(done.plan.nodes)} Processes, {done.run.steps} steps, {perf_counter() - began:.1f} s",
            flush=True,
        )
        for node in done.plan.nodes.values():
            used[node.process] += 1
            if node.ops:
                differ = sum(done.differing.get(op, 0) for op in node.ops)
                print(
                    f"  {differ:4d} differ  {node.process:10s} {node.name}"
                    + (f"   ({node.reason})" if node.reason else "")
                )
        wrong += sum(done.differing.values())
        compared += done.compared
    print(f"{wrong} of {compared} integers differ; Processes: {dict(used)}")
    return wrong


def chain(length: int) -> int:
    """A chain of convolutions, in one Lava run and in the simulator."""
    rng, shape, steps = np.random.default_rng(0), (64, 32, 32), 1
    layers = [
        Layer(
            f"{n}.conv",
            "conv",
            shape,
            Neuron("cuba", 20, 4096, 1000),
            rng.integers(-20, 24, (64, 64, 3, 3)),
            None,
            (1, 1),
            (1, 1),
        )
        for n in range(length)
    ]
    program = lower_netx(NetxNetwork("chain", shape, tuple(layers)), "aligned")
    x = rng.integers(0, 2, (steps, *shape))
    done = compare_stock(program, "step", {"input": x}, timeout=1800)
    with make_engine("sim", program) as engine:
        session = engine.session()
        session.step("step", {"input": x[:1]}, count=False)
        times = []
        for _ in range(9):
            began = perf_counter()
            session.step("step", {"input": x[:1]}, count=False)
            times.append(perf_counter() - began)
        sim = median(times)
    lava = done.run.seconds / done.run.steps
    wrong = sum(done.differing.values())
    print(
        f"{length} convolutions: Lava {lava * 1e3:.0f} ms a step ({done.run.steps} steps in one run, without its start)"
    )
    print(f"sim {sim * 1e3:.2f} ms a step: {lava / sim:.0f} times; {wrong} of {done.compared} integers differ")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", default="all")
    parser.add_argument("--frame", type=int, default=3)
    parser.add_argument("--memory", choices=["own", "weights"], default="weights")
    parser.add_argument("--chain", type=int)
    options = parser.parse_args()
    try:
        wrong = chain(options.chain) if options.chain else nano(options.blocks, options.frame, options.memory)
    except SpiketrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
