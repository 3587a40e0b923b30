"""Which layouts a chip can afford: configurations around a given one, by what the verdict says of each.

This module decides which levers there are, how the space is walked, and what makes one layout better than another. It
must not know a price. A layout is judged by the functions of ``mapping`` and ``energy`` that the verdict uses, on the
program without weights (``outline``): slots, levels, cores and chips are the verdict's own; energy and time lack the
best places of cores alone. Spike rates are assumed (:data:`RATES`). What is shown in the end is the verdict itself, on
the compiled program (:func:`verdict`). How accurate a layout gets nobody knows before it is trained: multiply-
accumulates and crop side stand for it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spiketrack_deploy.energy.frames import STEADY, ResultCost, result_cost
from spiketrack_deploy.energy.layers import main_phase, runs_per_result, shape_counts
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.compile import compile
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.activity import assumed
from spiketrack_deploy.mapping.closed_loop import closed_loop
from spiketrack_deploy.mapping.cost import mapped_run
from spiketrack_deploy.mapping.entry import without_first_layer
from spiketrack_deploy.mapping.fit import map_program
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.types import Population
from spiketrack_deploy.mapping.ways import WAYS, Way
from spiketrack_deploy.mapping.whole import map_network
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.trackers.spiketrack.config import OFFICIAL_WALK, REQUIRED_STAGES, TrackerConfig
from spiketrack_deploy.training.budget import drawn, parameters
from spiketrack_deploy.training.outline import STAGES_LEFT_OUT, outline

VENDOR_RULE = "power_of_two"
RATES = {"memory": 0.70, "stream": 0.40, "norm": 0.33}
"""Share of neurons that spike in a frame, by what they read: the product with a memory, a residual stream, a normalised
convolution. Assumed, near the means of spiketrack-nano on the bundled clip (0.79, 0.39 and 0.34 by
``spiketrack-export spiketrack-nano``, layers.csv; 0.70, 0.40 and 0.33 of the network of that name before)."""
_BEHIND_MEMORY = ("q_spike#2", "attn_spike")
_BEHIND_STREAM = ("encode_spike", "head_spike", "fc1_spike", "spike1")
SIDES = (64, 80, 96, 112, 128, 160, 192, 224, 256)
WIDTHS = (
    (8, 12, 16, 20, 24, 28, 32, 40, 48, 64),
    (16, 24, 32, 40, 48, 56, 64, 80, 96, 128),
    (48, 64, 80, 96, 112, 128, 160, 192, 256),
)
HEAD_WIDTHS = (32, 48, 64, 96, 128, 192)
RATIOS = (1, 2, 3, 4)
STAGES = tuple(stage for stage in OFFICIAL_WALK if stage not in (*REQUIRED_STAGES, *STAGES_LEFT_OUT))
SHOWN = 16
"""Layouts of the front that get a verdict; evenly spread over it."""


_OTHER_WAY = 0.25
"""Share of changed copies that are mapped in a way drawn anew."""
_NEAREST = 5
"""Layouts beyond the bounds from which the walk goes on while none is within."""


def rate(population: Population) -> float:
    """Assumed share of a population's neurons that spike in a frame."""
    leaf = population.op.rsplit(".", 1)[-1]
    kind = "memory" if leaf in _BEHIND_MEMORY else "stream" if leaf in _BEHIND_STREAM else "norm"
    return RATES[kind]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a layout must keep to; ``None``: no bound. Nominal figures: ``on_chip_s`` of a frame on the chips alone,
    ``latency_s`` with the image's way, ``energy_nj`` in total; ``slots_levels``: slots times levels."""

    chips: int | None = None
    on_chip_s: float | None = None
    latency_s: float | None = None
    energy_nj: float | None = None
    slots_levels: int | None = None

    def excess(self, **found: float) -> float:
        """How far figures lie beyond their bounds: the sum of the shares above them, 0 within."""
        bounds = ((value, getattr(self, name)) for name, value in found.items())
        return sum(max(0.0, value / bound - 1) for value, bound in bounds if bound is not None)


