"""How often things happen in an operation: the names of the counts, exact integers.

This module decides what is counted; each operation's row says how. It must not know prices. A *synaptic operation* is
one non-zero weight visited by one non-zero spike (docs/loihi.md, "What a chip counts"); borders, stride, groups and
dilation are respected; biases are not synapses.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True)
class OpCounts:
    """Counts of one operation in one run of its phase, all time steps. Python integers, none negative."""

    events: int = 0
    """non-zero graded spikes (or stream values of a query's q) that this operation reads"""
    synops: int = 0
    """events times their real fan-out over non-zero weights"""
    unit_ops: int = 0
    """synops times the spike's value 1..4: the cost if a spike were sent as so many binary events"""
    macs: int = 0
    """image convolution only: non-zero pixels times their real fan-out, true multiply-accumulates"""
    dense_macs: int = 0
    """multiply-accumulates of the dense twin, padding taps counted, as the literature does"""
    neuron_updates: int = 0
    """neuron-steps of a population"""
    neuron_spiking: int = 0
    """of these, with a spike above 0"""
    relays: int = 0
    """non-zero stream values passed on as graded messages (a residual stream is a chain of populations)"""
    relay_synops: int = 0
    """fan-out of the relays"""
    memory_reads: int = 0
    """words of a k^T v matrix read"""
    memory_writes: int = 0
    """words of a k^T v matrix rewritten"""
    host_ops: int = 0
    """operations that no synapse or NI-LIF does: exponentials, products of the gate"""
    input_sum: int = 0
    """sum of the spike values read (published firing-rate convention)"""
    input_size: int = 0
    """number of spike positions read"""
    output_sum: int = 0
    """neurons only: sum of the spikes emitted (a binary chip spends that many active sub-steps)"""
    saturated: int = 0
    """values that were cut off at the limit of a membrane or message"""

    def to_dict(self) -> dict[str, int]:
        """Field name -> integer."""
        return asdict(self)


COUNT_FIELDS = tuple(f.name for f in fields(OpCounts))
