"""Counts times prices: the one place where a count meets a price, and the list of what has no price.

This module decides which count which price multiplies, and what must be declared unpriced. It must not know chips by
name, nor how many runs there were, nor where neurons lie: a mapping brings counts of its own (hops, copies, barriers)
and is billed here like an operation.

    E = sum over prices p:  count_p * price_p             (nanojoules, end by end of the band)

with three rules of counting (:func:`payable`). A neuron that spikes is not idle: idle steps are
``neuron_updates * substeps`` minus the active ones. Pixels are not messages of this chip: what the image convolution
reads comes from the host. A price that is absent makes its count *unpriced*, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from spiketrack_deploy.energy.layers import LayerCounts, Number
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.units import ZERO, Interval, total

CAUSES = ("synops", "neuron", "message", "relay", "memory", "mac", "step")
"""What the energy of a layer is split by."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a price multiplies: a payable count, and the cause that its energy is shown under."""

    count: str
    cause: str


CHARGES: dict[str, Charge] = {
    "synop": Charge("synops", "synops"),
    "unit_op": Charge("unit_ops", "synops"),
    "synop_memory": Charge("synops", "memory"),
    "mac": Charge("macs", "mac"),
    "mac_memory": Charge("macs", "memory"),
    "neuron_idle": Charge("idle_updates", "neuron"),
    "neuron_active": Charge("active_updates", "neuron"),
    "message": Charge("messages", "message"),
    "unit_message": Charge("unit_messages", "message"),
    "relay_update": Charge("relay_updates", "relay"),
    "relay_message": Charge("relay_messages", "relay"),
    "relay_synop": Charge("relay_synops", "relay"),
    "memory_read": Charge("memory_reads", "memory"),
    "memory_write": Charge("memory_writes", "memory"),
    "slot_native": Charge("slot_steps_native", "neuron"),
    "slot_microcode": Charge("slot_steps_microcode", "neuron"),
    "chip_step": Charge("chip_steps", "step"),
    # Chips times nanoseconds in which they step: watts times them are nanojoules.
    "stepping_power": Charge("chip_ns", "step"),
    "hop_ew": Charge("hops_ew", "message"),
    "hop_ns": Charge("hops_ns", "message"),
}
"""Price -> what it multiplies. Prices that are not here are never multiplied by a count (power, time, totals)."""

MAPPED = ("slot_native", "slot_microcode", "chip_step", "stepping_power", "hop_ew", "hop_ns")
"""Prices whose count only a mapping knows."""

BY_WORD = ("synop_word", "synaptic_words")
"""Price and count of the other structure that the same measurements allow: all synaptic energy in words of memory read.
It stands instead of the prices of synaptic operations (:data:`BY_OPERATION`), never beside them."""
BY_OPERATION = ("synop", "mac", "relay_synop")


@dataclass(frozen=True, slots=True)
class Need:
    """Something that happens: its count, the prices of which one has to exist, and what it is in words."""

    count: str
    prices: tuple[str, ...]
    what: str


NEEDS = (
    Need("synops", ("synop", "unit_op"), "synaptic operations"),
    Need("macs", ("mac",), "multiply-accumulates of the image convolution"),
    Need("neuron_updates", ("neuron_idle",), "neuron updates"),
    Need("neuron_spiking", ("neuron_active",), "updates of spiking neurons"),
    Need("messages", ("message", "unit_message"), "spike messages"),
    Need("relays", ("relay_message",), "graded stream messages"),
    Need("relays", ("relay_update",), "updates of relaying stream accumulators"),
    Need("relay_synops", ("relay_synop",), "synapses visited by stream values"),
    Need("memory_reads", ("memory_read",), "words of stored matrices read (the non-zero ones are also synops)"),
    Need("memory_writes", ("memory_write",), "words of stored matrices rewritten"),
    Need("host_ops", (), "operations on the host or in microcode: exponentials, products of the gate"),
)

_NEEDS_MAPPING = (
    ("hops", "router hops need a mapping"),
    ("destination_cores", "messages to more than one core per consuming layer need a mapping"),
    ("elapsed_steps", "occupied slots are stepped in every elapsed step: both need a mapping"),
    ("barrier", "steps per result need a mapping, and no barrier energy was published"),
    ("static_power_x_latency", "chips and latency need a mapping; the static line is one chip and frame period"),
    ("host_io", "moving inputs and results between host and chip needs a mapping"),
)
"""What no count of a network says: it depends on where the layers are."""

