"""A NIR graph with cuts -> the real-valued network and the workload that it is for.

This module decides what a whole SpikeTrack graph is: its two phases, the memories between them, and metadata that agree
with it. Shapes are inferred first; every parameter of every node and cut is then taken (:mod:`steps`, :mod:`roll`) or
refused with its name. It must not know about integers.

Of the metadata ``schema`` and ``convention`` must be those of this version. ``config`` travels on in the workload: what
it says about layers must be what the graph has; name, crop factors, update rule and, without ``downsample4``, the last
width stand nowhere else and are taken as they are. Other entries are notes: they are neither read nor carried.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.spiketrack.builder import CONVENTION, SCHEMA
from spiketrack_deploy.frontends.spiketrack.names import IMAGE, MAPS, PHASES, SEARCH, TEMPLATE, refusal
from spiketrack_deploy.frontends.spiketrack.roll import gather, roll
from spiketrack_deploy.frontends.spiketrack.steps import PhaseReader, check_id
from spiketrack_deploy.lowering.network import FloatNetwork, FloatOp, FloatState, Shape, check_network
from spiketrack_deploy.nir_graph.graph import Cut, Graph, phase_of, phases_of
from spiketrack_deploy.nir_graph.order import infer_shapes
from spiketrack_deploy.program.types import Cadence
from spiketrack_deploy.program.workload import Workload
from spiketrack_deploy.trackers.spiketrack.config import OFFICIAL_WALK, TrackerConfig

INPUTS = {IMAGE: "RGB pixels 0 to 255 of square crops; they are normalised inside the program"}
OUTPUTS = {
    "ctr": "score of every cell, as a logit",
    "offset": "of the box centre inside its cell, in cells, x first",
    "size": "of the box in fractions of the search crop, as logits, width first",
}


def recognise(graph: Graph, cuts: Sequence[Cut]) -> tuple[FloatNetwork, Workload]:
    """NIR graph and cuts -> network and workload; InputError names the node or cut and the field that does not fit."""
    config = _config(graph)
    for cut in cuts:
        check_id(cut)
    shapes = infer_shapes(graph, cuts)
    strangers = [name for name in [*graph.nodes, *(cut.id for cut in cuts)] if phase_of(name) not in PHASES]
    if strangers or SEARCH not in phases_of(graph, cuts):
        raise refusal(strangers[0] if strangers else SEARCH, f"phases are {' and '.join(PHASES)}, and the last must be")
    readers = {phase: PhaseReader(graph, cuts, shapes, phase) for phase in PHASES if phase in phases_of(graph, cuts)}
    for reader in readers.values():
        reader.read()
    states = _states(readers)
    phases = {}
    for name, reader in readers.items():
        written = {state: op for state, (writer, op) in ((s, v.writer) for s, v in states.items()) if writer == name}
        seen = {state: v.shape for state, v in states.items() if v.writer[0] != name}
        phases[name] = replace(roll(name, reader.steps, reader.outputs, written, seen), cadence=_cadence(name, config))
    network = FloatNetwork(phases, states)
    check_network(network)
    _check_ends(network)
    for field, op, has in _disagreements(config, network):
        raise refusal(op.origin[0], f"its layer disagrees with the metadata: config has {field}, the graph has {has}")
    return network, Workload("spiketrack", dict(INPUTS), dict(OUTPUTS), "boxes", config.to_dict())


def _config(graph: Graph) -> TrackerConfig:
    """The tracker configuration that the export wrote into the graph's metadata."""
    for key, want in (("schema", SCHEMA), ("convention", CONVENTION)):
        if graph.metadata.get(key) != want:
            raise InputError(f"the NIR graph's metadata '{key}' is not {want[:40]!r}; it is not a SpikeTrack export")
    try:
        config = json.loads(graph.metadata["config"])
    except (KeyError, ValueError, RecursionError):
        raise InputError(
            "the NIR graph's metadata hold no tracker configuration; it is not a SpikeTrack export"
        ) from None
    return TrackerConfig.from_dict(config)


