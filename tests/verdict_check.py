"""The verdict recomputed: latency of a frame level by level, its energy as counts times prices, from a bundle's files.

    python tests/verdict_check.py BUNDLE [TARGET]

No timing, pricing or summing of the package is used: only where the mapper put every neuron, how often things happened
(``layers.csv``), which weights are zero. Exit code 1 where anything differs.
"""

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy import api
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.mapping.whole import map_network

UNIT = {"pJ": 1e-12, "nJ": 1e-9, "uJ": 1e-6, "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "W": 1.0, "mW": 1e-3}


def fan_in(s: Any, source: Any, target: Any, arrays: Any) -> Any:
    """Per [channel, row]: synapses that end there (non-zero weights), and positions for which a kernel row is read."""
    found = np.zeros((2, target.channels, target.height))
    height, width = (source.channels, 1) if s.transposed else (source.height, source.width)
    inputs = (source.height * source.width if s.transposed else source.channels) // s.groups
    for y, ky, kx in np.ndindex(target.height, *s.kernel):
        column = np.arange(target.width) * s.stride[1] + kx * s.dilation[1] - s.padding[1]
        inside = int(((column >= 0) & (column < width)).sum())
        if 0 <= y * s.stride[0] + ky * s.dilation[0] - s.padding[0] < height:
            found[0, :, y] += inside * ((arrays[s.weight][s.shared] != 0).sum(1)[:, ky, kx] if s.weight else inputs)
            found[1, :, y] += inside * inputs
    return found


def loads(report: Any, arrays: Any, layers: Any) -> tuple[Any, Any]:
    """Synaptic operations and memory words of every [level, core]."""
    mapping, net, most = report.mapping, report.mapping.network, report.mapping.limits.weight_bits
    core = [np.full((p.channels, p.height), -1) for p in net.populations]
    for n, p, c0, c1, y0, y1 in mapping.pieces.tolist():
        core[p][c0:c1, y0:y1] = n
    ends = [(net.populations[s.source], net.populations[s.target]) for s in net.synapses]
    fans = [None if s.form in ("product", "host") else fan_in(s, *e, arrays) for s, e in zip(net.synapses, ends)]
    whole = [1.0 if fan is None else float(fan[0].sum()) for fan in fans]  # shares of an operation's visits
    counted = [s.op if s.form in ("conv", "matrix", "product") else "" for s in net.synapses]
    sums = {op: sum(n for n, other in zip(whole, counted) if other == op) for op in counted}
    readers: dict[Any, set[int]] = {}  # every reader of a summed stream does all of its operation
    for s, (_, target) in zip(net.synapses, ends):
        readers.setdefault((s.op, target.step), set()).add(s.target)
    synops, words = np.zeros((2, net.depth + 1, mapping.cores))
    for i, (s, fan) in enumerate(zip(net.synapses, fans)):
        if s.form == "host" or not ends[i][1].on_chip:
            continue
        level, here, row = net.level[s.target], core[s.target], layers[s.op]
        visits = (
            (float(row["synops"]) + float(row["macs"])) / sums[s.op] * len(readers[s.op, ends[i][1].step])
            if counted[i]
            else report.activity.rate[i]
        )
        share = np.full(here.shape, 1 / here.size) if fan is None else fan[0]
        np.add.at(synops[level], here, share * visits)
        for y in range(here.shape[1]):  # a kernel row is read once for all channels that a core holds of a position
            for c in np.unique(here[:, y]):
                held = np.unique(np.flatnonzero(here[:, y] == c) * s.groups // here.shape[0], return_counts=True)[1]
                rows = -(-s.bits // most) * sum(-(-(n * (min(s.bits, most) + 1) + 10) // 64) for n in held)
                words[level, c] += visits * (share[here[:, y] == c, y].sum() if fan is None else rows * fan[1][0, y])
    return synops, words


def busiest(flow: Any, level: int, x: Any, y: Any) -> float:
    """Messages of a level over the link between chips that carries most: along a row, then along a column."""
    load = dict[tuple[int, ...], float]()
    for n in np.flatnonzero(flow.level == level):
        (x0, y0), (x1, y1) = ((int(x[core]), int(y[core])) for core in (flow.source[n], flow.target[n]))
        row = [(c, y0, min(max(x1 - c, -1), 1), 0) for c in range(x0, x1, 1 if x1 > x0 else -1)]
        column = [(x1, r, 0, min(max(y1 - r, -1), 1)) for r in range(y0, y1, 1 if y1 > y0 else -1)]
        for link in (*row, *column):
            load[link] = load.get(link, 0.0) + float(flow.messages[n])
    return max(load.values(), default=0.0)


def check(bundle: Path, target: str = "loihi2") -> list[str]:
    """What differs; prints both sides."""
    program, counts, way = api.chips.program_of(str(bundle))
    found = map_network(program, resolve_target(target), counts=counts, way=way)
    price = {name: p.value * UNIT[p.unit] for name, p in found.profile.prices.items()}
    mapping, flow, at = found.report.mapping, found.report.mapping.traffic, found.report.mapping.placement
    net, pieces = mapping.network, mapping.pieces.T
    table = csv.DictReader((bundle / "layers.csv").read_text().splitlines())
    layers = {r["name"]: r for r in table if r["phase"] == found.main}
    synops, words = loads(found.report, program.arrays, layers)
    width = np.array([p.width for p in net.populations])[pieces[1]]
    slots = np.bincount(pieces[0], (pieces[3] - pieces[2]) * (pieces[5] - pieces[4]) * width)
    steps = np.ones(net.depth + 1)
    for s in net.synapses:
        if s.form == "product" and net.populations[s.source].kind != "memory":  # a token a step
            steps[net.level[s.target]] = net.populations[s.source].height * net.populations[s.source].width
    busy = np.maximum(synops.max(axis=1) * price["t_synop"], words.max(axis=1) * price["t_word"])
    busy = np.maximum(busy, steps * slots.max() * price["t_slot_microcode"])
    chips = at.x // mapping.limits.tiles_x, at.y // mapping.limits.tiles_y
    crossing = np.array([busiest(flow, level, *chips) for level in range(net.depth + 1)])
    busy = np.maximum(busy, crossing * price["t_link"])
    chip = (busy + steps * price["t_barrier_chip" if mapping.chips == 1 else "t_barrier_chips"])[1:].sum()
    energy = synops.sum() * price["synop"] + slots.sum() * steps[1:].sum() * price["slot_microcode"]
    stepping = price.get("chip_step", 0) * steps[1:].sum() + price.get("stepping_power", 0) * chip
    energy += mapping.messages.sum() * price["message"] + mapping.chips * stepping
    for axis, hop in ((at.x, "hop_ew"), (at.y, "hop_ns")):
        energy += float((abs(axis[flow.source] - axis[flow.target]) * flow.messages).sum()) * price[hop]
    enters = sum(p.slots for p in net.populations if p.kind == "image")  # else what the host's first layer fires
    enters += sum(float(layers[op]["neuron_spiking"]) for op in {p.op for p in net.populations if p.kind == "entry"})
    latency = chip + enters * price["t_image"]
    total = energy + price["static_power"] * found.chosen.chips * max(latency, 1 / 30)
    mapped, priced = api.map(bundle, target=target), api.energy(bundle, [target])["profiles"][0]["placed"]
    page, wrong = (bundle / "report.html").read_text(), ["chips"] * (mapped["chips"] != priced["chips"])
    for name, mine in (("latency_s", latency), ("total_nj", total * 1e9), ("dynamic_nj", energy * 1e9)):
        theirs = [place["cost"][name]["nominal"] for place in (mapped, priced)]
        print(f"{name:10} recomputed {mine:.9g}, map {theirs[0]:.9g}, energy {theirs[1]:.9g}")
        wrong += [name] * any(abs(x / mine - 1) > 1e-9 for x in theirs)
    return wrong + [text for text in (f"{total * 1e3:.3g} mJ", f"{latency * 1e3:.3g} ms") if text not in page]


if __name__ == "__main__":
    raise SystemExit(", ".join(check(Path(sys.argv[1]), *sys.argv[2:])) or 0)
