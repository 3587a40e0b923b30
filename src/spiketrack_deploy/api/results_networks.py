"""What the verbs on networks other than trackers, and on Lava Processes, return; as :mod:`results`.

This module decides the names of the results' keys. It must not compute.
"""

from __future__ import annotations

from typing import Any, TypedDict


class LavaResult(TypedDict):
    """A phase as Lava Processes: the folder, Processes by kind, ``rows`` (operations, Process, reason of an own one),
    ``outputs`` (steps after the input), what a run in Lava compared and found differing (``None``: not run)."""

    folder: str
    phase: str
    processes: dict[str, int]
    rows: list[dict[str, str]]
    outputs: dict[str, int]
    compared: int | None
    differing: int | None


class StockResult(TypedDict):
    """Recorded inputs (``runs``) in Processes that Lava ships. ``rows``: per Lava run its ``phase``, ``block``,
    ``processes`` by kind, ``own`` ones with their reason, Lava's ``steps`` and ``seconds``, integers ``compared`` and
    ``differing``."""

    bundle: str
    runs: int
    rows: list[dict[str, Any]]


class NetxResult(TypedDict):
    """A network of netx: layers with neurons and decays, notes, and the ``.net`` file that was written."""

    network: str
    layers: list[dict[str, Any]]
    notes: list[str]
    written: str | None


class _ExportedNetwork(TypedDict):
    """What bundles of networks have in common. ``verdict``: sentences; ``lava``: as in :class:`ExportResult`."""

    bundle: str
    network: str
    target: str
    profile: str
    engine: str
    steps: int
    diagnostics: list[dict[str, str]]
    outputs: dict[str, dict[str, Any]]
    content_hash: str
    program_hash: str
    energy: dict[str, Any]
    unpriced: list[dict[str, Any]]
    verdict: list[str]
    lava: dict[str, Any]
    files: list[str]
    seconds: dict[str, float]


class NetxExportResult(_ExportedNetwork):
    """A lava-dl network's bundle: ``layers`` with the messages that each sent, ``outputs`` (values, how many are not 0,
    digest), ``saturated`` values, ``diagnostics`` (what was drawn, which engine runs and why), energy of a step."""

    layers: list[dict[str, Any]]
    saturated: int
    engines: list[dict[str, Any]]


class _InspectedNetx(TypedDict):
    kind: str
    network: str
    layers: list[dict[str, Any]]
    notes: list[str]


class InspectNetxResult(_InspectedNetx, total=False):
    """Layers of a ``.net`` file; the other four are of a bundle."""

    content_hash: str
    changed_files: list[str]
    program: dict[str, Any]
    ranges: dict[str, Any]


class NetworkResult(_ExportedNetwork):
    """A NIR network's bundle: ``convention`` (its words), ``diagnostics`` (what was assumed), ``outputs`` (per Output:
    values, how many differ from float64, the first), ``nodes`` (per neuron), ``engines``, energy of a step."""

    convention: dict[str, Any]
    back_edges: list[list[str]]
    spike_error: float
    engines: dict[str, Any]


class _InspectedNetwork(TypedDict):
    kind: str
    name: str
    version: str
    kinds: dict[str, int]
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    neurons: int
    weights: int
    synapses: int
    nodes: list[dict[str, Any]]
    edges: list[list[str]]
    back_edges: list[list[str]]
    suggests: list[dict[str, str]]
    diagnostics: list[dict[str, str]]
    metadata: dict[str, Any]
    svg: str | None


class InspectNetworkResult(_InspectedNetwork, total=False):
    """The flattened graph of a NIR file: nodes in order of execution with shapes and parameter ranges, edges and which
    of them go back, what it suggests about its convention, remarks; ``svg``: the drawing's file. The other four are of
    a bundle."""

    content_hash: str
    changed_files: list[str]
    program: dict[str, Any]
    ranges: dict[str, Any]


class ConformanceResult(TypedDict):
    """The folder, its number of graphs and of answers, and the conventions under which they were computed."""

    output: str
    graphs: int
    answers: int
    conventions: list[str]
