"""The closed vocabulary of hardware profiles: units, tags, families of chips, names of prices and of limits.

This module decides which families, prices and limits exist, in which dimension. It must not know any chip's values
(they are data, in ``hardware_profiles/``), what a family's cores do (``mapping.families``) nor which count a price
multiplies (``energy.pricing``).
"""

from __future__ import annotations

TAGS = ("measured", "derived", "simulated", "fit", "assumed")
"""How a price is known: on silicon; by arithmetic from silicon data; by circuit simulation; by a fit; not at all."""

LIMIT_TAGS = (*TAGS, "specified")
"""A limit may also simply be specified: stated by the vendor, or a constant of the architecture."""

FAMILIES: dict[str, str] = {
    "loihi1": "binary spikes, fixed neuron model, synapses with an index (Davies 2018, 10.1109/MM.2018.112130359)",
    "loihi2": "graded spikes, programmable neurons, convolution kernels shared by the positions of a core",
}
"""Families of chips that a network can be mapped to: name -> what its numbers cannot say. One row of
``mapping.families`` each."""

RAILS: dict[str, tuple[str, ...]] = {"loihi1": ("VDD", "VDDM", "VDDIO"), "loihi2": ("VDD", "VDDM", "VDDIO")}
"""Family -> supply rails of a chip, all of which a measurement of its power has to add up (Intel's power probes, as in
the notebooks of github.com/lava-nc/lava-dl)."""

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


PRICES: dict[str, tuple[str, str]] = {
    "synop": ("energy", "one non-zero synapse visited by one graded spike of any value"),
    "unit_op": ("energy", "one non-zero synapse visited by one of a spike's n binary events"),
    "synop_memory": ("energy", "memory traffic of one synaptic operation, added to its price"),
    "mac": ("energy", "one multiply-accumulate of the image convolution"),
    "mac_memory": ("energy", "memory traffic of one multiply-accumulate, added to its price"),
    "dense_mac": ("energy", "one multiply-accumulate of a dense network, with all that an accelerator draws meanwhile"),
    "neuron_idle": ("energy", "one step of a neuron that does not spike in it"),
    "neuron_active": ("energy", "one step of a neuron that spikes in it"),
    "message": ("energy", "one graded spike generated and sent to one core"),
    "unit_message": ("energy", "one binary spike generated and sent to one core"),
    "relay_update": ("energy", "update of a stream accumulator that passes its value on"),
    "relay_message": ("energy", "one stream value sent as a graded message to one core"),
    "relay_synop": ("energy", "one synapse visited by a stream value"),
    "memory_read": ("energy", "one word of a stored matrix read, beside the synop"),
    "memory_write": ("energy", "one word of a stored matrix rewritten"),
    "event_total": ("energy", "everything a chip drew in a published run over its synaptic events: never multiplied"),
    "synop_word": ("energy", "one 64-bit word of synaptic memory read, all synaptic energy in it: instead of synop"),
    "slot_native": ("energy", "one occupied slot of a hard-coded neuron in one elapsed step, spike or not"),
    "slot_microcode": ("energy", "one occupied slot of a programmed neuron in one elapsed step, spike or not"),
    "chip_step": ("energy", "one elapsed step of one chip, whatever happens in it"),
    "hop_ew": ("energy", "one message over one east-west router hop"),
    "hop_ns": ("energy", "one message over one north-south router hop"),
    "state_reset": ("energy", "reset of the whole neuron state of one chip"),
    "static_power": ("power", "one powered chip, doing nothing, on the chip's own rails"),
    "board_power": ("power", "a whole board, doing nothing, divided by its chips: instead of static_power"),
    "stepping_power": ("power", "one chip while it steps, above static_power: instead of chip_step"),
    "embedded_cpu_power": ("power", "the embedded processors of one chip, busy"),
    "busy_core_power": ("power", "dynamic power of one busy core: a check, never added"),
    "t_synop": ("time", "one synaptic operation in its core"),
    "t_word": ("time", "one 64-bit word of synaptic memory read in its core"),
    "t_slot_native": ("time", "one occupied slot of a hard-coded neuron in one elapsed step"),
    "t_slot_microcode": ("time", "one occupied slot of a programmed neuron in one elapsed step"),
    "t_neuron": ("time", "one neuron update in its core"),
    "t_neuron_idle": ("time", "one update of a neuron that does not spike"),
    "t_neuron_active": ("time", "one update of a neuron that spikes"),
    "t_spike": ("time", "generation of one spike"),
    "t_message_out": ("time", "one message leaving a core"),
    "t_message_in": ("time", "one message entering a core"),
    "t_hop_ew": ("time", "one east-west router hop"),
    "t_hop_ns": ("time", "one north-south router hop"),
    "t_link": ("time", "one message over the link between two chips"),
    "t_image": ("time", "one value of an image on its way from the host into the chip"),
    "t_barrier_chip": ("time", "barrier at the end of a step and least time of one, one chip"),
    "t_barrier_chips": ("time", "barrier at the end of a step and least time of one, several chips"),
}
"""Price -> dimension and meaning."""

