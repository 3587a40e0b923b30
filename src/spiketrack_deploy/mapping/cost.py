"""What a run of a mapped phase does, operation by operation: the counts that only a mapping knows.

This module decides what a mapping counts. It has no price: ``energy.pricing`` bills its counts, ``energy.frames`` adds
runs up to results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spiketrack_deploy.energy.frames import Run
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.pricing import Need, Unpriced, add_counts, lacks
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.mapping.activity import Activity
from spiketrack_deploy.mapping.closed_loop import VALUE_PER_SPIKE, ClosedLoop
from spiketrack_deploy.mapping.entry import entering
from spiketrack_deploy.mapping.types import ChipMapping

Counts = dict[str, float]

NEEDS = (
    Need("synops", ("synop", "unit_op"), "synaptic operations"),
    Need("relay_synops", ("relay_synop",), "stream synapses"),
    Need("macs", ("mac",), "image multiply-accumulates"),
    Need("slot_steps_native", ("slot_native", "neuron_idle"), "slots of hard-coded neurons, every elapsed step"),
    Need("slot_steps_microcode", ("slot_microcode", "neuron_idle"), "slots of programmed neurons, every elapsed step"),
    Need("relay_updates", ("slot_microcode", "relay_update"), "of these, accumulators of streams"),
    Need("messages", ("message", "unit_message"), "spike messages, every destination core"),
    Need("relay_messages", ("relay_message",), "stream messages, every destination core"),
    Need("hops_ew", ("hop_ew",), "hops east-west"),
    Need("hops_ns", ("hop_ns",), "hops north-south"),
    Need("chip_steps", ("chip_step", "stepping_power"), "elapsed steps of every chip"),
    Need("chip_crossings", (), "messages between chips"),
    Need("host_values", (), "values exchanged with the host beside the image"),
    Need("memory_writes", ("memory_write",), "entries of stored matrices rewritten"),
    Need("entering", (), "values of the image entering from the host, or of its first layer run there"),
    Need("barriers", (), "barriers"),
)
"""What a mapping counts, and the prices of which one has to exist."""


def hops(mapping: ChipMapping) -> tuple[float, float]:
    """Messages times hops per run, east-west and north-south."""
    flow, at = mapping.traffic, mapping.placement
    east = np.abs(at.x[flow.source] - at.x[flow.target]) * flow.messages
    south = np.abs(at.y[flow.source] - at.y[flow.target]) * flow.messages
    return float(east.sum()), float(south.sum())


def between_chips(mapping: ChipMapping) -> float:
    """Messages per run that leave their chip."""
    flow, chip = mapping.traffic, mapping.placement.chip
    return float(flow.messages[chip[flow.source] != chip[flow.target]].sum())


def mapped_run(
    mapping: ChipMapping,
    activity: Activity,
    profile: Profile,
    loop: ClosedLoop,
    value_per_spike: float = VALUE_PER_SPIKE,
) -> Run:
    """One run: what every operation does, and what belongs to none.

    ``activity`` may be of another run than the one that was mapped: cores and routes stay, and the messages between
    cores change alike everywhere. ``value_per_spike``: mean spike value, used only where spikes are binary.
    """
    operations = operation_counts(mapping, activity, profile.substeps, loop.steps, value_per_spike)
    sent = sum(counts.get(key, 0.0) for counts in operations.values() for key in ("messages", "relay_messages"))
    mapped = float(mapping.messages.sum())
    moved = (sent / mapped if mapped else 0.0) * (1.0 if profile.substeps == 1 else value_per_spike)
    east, north = hops(mapping)
    network = mapping.network
    sources = [network.populations[s.source] for s in network.synapses if s.form == "host"]
    values = entering(network, activity)
    read = {s.source for s in network.synapses}
    written = {i for i, p in enumerate(network.populations) if p.kind == "memory" and i not in read}
    return Run(
        phase=network.phase,
        operations=operations,
        whole={
            "chip_steps": float(mapping.chips * loop.steps),
            "chip_ns": mapping.chips * loop.latency.nominal * 1e9,
            "hops_ew": east * moved,
            "hops_ns": north * moved,
            "chip_crossings": between_chips(mapping) * moved,
            # The matrix of another phase is written when that phase runs, not in every run of this one.
            "host_values": float(sum(p.slots for p in sources if p.kind != "input")),
            "memory_writes": float(sum(p.slots for i, p in enumerate(network.populations) if i in written)),
            "barriers": float(loop.steps),
            "entering": values,
        },
        chips=mapping.powered,
        time=loop.latency,
        entering=values,
    )


def unpriced_of(run: Run, profile: Profile) -> list[Unpriced]:
    """What a run does and the profile cannot price."""
    found = []
    for need in NEEDS:
        count, lack = run.counts.get(need.count, 0.0), lacks(need, profile)
        if count and lack:
            found.append(Unpriced(need.count, count, run.phase, f"{need.what}: {lack}"))
    if profile.price("static_power") is None:
        found.append(Unpriced("static_power", run.chips, "chip", f"no price static_power in {profile.name}"))
    if profile.price("t_image") is None and run.entering:
        found.append(Unpriced("image_way", run.entering, run.phase, f"no price t_image in {profile.name}"))
    return found


def operation_counts(
    mapping: ChipMapping, activity: Activity, substeps: int, steps: int, value_per_spike: float
) -> Mapping[str, Counts]:
    """Operation -> what it does in a run, by the names of ``energy.pricing.CHARGES`` and :data:`NEEDS`.

    ``steps``: elapsed steps of a run. Unit operations and messages are those of a spike of value n as n events; where a
    time step takes several ``substeps``, every spike travels and updates its neuron so often.
    """
    network, found = mapping.network, dict[str, Counts]()
    messages = mapping.copies * activity.rate
    for index, s in enumerate(network.synapses):
        source = network.populations[s.source]
        streams = s.form in ("identity", "pool", "upsample")
        spikes = source.kind == "neurons" and not streams
        kind = "macs" if source.kind == "image" else "relay_synops" if streams else "synops"
        synops, sent = float(activity.synops[index]), float(messages[index])
        counts: Counts = {kind: synops, "messages" if spikes else "relay_messages": sent}
        counts["synaptic_words"] = synops * float(mapping.synapses.words_a_visit[index])
        if kind == "synops":
            counts["unit_ops"] = synops * value_per_spike
        if spikes:
            counts["unit_messages"] = sent * value_per_spike
        add_counts(found.setdefault(s.op, {}), counts)
    for p, programmed in zip(network.populations, mapping.programmed):
        if p.on_chip:
            add_counts(found.setdefault(p.op, {}), _slots(p.kind, float(p.slots) * steps, programmed))
    for op, share in activity.spiking.items():
        active = share * (1.0 if substeps == 1 else value_per_spike)
        idle = max(0.0, found[op].get("idle_updates", 0.0) - active)
        found[op] |= {"active_updates": active, "idle_updates": idle}
    return found


def _slots(kind: str, stepped: float, programmed: bool) -> Counts:
    """What a population's slots are stepped: a chip is paid by the slot, or by what its neuron does."""
    paid = "slot_steps_microcode" if programmed else "slot_steps_native"
    return {paid: stepped, "idle_updates" if kind == "neurons" else "relay_updates": stepped}


def mean_value(layers: Sequence[LayerCounts]) -> float:
    """Mean value of a spike, over synaptic operations; an assumed one where nothing was counted."""
    synops = sum(layer["synops"] for layer in layers)
    return sum(layer["unit_ops"] for layer in layers) / synops if synops else VALUE_PER_SPIKE
