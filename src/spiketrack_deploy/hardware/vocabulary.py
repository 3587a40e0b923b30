"""The closed vocabulary of hardware profiles: units, tags, names of prices and of limits.

This module decides which prices and limits exist, in which dimension, and which count a price multiplies. It must not
know any chip's values (they are data, in ``hardware_profiles/``) nor how totals are formed (``energy``).
"""

from __future__ import annotations

from dataclasses import dataclass

TAGS = ("measured", "derived", "simulated", "fit", "assumed")
"""How a price is known: on silicon; by arithmetic from silicon data; by circuit simulation; by a fit; not at all."""

LIMIT_TAGS = (*TAGS, "specified")
"""A limit may also simply be specified: stated by the vendor, or a constant of the architecture."""

CAUSES = ("synops", "neuron", "message", "relay", "memory", "mac")
"""What the energy of a layer is split by."""

UNITS: dict[str, tuple[str, float]] = {
    "fJ": ("energy", 1e-6),
    "pJ": ("energy", 1e-3),
    "nJ": ("energy", 1.0),
    "uJ": ("energy", 1e3),
    "ps": ("time", 1e-12),
    "ns": ("time", 1e-9),
    "us": ("time", 1e-6),
    "ms": ("time", 1e-3),
    "uW": ("power", 1e-6),
    "mW": ("power", 1e-3),
    "W": ("power", 1.0),
}
"""Unit -> dimension and factor to the base unit of that dimension: nJ, s, W."""


@dataclass(frozen=True, slots=True)
class PriceSpec:
    """One word of the price vocabulary.

    ``count``: the field of the program's counts that the price multiplies; ``None`` where a mapping has to supply the
    number (hops, chips, seconds). ``cause``: one of :data:`CAUSES`, for energies with a count.
    """

    dimension: str
    count: str | None
    cause: str | None
    meaning: str


PRICES: dict[str, PriceSpec] = {
    "synop": PriceSpec("energy", "synops", "synops", "one non-zero synapse visited by one graded spike of any value"),
    "unit_op": PriceSpec(
        "energy", "unit_ops", "synops", "one non-zero synapse visited by one of a spike's n binary events"
    ),
    "synop_memory": PriceSpec(
        "energy", "synops", "memory", "memory traffic of one synaptic operation, added to its price"
    ),
    "mac": PriceSpec("energy", "macs", "mac", "one multiply-accumulate of the image convolution"),
    "neuron_idle": PriceSpec("energy", "neuron_updates", "neuron", "one step of a neuron that does not spike in it"),
    "neuron_active": PriceSpec("energy", "neuron_spiking", "neuron", "one step of a neuron that spikes in it"),
    "message": PriceSpec("energy", "events", "message", "one graded spike generated and sent to one core"),
    "unit_message": PriceSpec("energy", "input_sum", "message", "one binary spike generated and sent to one core"),
    "relay_update": PriceSpec("energy", "relays", "relay", "update of a stream accumulator that passes its value on"),
    "relay_message": PriceSpec("energy", "relays", "relay", "one stream value sent as a graded message to one core"),
    "relay_synop": PriceSpec("energy", "relay_synops", "relay", "one synapse visited by a stream value"),
    "memory_read": PriceSpec(
        "energy", "memory_reads", "memory", "one word of a template's matrix read, beside the synop"
    ),
    "memory_write": PriceSpec("energy", "memory_writes", "memory", "one word of a template's matrix rewritten"),
    "event_total": PriceSpec(
        "energy", None, None, "everything a chip drew in a published run over its synaptic events: never multiplied"
    ),
    "hop_ew": PriceSpec("energy", None, None, "one message over one east-west router hop"),
    "hop_ns": PriceSpec("energy", None, None, "one message over one north-south router hop"),
    "state_reset": PriceSpec("energy", None, None, "reset of the whole neuron state of one chip"),
    "static_power": PriceSpec("power", None, None, "one powered chip, doing nothing"),
    "embedded_cpu_power": PriceSpec("power", None, None, "the embedded processors of one chip, busy"),
    "busy_core_power": PriceSpec("power", None, None, "dynamic power of one busy core: a check, never added"),
    "t_synop": PriceSpec("time", None, None, "one synaptic operation in its core"),
    "t_neuron": PriceSpec("time", None, None, "one neuron update in its core"),
    "t_neuron_idle": PriceSpec("time", None, None, "one update of a neuron that does not spike"),
    "t_neuron_active": PriceSpec("time", None, None, "one update of a neuron that spikes"),
    "t_spike": PriceSpec("time", None, None, "generation of one spike"),
    "t_message_out": PriceSpec("time", None, None, "one message leaving a core"),
    "t_message_in": PriceSpec("time", None, None, "one message entering a core"),
    "t_hop_ew": PriceSpec("time", None, None, "one east-west router hop"),
    "t_hop_ns": PriceSpec("time", None, None, "one north-south router hop"),
    "t_barrier_chip": PriceSpec("time", None, None, "barrier at the end of a step, one chip"),
    "t_barrier_chips": PriceSpec("time", None, None, "barrier at the end of a step, several chips"),
}

