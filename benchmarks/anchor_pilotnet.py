"""The anchor of the energy model: PilotNet-LIF as it ran on a Loihi 2, replayed, counted, mapped, priced and timed.

    python benchmarks/anchor_pilotnet.py [--json]

The code that counts and prices the tracker counts and prices this network. Measured figures are those of Intel's public
notebooks in the lava-dl history (Oheo Gulch and Kapoho Point, 16 steps a sample); the network is fetched when needed
(see ``pilotnet.py``). Exit code 0: every figure within its stated tolerance; 1: one is not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "src")]

import pilotnet  # noqa: E402
import pilotnet_cores  # noqa: E402

from spiketrack_deploy.energy.layers import LayerCounts  # noqa: E402
from spiketrack_deploy.energy.report import assess  # noqa: E402
from spiketrack_deploy.errors import SpiketrackError  # noqa: E402
from spiketrack_deploy.hardware.profiles import load_profile  # noqa: E402
from spiketrack_deploy.hardware.schema import Profile  # noqa: E402
from spiketrack_deploy.mapping.cost import mapped_energy  # noqa: E402
from spiketrack_deploy.mapping.latency import latency  # noqa: E402
from spiketrack_deploy.units import Interval  # noqa: E402

COUNTERS = {"conv2": (1.60e6, 1.62e6), "conv3": (452e3, 452e3), "conv4": (151e3, 151e3), "conv5": (67e3, 67e3)}
"""Synaptic operations per step that the chip counted, read from a plot: from, to."""
DYNAMIC_UJ = (61.3, 66.9, 68.3, 74.9, 86.6)
"""Dynamic energy per step of the five accepted runs: 0.98 to 1.39 mJ per inference of 16 steps, three rails."""
STEP_US = (150.7, 152.8)
"""Time of a step on Oheo Gulch: 408.9 to 414.7 inferences a second of 16 steps."""
NEURONS = {
    "input": 200 * 66 * 3,
    "conv1": 99 * 32 * 24,
    "conv2": 49 * 15 * 36,
    "conv3": 24 * 7 * 48,
    "conv4": 22 * 4 * 64,
    "conv5": 20 * 2 * 64,
    "dense6": 100,
    "dense7": 50,
    "dense8": 10,
    "dense9": 1,
}
"""Neurons per layer of the published resource log."""
NOTES = (
    "Step time: t_synop of loihi2 was derived from this very measurement, so its agreement checks counts and layout, "
    "not the price; the synaptic energy was fitted to another chip.",
    "Published layout: two rules reproduce all 74 cores of the log. Convolutions: slabs of a power of two of image "
    "columns, as the log names them. Dense layers: 15 bits a synapse and 20 a row, fitted to the log's own words.",
    "This mapper has no dense format; a dense synapse is given to it as two chained native weights. Its rule "
    "contiguous packs for the fewest cores: its step is longer, so it is shown and not compared.",
)
SYNOP_TOLERANCE, ENERGY_TOLERANCE, TIME_TOLERANCE, CORE_TOLERANCE = 0.05, 0.30, 0.15, 0.10


def _off(value: float, low: float, high: float) -> float:
    """Relative distance of ``value`` from the interval: 0 inside, negative below, positive above."""
    return value / low - 1 if value < low else value / high - 1 if value > high else 0.0


def _check(name: str, value: float, low: float, high: float, tolerance: float, unit: str) -> dict[str, Any]:
    off = _off(value, low, high)
    return {
        "check": name,
        "value": value,
        "measured": [low, high],
        "unit": unit,
        "off": off,
        "tolerance": tolerance,
        "ok": abs(off) <= tolerance,
    }


def check_counts(found: Sequence[pilotnet.LayerReplay]) -> list[dict[str, Any]]:
    """Synaptic operations of a step, layer by layer, beside the chip's counters."""
    steps = found[0].spikes.shape[0]
    values = {item.layer.name: item.counts.synops / steps for item in found}
    return [
        _check(f"synops {name}", values[name], low, high, SYNOP_TOLERANCE, "per step")
        for name, (low, high) in COUNTERS.items()
    ]


def check_energy(name: str, energy: Interval) -> list[dict[str, Any]]:
    """Dynamic energy of a step (nanojoules): the band must cover every run, the nominal lie near their median."""
    low, nominal, high = (end * 1e-3 for end in (energy.low, energy.nominal, energy.high))
    median = statistics.median(DYNAMIC_UJ)
    covers = low <= min(DYNAMIC_UJ) and high >= max(DYNAMIC_UJ)
    band = {"check": f"{name}: band covers every run", "value": [low, high], "measured": list(DYNAMIC_UJ), "unit": "uJ"}
    return [
        band | {"off": None, "tolerance": None, "ok": covers},
        _check(f"{name}: nominal against the median run", nominal, median, median, ENERGY_TOLERANCE, "uJ per step"),
    ]


def layout_figures(
    name: str, layout: pilotnet_cores.Layout, found: Sequence[pilotnet.LayerReplay], profile: Profile
) -> dict[str, Any]:
    """Cores, step time and energy of one way to split the network over cores."""
    time = pilotnet_cores.step_time(layout, found, profile)
    rows = pilotnet_cores.with_messages(layout, found, pilotnet.per_step(layout.network, found))
    energy = assess({"step": rows}, profile, {"step": 1}).dynamic
    return {
        "name": name,
        "cores": layout.cores,
        "cores_per_layer": layout.per_layer,
        "busiest_core": time.busiest,
        "bottleneck": time.bottleneck,
        "step_us": {key: value * 1e6 for key, value in time.total.to_dict().items()},
        "messages_per_spike": pilotnet_cores.messages_per_spike(layout, found),
        "dynamic_nj": energy.to_dict(),
    }