_STEPPED = {"neuron_idle", "neuron_active", "relay_update"}

Amount = TypeVar("Amount")


def charged(counts: Mapping[str, Amount], profile: Profile) -> Iterator[tuple[str, Charge, Interval, Amount]]:
    """Price name, charge, price (nJ) and count, for every price of ``profile`` that meets one of ``counts``.

    The only place where counts meet prices. A count may be a number or an array of them.
    """
    for name, item in profile.prices.items():
        charge = CHARGES.get(name)
        if charge is not None and charge.count in counts:
            yield name, charge, item.interval, counts[charge.count]


@dataclass(frozen=True, slots=True)
class Part:
    """One count times one price: ``energy`` in nanojoules."""

    price: str
    cause: str
    count: float
    energy: Interval


def bill(counts: Mapping[str, Number], profile: Profile) -> tuple[Part, ...]:
    """Every payable count times its price (nanojoules, band end by end)."""
    return tuple(Part(name, c.cause, count, cost * count) for name, c, cost, count in charged(counts, profile))


def bill_by_words(counts: Mapping[str, Number], profile: Profile) -> tuple[Part, ...] | None:
    """The same counts where synaptic energy is in words of memory read (:data:`BY_WORD`) and not in operations.

    ``None`` where the profile has no price of a word or nobody counted words."""
    name, count = BY_WORD
    cost = profile.price(name)
    if cost is None or count not in counts:
        return None
    words = Part(name, "synops", counts[count], cost * counts[count])
    return (words, *(part for part in bill(counts, profile) if part.price not in BY_OPERATION))


def covering(counts: Mapping[str, Number], profile: Profile) -> Interval:
    """Energy of ``counts``, nanojoules: nominal by operations, the band over both structures."""
    found = total(part.energy for part in bill(counts, profile))
    other = bill_by_words(counts, profile)
    if other is None:
        return found
    by_words = total(part.energy for part in other)
    return Interval(min(found.low, by_words.low), found.nominal, max(found.high, by_words.high))