def _states(readers: dict[str, PhaseReader]) -> dict[str, FloatState]:
    """The memories, each written by one operation with all its steps."""
    states = {}
    for phase, reader in readers.items():
        stems = gather(reader.steps)
        for memory in sorted({memory for memory, _ in reader.written}):
            refs = {step: ref for (name, step), ref in reader.written.items() if name == memory}
            op = refs[min(refs)][0]
            entries = stems.get(op, [])
            if refs != {t: (op, t) for t in range(len(entries))}:
                raise refusal(phase, f"its {memory} is written by {sorted(refs.values())}, not by all steps of {op}")
            shape: Shape = (len(entries), *entries[0].shape)
            states[memory] = FloatState("memory", shape, (phase, op))
    return states


def _check_ends(network: FloatNetwork) -> None:
    """The search phase decodes and reads every memory; the template phase only writes them."""
    for name, phase in network.phases.items():
        if set(phase.outputs) != (set(MAPS) if name == SEARCH else set()):
            raise InputError(f"the {name} phase puts out {sorted(phase.outputs)}; the graph is not a SpikeTrack export")
    unread = [name for name in network.states if not network.phases[SEARCH].readers(name)]
    if unread:
        raise InputError(f"nothing in the search phase reads {unread[0]}; the graph is not a SpikeTrack export")


def _disagreements(config: TrackerConfig, network: FloatNetwork) -> Iterator[tuple[str, FloatOp, Any]]:
    """Where configuration and graph say different things: (field and its value, an operation, what the graph has)."""
    factors = {
        "pwconv1": ("sep_expansion", config.sep_expansion),
        "conv1": ("conv_expansion", config.conv_expansion),
        "fc1_conv": ("mlp_expansion", config.mlp_expansion),
        "v_conv": ("value_ratio", config.value_ratio),
    }
    last = network.phases[SEARCH].ops[-1]
    for name, phase in network.phases.items():
        wanted = (config.templates if name == TEMPLATE else 1, 3, config.resolution, config.resolution)
        if phase.inputs[IMAGE].shape != wanted:
            yield f"templates, resolution of {wanted}", phase.ops[0], phase.inputs[IMAGE].shape
    for _, op in network.walk():
        stage, leaf = _stage(op.name), op.name.rpartition(".")[2]
        if stage is not None and stage not in config.walk:
            yield f"walk {list(config.walk)}", op, stage
        elif leaf == "encode_conv" and stage is not None and op.shape[1] != config.width(stage):
            yield f"dims {list(config.dims)}", op, op.shape[1]
        elif leaf in factors and stage is not None and op.shape[1] != factors[leaf][1] * config.width(stage):
            yield f"{factors[leaf][0]} {factors[leaf][1]}", op, op.shape[1]
        elif leaf == "conv1_ctr" and op.shape[1] != config.head_width:
            yield f"head_width {config.head_width}", op, op.shape[1]
        if op.params.get("heads", config.heads) != config.heads:
            yield f"heads {config.heads}", op, op.params["heads"]
        if "gain" in op.params and op.params["gain"] != config.attention_gain:
            yield f"attention_gain {config.attention_gain}", op, op.params["gain"]
    missing = set(config.walk) - {_stage(op.name) for op in network.phases[SEARCH].ops}
    if missing:
        yield f"walk with {sorted(missing)}", last, "no such stage"


def _stage(op: str) -> str | None:
    return next((stage for stage in OFFICIAL_WALK if op.startswith(f"encoder.{stage}.")), None)


def _cadence(phase: str, config: TrackerConfig) -> Cadence:
    """A search with every frame; templates once and, where there are several, with every n-th frame."""
    if phase == SEARCH:
        return Cadence()
    return Cadence(start=True, every=config.update_interval if config.templates > 1 else None)