def check_layout(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Step time, cores and energy of a layout."""
    name, logged = figures["name"], sum(pilotnet_cores.PUBLISHED.values())
    energy = Interval(*(figures["dynamic_nj"][end] for end in ("low", "nominal", "high")))
    return [
        _check(f"{name}: step time", figures["step_us"]["nominal"], *STEP_US, TIME_TOLERANCE, "us"),
        _check(f"{name}: cores", figures["cores"], logged, logged, CORE_TOLERANCE, "cores"),
        *check_energy(f"{name}: dynamic energy with its messages", energy),
    ]


def check_mapping(network: pilotnet.PilotNet, counts: Sequence[LayerCounts], profile: Profile) -> list[dict[str, Any]]:
    """Step time and energy as ``spiketrack map`` computes them, from mean counts shared out over the cores."""
    mapping, activity = pilotnet_cores.chip_mapping(network, counts, profile, "power_of_two")
    time = latency(mapping, profile)
    energy = mapped_energy(mapping, activity, profile, time).dynamic
    name = "spiketrack map"
    return [
        _check(f"{name}: step time", time.step.nominal * 1e6, *STEP_US, TIME_TOLERANCE, "us"),
        *check_energy(f"{name}: dynamic energy with messages and hops", energy),
    ]


def run(profile: Profile) -> dict[str, Any]:
    """Everything, as JSON data."""
    files = pilotnet.fetch()
    network = pilotnet.read(files[pilotnet.NETWORK])
    found = pilotnet.replay(network)
    energy = assess({"step": pilotnet.per_step(network, found)}, profile, {"step": 1}, result="step").main
    wrong = pilotnet.wrong_spikes(network, files)
    neurons = {name: (size, NEURONS.get(name)) for name, size in network.populations.items()}
    checks = [
        {
            "check": "spikes against Lava's record",
            "value": sum(wrong.values()),
            "measured": 0,
            "ok": not any(wrong.values()),
        },
        {
            "check": "neurons per layer",
            "value": sum(network.populations.values()),
            "measured": sum(NEURONS.values()),
            "ok": all(have == published for have, published in neurons.values()),
        },
        *check_counts(found),
        *check_energy("dynamic energy, one message per spike", energy.dynamic),
    ]
    layouts = [layout_figures("published layout", pilotnet_cores.published(network), found, profile)]
    for rule in ("power_of_two", "contiguous"):
        own = pilotnet_cores.mapped(network, profile, rule)
        layouts.append(layout_figures(f"this mapper, {rule}", own, found, profile))
    # The third layout is another cut than the measured one (see NOTES).
    checks += [check for figures in layouts[:2] for check in check_layout(figures)]
    checks += check_mapping(network, energy.counts, profile)
    return {
        "network": {"md5": pilotnet.MD5, "source": pilotnet.REQUIREMENT, "steps": pilotnet.STEPS},
        "profile": {"name": profile.name, "sha256": profile.digest},
        "layers": [
            {
                "name": item.layer.name,
                "neurons": item.layer.neurons,
                "spikes_in": item.counts.events / pilotnet.STEPS,
                "synops_all_taps": item.all_taps / pilotnet.STEPS,
                "synops": item.counts.synops / pilotnet.STEPS,
                "wrong_spikes": wrong.get(item.layer.name),
            }
            for item in found
        ],
        "dynamic_nj_per_step": energy.dynamic.to_dict(),
        "by_cause_nj": energy.to_dict()["by_cause_nj"],
        "layouts": layouts,
        "notes": list(NOTES),
        "checks": checks,
        "ok": all(check["ok"] for check in checks),
    }


def show(result: dict[str, Any]) -> None:
    print(f"{'layer':8s} {'neurons':>8s} {'spikes in':>10s} {'synops':>12s} {'all taps':>12s}   per step")
    for row in result["layers"]:
        print(
            f"{row['name']:8s} {row['neurons']:8d} {row['spikes_in']:10.1f} {row['synops']:12.1f} "
            f"{row['synops_all_taps']:12.1f}"
        )
    for layout in result["layouts"]:
        time = layout["step_us"]
        print(
            f"{layout['name']}: {layout['cores']} cores, step {time['nominal']:.1f} us [{time['low']:.1f} .. "
            f"{time['high']:.1f}] by {layout['bottleneck']} of {layout['busiest_core']}, "
            f"{layout['messages_per_spike']:.2f} messages a spike; cores per layer {layout['cores_per_layer']}"
        )
    for note in result["notes"]:
        print(f"note {note}")
    for check in result["checks"]:
        off = "" if check.get("off") is None else f" ({check['off']:+.1%}, tolerance {check['tolerance']:.0%})"
        value, unit = check["value"], check.get("unit", "")
        shown = " .. ".join(f"{v:.4g}" for v in value) if isinstance(value, list) else f"{value:.6g}"
        print(f"{'ok  ' if check['ok'] else 'FAIL'} {check['check']}: {shown} {unit} against {check['measured']}{off}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", default="loihi2")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        result = run(load_profile(options.profile))
    except SpiketrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
