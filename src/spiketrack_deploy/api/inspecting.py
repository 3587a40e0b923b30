"""Models and bundles: described.

This module decides what ``inspect`` returns. It must not print; heavy parts are imported when a verb runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spiketrack_deploy.api.asked import Place
from spiketrack_deploy.api.results import InspectResult
from spiketrack_deploy.bundle import layout

if TYPE_CHECKING:
    from spiketrack_deploy.inputs.sources import ModelSource


def inspect(subject: Place) -> InspectResult:
    """Structure of a model (its graph is built in memory) or of a bundle (read from its files), as JSON data."""
    from spiketrack_deploy.inputs.sources import find_source, is_bundle

    path = Path(subject)
    if is_bundle(path):
        return _inspect_bundle(path)
    source = find_source(str(subject))

    from spiketrack_deploy.trackers.opening import is_dense

    if is_dense(source.path):
        return _inspect_dense(source)

    from spiketrack_deploy.frontends.spiketrack.source import SpikeTrackSource
    from spiketrack_deploy.nir_graph.summary import summary

    tracker = SpikeTrackSource.read(source.path)
    return {
        "kind": "model",
        "name": source.name,
        "remark": source.remark,
        "config": tracker.config.to_dict(),
        "parameters": sum(p.numel() for p in tracker.model.parameters()),
        "tensors": len(tracker.model.state_dict()),
        "nir": summary(*tracker.graph()),
    }


def _inspect_dense(source: ModelSource) -> InspectResult:
    from spiketrack_deploy.program.dense import by_part, total_macs
    from spiketrack_deploy.trackers.opening import open_dense

    model = open_dense(source.path)
    return {
        "kind": "dense model",
        "name": source.name,
        "remark": source.remark,
        "config": model.config,
        "parameters": model.parameters["all"],
        "trained": model.parameters["trained"],
        "tensors": model.parameters["tensors"],
        "macs": total_macs(model.layers),
        "macs_by_part": by_part(model.layers),
    }


def _inspect_dense_bundle(folder: Path) -> InspectResult:
    manifest, data = layout.read_manifest(folder), layout.read_json(folder / layout.DENSE)
    return {
        "kind": "dense bundle",
        "name": folder.resolve().name,
        "remark": None,
        "config": data["config"].table(),
        "parameters": data["parameters"]["all"].integer(1),
        "trained": data["parameters"]["trained"].integer(1),
        "tensors": data["parameters"]["tensors"].integer(1),
        "macs": data["macs"].integer(1),
        "macs_by_part": {name: part.integer() for name, part in data["macs_by_part"].members()},
        "content_hash": manifest.content_hash,
        "changed_files": layout.changed_files(folder, manifest),
    }


def _inspect_bundle(folder: Path) -> InspectResult:
    if layout.is_dense_bundle(folder):
        return _inspect_dense_bundle(folder)
    from spiketrack_deploy.bundle.contents import read_program
    from spiketrack_deploy.nir_graph.cuts import read_cuts
    from spiketrack_deploy.nir_graph.reader import read_graph
    from spiketrack_deploy.nir_graph.summary import summary
    from spiketrack_deploy.program.describe import describe_program, range_margins

    manifest = layout.read_manifest(folder)
    changed = layout.changed_files(folder, manifest)
    program, config = read_program(folder)
    graph = read_graph(folder / layout.NIR)
    cuts = read_cuts(folder / layout.CUTS, graph)
    return {
        "kind": "bundle",
        "name": folder.resolve().name,
        "remark": program.meta.get("remark"),
        "config": config.to_dict(),
        "content_hash": manifest.content_hash,
        "changed_files": changed,
        "program": describe_program(program),
        "ranges": range_margins(program),
        "nir": summary(graph, cuts),
    }
