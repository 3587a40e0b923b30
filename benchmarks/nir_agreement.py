"""Integers against float64 on NIR networks: how many spikes differ, and how that falls with more bits in the weights.

    python benchmarks/nir_agreement.py [--bits 8 12 16] [--json]

Every export of another framework under its convention (tests/nir_frameworks, the recorded input), and every graph of
the conformance suite under its Euler reading (200 steps of drawn spikes, one in three). The program runs on the `sim`
engine; reference, sim and ONNX Runtime are compared by `spiketrack-export` and the tests. Values are those of the
Output nodes; for real values the largest error over the largest value.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from test_nir_frameworks import NAMES, answered  # noqa: E402

from spiketrack_deploy.engines.factory import make_engine  # noqa: E402
from spiketrack_deploy.frontends.nir.build import build  # noqa: E402
from spiketrack_deploy.frontends.nir.conventions import Convention  # noqa: E402
from spiketrack_deploy.frontends.nir.drawn_graphs import GRAPHS  # noqa: E402
from spiketrack_deploy.frontends.nir.inputs import Given, drawn  # noqa: E402
from spiketrack_deploy.frontends.nir.lower import InputKind, LowerOptions, lower_network  # noqa: E402
from spiketrack_deploy.frontends.nir.network import Network  # noqa: E402
from spiketrack_deploy.frontends.nir.prepare import Prepared, float_run, spike_valued  # noqa: E402

STEPS, RATE = 200, 1 / 3


def measure(prepared: Prepared, bits: int) -> dict[str, Any]:
    """Differing spikes and largest relative error of real values over the Output nodes."""
    network, given, floats = prepared.network, prepared.given, float_run(prepared)
    kinds = {name: InputKind(top=max(1, int(values.max()))) for name, values in given.values.items()}
    options = LowerOptions(weight_bits=bits, kinds=kinds, observed=floats.largest)
    lowered = lower_network(network, prepared.convention, options)
    counted, found = spike_valued(network), {"values": 0, "differing": 0, "error": 0.0}
    with make_engine("sim", lowered.program) as engine:
        session = engine.session()
        got: dict[str, list[Any]] = {name: [] for name in network.outputs}
        for step in range(given.steps):
            inputs = {name: lowered.encode(name, values[step]) for name, values in given.values.items()}
            for name, value in session.step("step", inputs, count=False).outputs.items():
                got[name].append(lowered.decode(name, value))
    for name, values in got.items():
        want = floats.outputs[name]
        if name in counted:
            found["values"] += want.size
            found["differing"] += int((np.stack(values) != want).sum())
        else:
            found["error"] = max(found["error"], float(np.abs(np.stack(values) - want).max() / np.abs(want).max()))
    return found


def networks() -> list[tuple[str, Prepared]]:
    """Everything that is measured."""
    found = []
    for name in NAMES:
        network, convention, given, _ = answered(name)
        values = {network.inputs[0]: given.astype(np.float64)}
        found.append((name, Prepared(network, convention, Given(values, name), (), None)))
    for name, (_, make) in GRAPHS.items():
        network = build(make(), Path(f"{name}.nir")).network
        found.append((name, Prepared(network, Convention(dt=1e-3), _drawn(network), (), None)))
    return found


def _drawn(network: Network) -> Given:
    return drawn(network, STEPS, RATE, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 12, 16])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = {name: {bits: measure(prepared, bits) for bits in args.bits} for name, prepared in networks()}
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print("| network | " + " | ".join(f"{bits}-bit weights" for bits in args.bits) + " |")
    print("| --- " * (len(args.bits) + 1) + "|")
    for name, row in rows.items():
        print(f"| `{name}` | " + " | ".join(_cell(row[bits]) for bits in args.bits) + " |")
    for what, pick in (("median", statistics.median), ("worst", max)):
        shares = [
            [r[bits]["differing"] / r[bits]["values"] for r in rows.values() if r[bits]["values"]] for bits in args.bits
        ]
        print(f"| {what} share of spikes | " + " | ".join(f"{100 * pick(column):.2f} %" for column in shares) + " |")


def _cell(found: dict[str, Any]) -> str:
    said = [f"{found['differing']} of {found['values']}"] if found["values"] else []
    return ", ".join(said + ([f"error {found['error']:.2g}"] if found["error"] else [])) or "exact"


if __name__ == "__main__":
    main()