def payable(layer: LayerCounts, substeps: int) -> dict[str, Number]:
    """What is paid for in one mean run of a layer, by the names of :data:`CHARGES`; nothing that did not happen.

    ``substeps``: chip steps per time step. Without the sum of emitted spikes an active neuron is taken as active in
    one sub-step; :func:`unpriced` says so.
    """
    active = layer["output_sum"] if substeps > 1 and layer["output_sum"] else layer["neuron_spiking"]
    on_chip = layer.kind != "image_conv"
    counts = {
        "synops": layer["synops"],
        "unit_ops": layer["unit_ops"],
        "macs": layer["macs"],
        "idle_updates": layer["neuron_updates"] * substeps - active,
        "active_updates": active,
        "messages": layer["events"] if on_chip else 0,
        "unit_messages": layer["input_sum"] if on_chip else 0,
        "relay_updates": layer["relays"],
        "relay_messages": layer["relays"],
        "relay_synops": layer["relay_synops"],
        "memory_reads": layer["memory_reads"],
        "memory_writes": layer["memory_writes"],
    }
    return {name: count for name, count in counts.items() if count}


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """Dynamic energy of one layer, in nanojoules."""

    name: str
    kind: str
    block: str
    parts: tuple[Part, ...]

    @property
    def total(self) -> Interval:
        """Sum of all priced parts, nanojoules."""
        return total(part.energy for part in self.parts)

    @property
    def by_cause(self) -> dict[str, Interval]:
        """Cause -> nanojoules, all causes."""
        return by_cause(self.parts)


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Something that happens and has no price. ``count``: its mean, or ``None`` where nobody counted it; ``per``: the
    phase of which one run is meant, or what else."""

    name: str
    count: float | None
    per: str
    reason: str

    def to_dict(self) -> dict[str, str | float | None]:
        """As energy.json writes it."""
        return {"name": self.name, "count": self.count, "per": self.per, "reason": self.reason}


def add_counts(into: dict[str, float], counts: Mapping[str, Number]) -> None:
    """Add ``counts`` to a sum, name by name."""
    for name, count in counts.items():
        into[name] = into.get(name, 0) + count


def by_cause(parts: Iterable[Part]) -> dict[str, Interval]:
    """Sum parts by cause, nanojoules."""
    sums = dict.fromkeys(CAUSES, ZERO)
    for part in parts:
        sums[part.cause] = sums[part.cause] + part.energy
    return sums


def price(layer: LayerCounts, counts: Mapping[str, Number], profile: Profile) -> LayerEnergy:
    """Dynamic energy of one mean run of a layer (nanojoules, band end by end).

    ``counts``: what it is charged for, by the program's own counts (:func:`payable`) or by a mapping's.
    """
    return LayerEnergy(layer.name, layer.kind, layer.block, bill(counts, profile))


def paid(layers: Iterable[LayerCounts], profile: Profile) -> dict[str, Number]:
    """What is paid for in one mean run of all ``layers`` together."""
    sums: dict[str, float] = {}
    for layer in layers:
        add_counts(sums, payable(layer, profile.substeps))
    return sums


def dynamic_energy(layers: Iterable[LayerCounts], profile: Profile) -> Interval:
    """Dynamic energy of one mean run of a phase, nanojoules: counts are summed first, so a frame takes little time."""
    return total(part.energy for part in bill(paid(layers, profile), profile))


def lacks(need: Need, profile: Profile) -> str | None:
    """Which prices ``profile`` would need for it; ``None`` where it has one."""
    if any(price in profile.prices for price in need.prices):
        return None
    return f"no price {' or '.join(need.prices)} in {profile.name}" if need.prices else "no energy was published"


def unpriced(layers: Sequence[LayerCounts], profile: Profile, per: str) -> list[Unpriced]:
    """Everything that one mean run of ``layers`` does and ``profile`` cannot price; ``per`` names the phase."""
    events = {True: 0.0, False: 0.0}
    for layer in layers:
        events[layer.kind == "image_conv"] += layer["events"]
    found = []
    for need in NEEDS:
        count = events[False] if need.count == "messages" else sum(layer[need.count] for layer in layers)
        lack = lacks(need, profile)
        if lack and set(need.prices) & _STEPPED and {"slot_native", "slot_microcode"} & set(profile.prices):
            lack = "paid by the occupied slot and elapsed step, which needs a mapping"
        if count and lack:
            found.append(Unpriced(need.count, count, per, f"{need.what}: {lack}"))
    if events[True]:
        reason = "non-zero pixels enter from the host; input is not modelled"
        found.append(Unpriced("pixel_messages", events[True], per, reason))
    spiking = sum(layer["neuron_spiking"] for layer in layers if not layer["output_sum"])
    if profile.substeps > 1 and spiking and "neuron_active" in profile.prices:
        reason = f"the trace has no sum of emitted spikes: active in one of {profile.substeps} sub-steps is charged"
        found.append(Unpriced("active_substeps", None, per, reason))
    return found


def needs_mapping(profile: Profile, per: str) -> list[Unpriced]:
    """What a chip or board adds that only a mapping can say; a convention has none of it."""
    if profile.kind == "convention":
        return []
    return [Unpriced(name, None, per, reason) for name, reason in _NEEDS_MAPPING]


def event_prices(profile: Profile) -> list[str]:
    """Prices of the profile that multiply a count of the program, or of its mapping where networks can be mapped to it:
    what decides its dynamic energy."""
    return [name for name in profile.prices if name in CHARGES and (profile.family or name not in MAPPED)]


def priced_causes(profile: Profile) -> set[str]:
    """Causes for which the profile has a price; the others are not free, nobody knows what they cost."""
    return {CHARGES[name].cause for name in event_prices(profile)}


def dominant(parts: Iterable[Part]) -> tuple[str, float] | None:
    """The price with the largest nominal energy and its share of the total; ``None`` where nothing costs anything."""
    sums: dict[str, float] = {}
    for part in parts:
        sums[part.price] = sums.get(part.price, 0.0) + part.energy.nominal
    every = sum(sums.values())
    if not every:
        return None
    name = max(sums, key=lambda key: sums[key])
    return name, sums[name] / every


def intervals(values: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """A mapping of intervals as JSON data."""
    return {key: value.to_dict() for key, value in values.items()}