EXCLUSIVE = (
    ("synop", "unit_op"),
    ("message", "unit_message"),
    ("chip_step", "stepping_power"),
    *((slot, done) for slot in ("slot_native", "slot_microcode") for done in ("neuron_idle", "neuron_active")),
    ("slot_microcode", "relay_update"),
)
"""Pairs that would charge the same event twice: a spike is either one graded message or as many binary ones, stepping
costs either by the step or by the time, a slot is paid in every elapsed step or by what its neuron does."""

NOT_BELOW = (("board_power", "static_power"), ("t_barrier_chips", "t_barrier_chip"))
"""Pairs of prices of which the first contains the second."""

LIMITS: dict[str, tuple[str, str]] = {
    "chips": ("chips", "chips of a board"),
    "board_power": ("W", "most that the whole board or system draws, as stated by its vendor"),
    "cores_per_chip": ("cores", "neurocores of one chip"),
    "usable_cores_per_chip": ("cores", "neurocores of one chip that a network can be placed on"),
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
    "neuron_state_bytes": ("bytes", "state of one neuron in its core's memory"),
    "input_axon_bytes": ("bytes", "one input axon slot in its core's memory"),
    "input_axons_per_core": ("axons", "input axon slots"),
    "output_axons_per_core": ("axons", "core-to-core output edges"),
    "axon_map_per_core": ("entries", "entries of the axon map"),
    "weight_bits": ("bits", "widest native weight, sign included"),
    "payload_bits": ("bits", "payload of a spike message; 0: binary spikes only"),
    "state_bits": ("bits", "membrane register, sign included"),
    "decay_bits": ("bits", "decay factor"),
    "substeps": ("steps", "chip steps that one time step of the network takes (a spike of value n is n binary spikes)"),
}
"""Limit -> unit and meaning."""

RESTATED = (("usable_cores_per_chip", "cores_per_chip"),)
"""Pairs of limits of which a board that states one of its own does not take the other from its chip."""

POSITIVE = (
    "chips", "cores_per_chip", "usable_cores_per_chip", "cores_per_tile", "tiles_x", "tiles_y", "neurons_per_core",
    "substeps", "weight_bits",
)  # fmt: skip
"""Limits that must be at least 1: a chip without any of these holds nothing."""

BANDED = ("usable_cores_per_chip",)
"""Limits that sources disagree on: they may have a band, ``low`` and ``high``."""

MESH = ("cores_per_chip", "cores_per_tile", "tiles_x", "tiles_y")
MOST_CORES = 2**17
"""Largest value of each limit of :data:`MESH`, and most tiles: a mapping holds the mesh of a chip in memory."""

ORDERED = (
    ("cores_per_tile", "cores_per_chip"),
    ("usable_cores_per_chip", "cores_per_chip"),
    ("neuron_state_bytes", "memory_per_core"),
    ("neurons_per_core_compiler", "neurons_per_core"),
    ("neurons_per_core", "neurons_per_chip"),
    ("synaptic_memory_per_core", "memory_per_core"),
)
"""Pairs of limits of which the first cannot be more than the second."""
