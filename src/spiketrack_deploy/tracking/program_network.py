"""A program behind the tracking loop: crops in, maps out, counts kept.

This module decides how crops become a phase's inputs and logits become maps. It must not know boxes or how an engine
computes; its session keeps the memories. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spiketrack_deploy.engines.base import Engine
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.types import AnyArray, IntArray, Program
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.tracking.crop import Image
from spiketrack_deploy.tracking.loop import HeadMaps, maps_from_logits

SEARCH, TEMPLATE = "search", "template"


def spike_activity(counts: Mapping[str, OpCounts]) -> float | None:
    """Spiking neuron-steps over all neuron-steps of a run, 0..1; ``None`` where nothing was counted."""
    updates = sum(c.neuron_updates for c in counts.values())
    return sum(c.neuron_spiking for c in counts.values()) / updates if updates else None


class ProgramNetwork:
    """The loop's ``Network`` (``tracking.loop``) on any engine.

    ``counts``: phase -> counts of every run of it so far, by operation; a network without retrievers has no template
    phase. The caller may clear the lists. InputError: the program is not of ``config``'s shape.
    """

    def __init__(self, program: Program, engine: Engine, config: TrackerConfig, count: bool = True) -> None:
        if SEARCH not in program.phases:
            raise InputError("program: it has no search phase, so it cannot track; export the bundle again")
        wanted = (1, 3, config.resolution, config.resolution)
        found = (
            tuple(program.phases[SEARCH].inputs["image"].shape) if "image" in program.phases[SEARCH].inputs else ()
        )
        if found != wanted:
            raise InputError(f"program: its search image is {found}, the configuration {config.name} needs {wanted}")
        self.program, self._session = program, engine.session()
        self.counts: dict[str, list[Mapping[str, OpCounts]]] = {name: [] for name in program.phases}
        self._config, self._count = config, count
        self._ready = False

    @property
    def config(self) -> TrackerConfig:
        """Layout and loop settings."""
        return self._config

    @property
    def activity(self) -> list[float | None]:
        """Share of spiking neurons of every counted search frame."""
        return [spike_activity(counts) for counts in self.counts[SEARCH]]

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