@dataclass(frozen=True)
class Layout:
    """One layout, judged. ``cost``: of a steady frame; ``chips``: of the search phase by the vendor's split rule;
    slots, levels and cores are of what the chips run."""

    config: TrackerConfig
    way: Way
    slots: int
    levels: int
    cores: int
    chips: int
    macs: int
    cost: ResultCost

    @property
    def slots_levels(self) -> int:
        """What neurons cost: every slot is stepped at every level."""
        return self.slots * self.levels

    @property
    def merits(self) -> tuple[float, ...]:
        """What is wanted, more being better: multiply-accumulates, crop side; little energy, a short way."""
        return self.macs, self.config.resolution, -self.cost.total.nominal, -self.cost.on_chip.nominal

    def beaten_by(self, other: Layout) -> bool:
        """Whether ``other`` is as good in everything and better in something."""
        pairs = list(zip(other.merits, self.merits))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def judge(config: TrackerConfig, target: Target, bounds: Bounds | None = None, way: Way = WAYS[0]) -> Layout | float:
    """The layout of ``config``, or how far it lies beyond the ``bounds`` (first those that cost nothing to know).

    Nothing is within the bounds where a host has no first layer to run, or the chips cannot run it this ``way``.
    InputError: a configuration that cannot be outlined.
    """
    bounds = bounds or Bounds()
    if way.on(target.profile) != way:
        return float("inf")
    program = outline(config)
    phase = main_phase(runs_per_result(program))
    network, profile = populations(program, phase, way.streams), target.profile
    if way.by_host:
        rest = without_first_layer(network)
        if rest is None:
            return float("inf")
        network = rest[0]
    slots, each = sum(network.slots.values()), profile.price("t_image")
    enters = sum(p.slots * (rate(p) if p.kind == "entry" else p.kind == "image") for p in network.populations)
    early = {"slots_levels": slots * network.depth, "latency_s": each.nominal * enters if each else 0.0}
    if beyond := bounds.excess(**early):
        return beyond
    activity = assumed(network, program.arrays, rate)
    mapping = map_program(program, phase, target, network=network, activity=activity, rule=VENDOR_RULE, rounds=0)
    run = mapped_run(mapping, activity, profile, closed_loop(mapping, profile))
    cost = result_cost(STEADY, [run], profile, mapping.powered)
    times = {"on_chip_s": cost.on_chip.nominal, "latency_s": cost.latency.nominal}
    beyond = bounds.excess(chips=mapping.chips, energy_nj=cost.total.nominal, **times)
    if beyond or not mapping.holds:
        return beyond + (not mapping.holds)
    return Layout(config, way, slots, network.depth, mapping.cores, mapping.chips, dense_macs(program), cost)


def dense_macs(program: Program) -> int:
    """Multiply-accumulates of a frame, padding and products with matrices counted."""
    phase = main_phase(runs_per_result(program))
    return sum(int(layer["dense_macs"]) for layer in shape_counts(program, phase))


def search(
    base: TrackerConfig,
    target: Target,
    bounds: Bounds,
    *,
    trials: int,
    seed: int,
    ways: Sequence[Way] = WAYS,
    told: Callable[[int], None] = lambda done: None,
) -> tuple[list[Layout], list[Layout]]:
    """Every layout within ``bounds`` that was met, and those of them that no other beats, by multiply-accumulates.

    From ``base`` on, mapped in all ``ways``, ``trials`` changed copies of what is best so far are judged (until one is
    within the bounds: of what is least beyond them); those that compute most are changed most often. The same arguments
    give the same layouts. InputError: ``base`` cannot be outlined.
    """
    draw = random.Random(seed)
    seen: set[tuple[str, Way]] = set()
    front: list[Layout] = []
    found: list[Layout] = []
    nearest: list[tuple[float, int, TrackerConfig, Way]] = []
    first = list(ways)
    for done in range(trials):
        if done < len(first):
            config, way = base, first[done]
        else:
            parents = [(one.config, one.way) for one in front] or [(config, way) for *_, config, way in nearest]
            parent, way = parents[int(len(parents) * draw.random() ** 2)]
            config, way = _changed(parent, draw), draw.choice(ways) if draw.random() < _OTHER_WAY else way
        if (_code(config), way) not in seen:
            seen.add((_code(config), way))
            judged = judge(config, target, bounds, way)
            if isinstance(judged, Layout):
                found.append(judged)
                front = sorted(_with(front, judged), key=lambda one: (-one.macs, one.config.name))
            else:
                nearest = sorted([*nearest, (judged, done, config, way)], key=lambda near: near[:2])[:_NEAREST]
        told(done + 1)
    return found, front


def _with(front: Iterable[Layout], one: Layout) -> list[Layout]:
    kept = [other for other in front if not other.beaten_by(one)]
    return kept if any(one.beaten_by(other) for other in kept) else [*kept, one]


def spread(front: Sequence[Layout], shown: int = SHOWN) -> list[Layout]:
    """At most so many of the front: the best in every merit, then evenly by multiply-accumulates."""
    if len(front) <= shown:
        return list(front)
    indices = range(len(front))
    best = {max(indices, key=[layout.merits[m] for layout in front].__getitem__) for m in range(len(front[0].merits))}
    even = [round(i * (len(front) - 1) / (shown - 1)) for i in range(shown)]
    return [front[i] for i in sorted({*best, *even[: shown - len(best)]})]