EXCLUSIVE = (("synop", "unit_op"), ("message", "unit_message"))
"""Pairs that would charge the same event twice: a spike is either one graded message or as many binary ones."""

LIMITS: dict[str, tuple[str, str]] = {
    "chips": ("chips", "chips of a board"),
    "board_power": ("W", "most that the whole board or system draws, as stated by its vendor"),
    "cores_per_chip": ("cores", "neurocores of one chip"),
    "cores_per_tile": ("cores", "neurocores that share a router"),
    "tiles_x": ("tiles", "columns of the router mesh"),
    "tiles_y": ("tiles", "rows of the router mesh"),
    "neurons_per_core": ("neurons", "neurons (compartments) that one core holds"),
    "neurons_per_core_compiler": ("neurons", "neurons per core that the vendor's compiler allows"),
    "neuron_groups_per_core": ("groups", "different neuron programs or configurations in one core"),
    "neurons_per_chip": ("neurons", "neurons of one chip, where cores are not the unit"),
    "memory_per_core": ("bytes", "all memory of one core"),
    "synaptic_memory_per_core": ("bytes", "the part of it that may hold synapses"),
    "synaptic_words_per_core": ("words", "64-bit words of synaptic memory"),
    "input_axons_per_core": ("axons", "input axon slots"),
    "output_axons_per_core": ("axons", "core-to-core output edges"),
    "axon_map_per_core": ("entries", "entries of the axon map"),
    "weight_bits": ("bits", "widest native weight, sign included"),
    "payload_bits": ("bits", "payload of a spike message; 0: binary spikes only"),
    "state_bits": ("bits", "membrane register, sign included"),
    "decay_bits": ("bits", "decay factor"),
    "substeps": ("steps", "chip steps that one time step of the tracker takes (a spike of value n is n binary spikes)"),
}
"""Limit -> unit and meaning."""

POSITIVE = (
    "chips", "cores_per_chip", "cores_per_tile", "tiles_x", "tiles_y", "neurons_per_core", "substeps", "weight_bits",
)  # fmt: skip
"""Limits that must be at least 1: a chip without any of these holds nothing."""

MESH = ("cores_per_chip", "cores_per_tile", "tiles_x", "tiles_y")
MOST_CORES = 2**17
"""Largest value of each limit of :data:`MESH`, and most tiles: a mapping holds the mesh of a chip in memory."""

ORDERED = (
    ("cores_per_tile", "cores_per_chip"),
    ("neurons_per_core_compiler", "neurons_per_core"),
    ("neurons_per_core", "neurons_per_chip"),
    ("synaptic_memory_per_core", "memory_per_core"),
)
"""Pairs of limits of which the first cannot be more than the second."""
