"""Counts times prices: the energy of a layer, split by cause, and the list of what has no price.

This module decides which count meets which price (by the vocabulary of ``hardware``) and what must be declared
unpriced. It must not know chips by name, nor how many frames there were.

    E[layer] = sum over prices p with a count:  count_p * price_p             (nanojoules, end by end of the band)

with three rules beside the vocabulary. A neuron that spikes is not idle: idle steps are ``neuron_updates * substeps``
minus the active ones. Pixels are not messages of this chip: what the image convolution reads comes from the host. A
price that is absent makes its count *unpriced*, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.hardware.vocabulary import CAUSES, PRICES
from spiketrack_deploy.units import ZERO, Interval, total


class Counted(Protocol):
    """Counts of one layer: of one run (``LayerCounts``), or means over several (``Mean``)."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def block(self) -> str: ...
    def __getitem__(self, key: str) -> float: ...


@dataclass(frozen=True, slots=True)
class Part:
    """One count times one price: ``energy`` in nanojoules."""

    price: str
    cause: str
    count: float
    energy: Interval


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
    """Something that happens and has no price. ``count``: its mean, or ``None`` where nobody counted it."""

    name: str
    count: float | None
    per: str
    reason: str

    def to_dict(self) -> dict[str, str | float | None]:
        """As energy.json writes it."""
        return {"name": self.name, "count": self.count, "per": self.per, "reason": self.reason}


def by_cause(parts: Iterable[Part]) -> dict[str, Interval]:
    """Sum parts by cause, nanojoules."""
    sums = dict.fromkeys(CAUSES, ZERO)
    for part in parts:
        sums[part.cause] = sums[part.cause] + part.energy
    return sums


def _multiplier(price: str, layer: Counted, substeps: int) -> float:
    """How often ``price`` is paid in this layer."""
    if price in ("neuron_idle", "neuron_active"):
        # Without the sum of emitted spikes an active neuron is taken as active in one sub-step; `unpriced` says so.
        active = layer["output_sum"] if substeps > 1 and layer["output_sum"] else layer["neuron_spiking"]
        return active if price == "neuron_active" else layer["neuron_updates"] * substeps - active
    if price in ("message", "unit_message") and layer.kind == "image_conv":
        return 0
    count = PRICES[price].count
    return layer[count] if count else 0


def price(layer: Counted, profile: Profile) -> LayerEnergy:
    """Dynamic energy of one layer (nanojoules, band end by end), for every price of ``profile`` that has a count."""
    parts = []
    for name in profile.prices:
        cause, cost = PRICES[name].cause, profile.price(name)
        count = _multiplier(name, layer, profile.substeps)
        if cause is not None and cost is not None and count:
            parts.append(Part(name, cause, count, cost * count))
    return LayerEnergy(layer.name, layer.kind, layer.block, tuple(parts))


def dynamic_energy(layers: Iterable[Counted], profile: Profile) -> Interval:
    """Dynamic energy of one search frame or template update, nanojoules: the sum over its layers."""
    return total(price(layer, profile).total for layer in layers)


# Count -> the prices of which at least one has to exist.
_NEEDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("synops", ("synop", "unit_op"), "synaptic operations"),
    ("macs", ("mac",), "multiply-accumulates of the image convolution"),
    ("neuron_updates", ("neuron_idle",), "neuron updates"),
    ("neuron_spiking", ("neuron_active",), "updates of spiking neurons"),
    ("messages", ("message", "unit_message"), "spike messages"),
    ("relays", ("relay_message",), "graded stream messages"),
    ("relays", ("relay_update",), "updates of relaying stream accumulators"),
    ("relay_synops", ("relay_synop",), "synapses visited by stream values"),
    ("memory_reads", ("memory_read",), "words of template matrices read (the non-zero ones are also synops)"),
    ("memory_writes", ("memory_write",), "words of template matrices rewritten"),
    ("host_ops", (), "operations on the host or in microcode: exponentials, products of the gate"),
)

# What no count of a network says: it depends on where the layers are.
_NEEDS_MAPPING = (
    ("hops", "router hops need a mapping"),
    ("destination_cores", "messages to more than one core per consuming layer need a mapping"),
    ("barrier", "steps per frame need a mapping, and no barrier energy was published"),
    ("static_power_x_latency", "chips and latency need a mapping; the static line is one chip and frame period"),
    ("host_io", "moving frames and results between host and chip is not modelled"),
)


def _occurrences(count: str, layers: Sequence[Counted]) -> float:
    if count == "messages":
        return sum(layer["events"] for layer in layers if layer.kind != "image_conv")
    return sum(layer[count] for layer in layers)


def unpriced(layers: Sequence[Counted], profile: Profile, per: str) -> list[Unpriced]:
    """Everything that ``layers`` do and ``profile`` cannot price, with its count; ``per`` names the run."""
    found = []
    for count, names, what in _NEEDS:
        occurs = _occurrences(count, layers)
        if occurs and not any(name in profile.prices for name in names):
            wanted = f"no price {' or '.join(names)} in {profile.name}" if names else "no price exists for it"
            found.append(Unpriced(count, occurs, per, f"{what}: {wanted}"))
    pixels = sum(layer["events"] for layer in layers if layer.kind == "image_conv")
    if pixels:
        found.append(
            Unpriced("pixel_messages", pixels, per, "non-zero pixels enter from the host; input is not modelled")
        )
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


def dominant(layers: Iterable[LayerEnergy]) -> tuple[str, float] | None:
    """The price with the largest nominal energy and its share of the total; ``None`` where nothing costs anything."""
    sums: dict[str, float] = {}
    for layer in layers:
        for part in layer.parts:
            sums[part.price] = sums.get(part.price, 0.0) + part.energy.nominal
    whole = sum(sums.values())
    if not whole:
        return None
    name = max(sums, key=lambda key: sums[key])
    return name, sums[name] / whole


def intervals(values: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """A mapping of intervals as JSON data."""
    return {key: value.to_dict() for key, value in values.items()}