def _code(config: TrackerConfig) -> str:
    """The levers in short: side, widths, head width, expansions, value ratio, blocks."""
    d0, d1, d2, _ = config.dims
    always = (*REQUIRED_STAGES, "downsample1_2")
    blocks = [s.replace("ConvBlock", "cb").removesuffix(".0") for s in config.walk if s not in always]
    ratios = f"e{config.sep_expansion}{config.conv_expansion}{config.mlp_expansion} v{config.value_ratio}"
    stem = "/4" if config.coarse_stem else ""
    return f"{config.resolution}{stem} {d0}-{d1}-{d2} h{config.head_width} {ratios} {'+'.join(blocks)}"[:100]


def _changed(config: TrackerConfig, draw: random.Random) -> TrackerConfig:
    """A copy with one to three levers moved; drawn again where it would not be legal."""
    while True:
        values = asdict(config) | {"loop": config.loop, "normalisation": config.normalisation}
        for _ in range(draw.choice((1, 1, 2, 3))):
            _move(values, draw)
        try:
            changed = TrackerConfig(**values)
        except InputError:  # heads that do not divide a width, a network beyond the largest
            continue
        if changed.memory_indices:  # without a retriever nobody would know what to look for
            return changed.renamed(_code(changed))


def _move(values: dict[str, Any], draw: random.Random) -> None:
    lever = draw.choice((*_LEVERS, "dims", "dims", "walk", "walk"))
    if lever == "walk":
        stage = draw.choice(STAGES)
        walk = set(values["walk"]) ^ {stage}
        values["walk"] = tuple(s for s in OFFICIAL_WALK if s in walk)
    elif lever == "dims":
        which = draw.randrange(3)
        dims = list(values["dims"])
        dims[which] = _step(WIDTHS[which], dims[which], draw)
        values["dims"] = (*dims[:3], dims[2])
    else:
        values[lever] = _step(_LEVERS[lever], values[lever], draw)


_LEVERS = {
    "resolution": SIDES,
    "head_width": HEAD_WIDTHS,
    "sep_expansion": RATIOS,
    "conv_expansion": RATIOS,
    "mlp_expansion": RATIOS,
    "value_ratio": RATIOS,
}


def _step(levels: Sequence[int], value: int, draw: random.Random) -> int:
    """One or two levels up or down from the nearest."""
    at = min(range(len(levels)), key=lambda i: abs(levels[i] - value))
    return levels[max(0, min(len(levels) - 1, at + draw.choice((-2, -1, 1, 2))))]


def verdict(config: TrackerConfig, target: Target, way: Way = WAYS[0]) -> dict[str, Any]:
    """What ``spiketrack map`` says of a layout, by the vendor's split rule, with drawn weights and assumed rates:
    JSON-ready, seconds and nanojoules."""
    program = compile(drawn(config)).program
    whole = map_network(program, target, density=rate, rule=VENDOR_RULE, way=way)
    mapping, cost = whole.report.mapping, whole.cost
    slots, levels = sum(mapping.network.slots.values()), mapping.network.depth
    return {
        "name": config.name,
        "config": config.to_dict(),
        **way.to_dict(),
        "side": config.resolution,
        "macs": dense_macs(program),
        "parameters": parameters(config),
        "slots": slots,
        "levels": levels,
        "slots_levels": slots * levels,
        "cores": mapping.cores,
        "holds": mapping.holds,
        "chips": whole.chosen.chips,
        "chips_band": list(whole.chosen.band),
        "on_chip_s": cost.on_chip.nominal,
        "latency_s": cost.latency.nominal,
        "total_nj": cost.total.nominal,
        "cost": cost.to_dict(),
        "set_by": whole.report.loop.set_by,
    }


def known(layout: Layout) -> dict[str, Any]:
    """What the search knows of a layout without a verdict, by the names of :func:`verdict`."""
    cost = layout.cost
    return {
        "name": layout.config.name,
        **layout.way.to_dict(),
        "side": layout.config.resolution,
        "macs": layout.macs,
        "slots_levels": layout.slots_levels,
        "cores": layout.cores,
        "chips": layout.chips,
        "on_chip_s": cost.on_chip.nominal,
        "latency_s": cost.latency.nominal,
        "total_nj": cost.total.nominal,
    }


def meets(row: Mapping[str, Any], bounds: Bounds) -> bool:
    """Whether a verdict keeps the bounds."""
    found = {"energy_nj": row["total_nj"], **{k: row[k] for k in ("chips", "on_chip_s", "latency_s", "slots_levels")}}
    return bool(row["holds"]) and not bounds.excess(**found)
