"""A program behind the tracking loop: crops in, maps out, counts kept.

This module decides how crops become a phase's inputs and where memories live between frames. It must not know boxes or
how an engine computes. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spiketrack_deploy.engines.base import Engine
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.types import AnyArray, Program
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

    ``frame_counts``: counts of every search run, by operation; ``update_counts``: of every template update, empty for a
    network without retrievers, which has no template phase. Both may be cleared by the caller. ``memories``: int64
    ``[T,heads,d,dv]`` in 1/16 by ``memory.<i>``. InputError: the program is not of ``config``'s shape.
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
        self.program, self.engine = program, engine
        self.frame_counts: list[Mapping[str, OpCounts]] = []
        self.update_counts: list[Mapping[str, OpCounts]] = []
        self.memories: Mapping[str, AnyArray] | None = None
        self._config, self._count = config, count

    @property
    def config(self) -> TrackerConfig:
        """Layout and loop settings."""
        return self._config

    @property
    def activity(self) -> list[float | None]:
        """Share of spiking neurons of every counted search frame."""
        return [spike_activity(counts) for counts in self.frame_counts]

    def set_templates(self, crops: Sequence[Image]) -> None:
        """Run the template phase on T crops (uint8 ``[r,r,3]``) and keep its memories."""
        if len(crops) != self._config.templates:
            raise InputError(
                f"network {self._config.name} takes {self._config.templates} template crops, not {len(crops)}"
            )
        images = np.stack([self._planar(crop) for crop in crops])
        if TEMPLATE not in self.program.phases:
            self.memories = {}
            self.update_counts.append({})
            return
        result = self.engine.run(TEMPLATE, {"image": images}, count=self._count)
        self.memories = dict(result.outputs)
        self.update_counts.append(result.counts)

    def search(self, crop: Image) -> HeadMaps:
        """Maps of one search crop (uint8 ``[r,r,3]``); sigmoid and clamp on the host in float64."""
        if self.memories is None:
            raise InputError("the network has no templates yet; call set_templates first")
        phase = self.program.phases[SEARCH]
        memories = {name: self.memories[name] for name in phase.inputs if name != "image"}
        result = self.engine.run(SEARCH, {"image": self._planar(crop)[None], **memories}, count=self._count)
        self.frame_counts.append(result.counts)
        logits = {}
        for name in ("ctr", "offset", "size"):
            unit = self.program.real_unit(phase.spec(phase.outputs[name]))
            logits[name] = result.outputs[name][0].astype(np.float64) * unit[:, None, None]
        return maps_from_logits(logits["ctr"], logits["offset"], logits["size"])

    def _planar(self, crop: Image) -> AnyArray:
        side = self._config.resolution
        if crop.shape != (side, side, 3) or crop.dtype != np.uint8:
            raise InputError(f"crop must be uint8 ({side}, {side}, 3), is {crop.dtype} {crop.shape}")
        return crop.transpose(2, 0, 1)
