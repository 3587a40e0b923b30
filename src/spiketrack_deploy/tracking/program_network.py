"""A program behind the tracking loop: crops in, maps out, counts kept.

This module decides how crops become a phase's inputs and logits become maps. It must not know boxes or how an engine
computes; its session keeps the memories. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from spiketrack_deploy.engines.base import Engine
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.types import AnyArray, IntArray, Program, TensorSpec
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.tracking.loop import HeadMaps, Settings, maps_from_logits

SEARCH, TEMPLATE, IMAGE = "search", "template", "image"
"""How a tracker's program names its phases and what they are given."""


def spike_activity(counts: Mapping[str, OpCounts]) -> float | None:
    """Spiking neuron-steps over all neuron-steps of a run, 0..1; ``None`` where nothing was counted."""
    updates = sum(c.neuron_updates for c in counts.values())
    return sum(c.neuron_spiking for c in counts.values()) / updates if updates else None


class Sizes(Protocol):
    """What a program's shapes must agree with; a tracker's configuration has these."""

    @property
    def name(self) -> str: ...
    @property
    def resolution(self) -> int: ...
    @property
    def grid(self) -> int: ...
    @property
    def templates(self) -> int: ...


def check_tracks(program: Program, config: Sizes) -> None:
    """InputError unless the program has what the loop needs in ``config``'s sizes: a search phase of one image, three
    maps of logits as outputs, and its memories, if any, written by a template phase of T images."""
    side, cells = config.resolution, config.grid
    if SEARCH not in program.phases:
        raise InputError("program: it has no search phase, so it cannot track; export the bundle again")
    search, template = program.phases[SEARCH], program.phases.get(TEMPLATE)
    memories = {name: _form(spec) for name, spec in search.inputs.items() if name != "image"}
    written = {name: _form(template.spec(value)) for name, value in template.outputs.items()} if template else {}
    unwritten = sorted(name for name, form in memories.items() if written.get(name) != form)
    if unwritten:
        raise InputError(f"program: search reads {unwritten}, which no template phase writes so; export again")
    maps = {name: ("logits", (1, depth, cells, cells)) for name, depth in (("ctr", 1), ("offset", 2), ("size", 2))}
    wanted = {"search image": ("image", (1, 3, side, side)), **maps}
    found = {"search image": _form(search.inputs.get("image"))}
    found |= {name: _form(search.spec(search.outputs[name])) for name in maps if name in search.outputs}
    if template is not None:
        wanted["template inputs"] = ("image", (config.templates, 3, side, side))
        found["template inputs"] = _form(template.inputs.get("image")) if len(template.inputs) == 1 else None
    for name, form in wanted.items():
        if found.get(name) != form:
            raise InputError(
                f"program: its {name} is {found.get(name)}, the configuration {config.name} needs {form}; export again"
            )


def _form(spec: TensorSpec | None) -> tuple[str, tuple[int, ...]] | None:
    return None if spec is None else (spec.kind, tuple(spec.shape))


class ProgramNetwork:
    """The loop's ``Network`` (``tracking.loop``) on any engine.

    ``counts``: phase -> counts of every run of it so far, by operation; a network without retrievers has no template
    phase. The caller may clear the lists. InputError: the program is not of ``config``'s shape.
    """

    def __init__(self, program: Program, engine: Engine, config: Settings, count: bool = True) -> None:
        check_tracks(program, config)
        self.program, self._session = program, engine.session()
        self.counts: dict[str, list[Mapping[str, OpCounts]]] = {name: [] for name in program.phases}
        self._config, self._count = config, count
        self._ready = False

    @property
    def config(self) -> Settings:
        """Settings of the loop."""
        return self._config

    @property
    def activity(self) -> list[float | None]:
        """Share of spiking neurons of every counted search frame."""
        return [spike_activity(counts) for counts in self.counts[SEARCH]]

    def drain(self) -> dict[str, list[Mapping[str, OpCounts]]]:
        """Counts of every run since the last call, by phase; a long video has too many frames to keep them all."""
        found = {phase: list(runs) for phase, runs in self.counts.items()}
        for runs in self.counts.values():
            runs.clear()
        return found

    def set_templates(self, crops: Sequence[Image]) -> None:
        """Run the template phase on T crops (uint8 ``[r,r,3]``) and keep its memories."""
        if len(crops) != self._config.templates:
            raise InputError(
                f"network {self._config.name} takes {self._config.templates} template crops, not {len(crops)}"
            )
        images = np.stack([self._planar(crop) for crop in crops])
        if TEMPLATE in self.program.phases:
            self._step(TEMPLATE, images)
        self._ready = True

    def _step(self, phase: str, images: AnyArray) -> Mapping[str, IntArray]:
        result = self._session.step(phase, {"image": images}, count=self._count)
        self.counts[phase].append(result.counts)
        return result.outputs

    def search(self, crop: Image) -> HeadMaps:
        """Maps of one search crop (uint8 ``[r,r,3]``); sigmoid and clamp on the host in float64."""
        if not self._ready:
            raise InputError("the network has no templates yet; call set_templates first")
        phase = self.program.phases[SEARCH]
        outputs = self._step(SEARCH, self._planar(crop)[None])
        logits = {}
        for name in ("ctr", "offset", "size"):
            unit = self.program.real_unit(phase.spec(phase.outputs[name]))
            logits[name] = outputs[name][0].astype(np.float64) * unit[:, None, None]
        return maps_from_logits(logits["ctr"], logits["offset"], logits["size"])

    def _planar(self, crop: Image) -> AnyArray:
        side = self._config.resolution
        if crop.shape != (side, side, 3) or crop.dtype != np.uint8:
            raise InputError(f"crop must be uint8 ({side}, {side}, 3), is {crop.dtype} {crop.shape}")
        return crop.transpose(2, 0, 1)
