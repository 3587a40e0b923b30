"""What is claimed of NIR networks as integer programs, measured: engines, spikes against float64, time.

    python benchmarks/nir_exactness.py [--networks N] [--steps N] [--lava N] [--shares N] [--json]

Three tables. Drawn networks of every primitive (tests/_nir_drawn.py: 1 to 12 deep, recurrence, delays, odd maps), their
integer program on the reference, sim and ONNX engines: every output, state and count of every step; the first N of them
on Lava Processes as well. The share of their spike values that differ from the float64 reference with 8, 12 and 16 bits
(benchmarks/nir_agreement.py has exports of frameworks). And the seconds that a network of a million synapses takes
until it is lowered, has run a step and has its cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from _nir_exact import BITS, agreement, drawn_case, integers_compared, spike_share  # noqa: E402

from spiketrack_deploy.errors import FitError  # noqa: E402
from spiketrack_deploy.frontends.nir.conventions import Convention  # noqa: E402
from spiketrack_deploy.frontends.nir.lower import lower_network  # noqa: E402
from spiketrack_deploy.frontends.nir.network import Edge, Network, Node  # noqa: E402
from spiketrack_deploy.hardware.targets import resolve_target  # noqa: E402
from spiketrack_deploy.mapping.fit import map_program  # noqa: E402


def tell(text: str) -> None:
    """Progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)


def engines(networks: int, steps: int, lava: int) -> dict[str, Any]:
    """Integers and counts compared; the first difference ends the command."""
    compared, refused, on_lava = 0, [], 0
    for seed in range(networks):
        tell(f"engines: network {seed + 1} of {networks}")
        names = ("sim", "onnx", "lava") if on_lava < lava else ("sim", "onnx")
        equal, sentence = agreement(seed, names, steps)
        compared += equal
        on_lava += "lava" in names and not sentence
        if sentence:
            refused.append(f"{seed}: {sentence}")
    return {"networks": networks, "steps": steps, "compared": compared, "differing": 0, "lava": on_lava,
            "refused": refused}  # fmt: skip


def shares(networks: int, steps: int) -> list[dict[str, Any]]:
    """Per number of weight bits: median, mean and worst share of differing spike values of the drawn networks."""
    found = []
    for bits in BITS:
        values = []
        for seed in range(networks):
            tell(f"spikes with {bits} bits: network {seed + 1} of {networks}")
            case = drawn_case(seed, steps)
            try:
                values.append((spike_share(case, bits), seed))
            except FitError:
                continue
        rates = [share.share for share, _ in values if share.values]
        found.append({"bits": bits, "networks": len(rates), "median": statistics.median(rates),
                      "mean": statistics.mean(rates), "worst": max(rates),
                      "without_difference": sum(rate == 0 for rate in rates)})  # fmt: skip
    return found


def million() -> dict[str, float]:
    """Seconds to lower a network of 1.1 million synapses, to compare a step on three engines, and to map it."""
    n, rng = 1000, np.random.default_rng(0)
    nodes = [Node("in", "Input", {}, (n,), (n,))]
    for index, out in enumerate((n, 100)):
        width = nodes[-1].shape[0]
        weight = rng.normal(0, 3 / np.sqrt(width), (out, width))
        nodes.append(Node(f"w{index}", "Linear", {"weight": weight}, (width,), (out,)))
        values = {"tau_syn": 5e-3, "tau_mem": 1e-2, "r": 1.0, "v_leak": 0.0, "w_in": 1.0, "v_threshold": 1.0}
        params = {key: np.full(out, value) for key, value in (values | {"v_reset": 0.0}).items()}
        nodes.append(Node(f"n{index}", "CubaLIF", params, (out,), (out,)))
    nodes.append(Node("out", "Output", {}, (100,), (100,)))
    edges = tuple(Edge(a.name, b.name) for a, b in zip(nodes, nodes[1:]))  # noqa: RUF007
    network = Network("million", {node.name: node for node in nodes}, edges, ("in",), ("out",))
    start = perf_counter()
    lowered = lower_network(network, Convention(dt=1e-3))
    marks = [perf_counter()]
    integers_compared(lowered.program, [{"in": lowered.encode("in", np.ones(n))}], ("sim", "onnx"))
    marks.append(perf_counter())
    map_program(lowered.program, "step", resolve_target("loihi2"))
    marks.append(perf_counter())
    return {"lower": marks[0] - start, "step": marks[1] - marks[0], "map": marks[2] - marks[1]}


def show(found: dict[str, Any]) -> None:
    """The tables as text."""
    e = found["engines"]
    refused = len(e["refused"])
    print(f"{e['networks']} drawn networks, {e['steps']} steps, {refused} refused: {e['compared']:,} integers and"
          f" counts on reference, sim and ONNX ({e['lava']} on Lava too), {e['differing']} differing")  # fmt: skip
    for sentence in e["refused"]:
        print(f"  refused {sentence}")
    print(
        "\ndrawn networks: share of spike values that differ from float64\nbits  median    mean   worst  none differs"
    )
    for row in found["shares"]:
        print(f"{row['bits']:4}  {row['median']:6.2%}  {row['mean']:6.2%}  {row['worst']:6.2%}  "
              f"{row['without_difference']} of {row['networks']}")  # fmt: skip
    seconds = found["million"]
    print(f"\n1.1 million synapses: lowered in {seconds['lower']:.1f} s, a step on three engines "
          f"{seconds['step']:.1f} s, mapped to loihi2 in {seconds['map']:.1f} s")  # fmt: skip


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=500)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--lava", type=int, default=0, help="how many of them run on Lava Processes too")
    parser.add_argument("--shares", type=int, default=100, help="how many of them are compared with float64")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {
        "engines": engines(options.networks, options.steps, options.lava),
        "shares": shares(min(options.networks, options.shares), options.steps),
        "million": million(),
    }
    tell("")
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
