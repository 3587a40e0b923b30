"""The operations: one row per kind, by family. The reference semantics of everything that runs a program.

A row (``row.OpKind``) holds shape rule, legality, integer rule, counts, bound, equation and text. A new operation is
one row here plus one function per engine, mapping and verdict table; a test walks all tables and names what lacks it.
"""

from __future__ import annotations

from spiketrack_deploy.program.ops import attention, conv, gate, message, neuron, sigma_delta, state, stream
from spiketrack_deploy.program.ops.row import OpKind

_FAMILIES = (conv, neuron, stream, attention, gate, state, message, sigma_delta)
OP_TABLE: dict[str, OpKind] = {row.name: row for family in _FAMILIES for row in family.ROWS}
"""Kind of operation -> its row."""
