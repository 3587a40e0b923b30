"""Programs and small targets for tests of the mapping."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from _programs import random_program, tracker_program

from spiketrack_deploy.frontends.spiketrack.export import build_graph
from spiketrack_deploy.frontends.spiketrack.recognise import recognise
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.hardware.schema import Limit, Profile
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.lowering.lower import lower
from spiketrack_deploy.mapping.fit import map_program
from spiketrack_deploy.mapping.types import ChipMapping, CoreLimits
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.draw import draw_state
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack

ROOT = Path(__file__).resolve().parents[1]
SMALL = CoreLimits(300, 4000, 2000, 4000, 6, 8, 32, 16, 4, 2, 2, family="loihi2")
"""Cores so small that every layer of a small program is split."""


@functools.lru_cache(maxsize=4)
def small_program(seed: int, steps: int) -> Program:
    return random_program(seed, steps)


@functools.lru_cache(maxsize=2)
def official_program(name: str) -> Program:
    """Drawn weights in the layer shapes of an official size."""
    config = TrackerConfig.official(name)
    return tracker_program(0, config.dims, config.resolution, config.templates, config.head_width)


@functools.lru_cache(maxsize=1)
def nano_program() -> Program:
    """The nano model's configuration with drawn weights, through the real export and lowering."""
    config = TrackerConfig.from_dict(json.loads((ROOT / "models/spiketrack-nano/config.json").read_text("utf-8")))
    torch.manual_seed(0)
    shapes = {key: tuple(value.shape) for key, value in SpikeTrack(config).state_dict().items()}
    return lower(recognise(*build_graph(draw_state(config.name, shapes), config))[0]).program


def loihi2(**limits: int) -> Profile:
    """The bundled profile with other limits."""
    profile = load_profile("loihi2")
    changed = dict(profile.limits)
    for name, value in limits.items():
        old = changed[name]
        changed[name] = Limit(value=value, unit=old.unit, tag=old.tag, source=old.source)
    return profile.model_copy(update={"limits": changed})


def map_search(program: Program, profile: Profile, phase: str = "search", **options: Any) -> ChipMapping:
    """The search phase (or another) on the chips of a profile."""
    return map_program(program, phase, Target(profile.name, profile), **options)
