"""Every number of a training run that is a choice, in one frozen value.

This module decides which choices exist, their defaults and their legal ranges. It must not know PyTorch nor the data.
Where the defaults come from: docs/training.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.documents import checked

Count = Annotated[int, Field(ge=1, le=10**9)]
Share = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(ge=0, le=2)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Positive = Annotated[float, Field(gt=0, le=1e6)]


@dataclass(frozen=True, slots=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class Recipe:
    """One training run.

    ``stage`` is ``float`` (NI-LIF surrogate on real weights) or ``integer`` (the forward pass is the integer program's
    arithmetic). ``steps`` optimiser steps of ``templates_per_step`` templates with ``searches`` search crops each, over
    all workers. ``minutes`` above 0 replaces the step count by a budget of training time: the schedule then follows the
    clock and two runs differ; with 0 a run is a function of recipe, configuration, data, seed and worker count.
    ``video`` and ``paste`` are shares of draws (the rest are two views of one picture). ``energy_penalty`` is the
    loss per millijoule that the spikes of a search frame cost on ``energy_target`` (``training.prices``), the first
    layer on the chip or the host (``first_layer``); ``ema`` the decay of the averaged weights per step; ``exact``
    asks for a network that is its program to the last bit (integer stage, T = 1, dyadic pixels). ``time_rate``
    multiplies the learning rate of gates and membrane decays, which see weak gradients (T > 1 only). Shares that are
    off: ``rotate`` of search crops turned by up to ``rotate_degrees``, ``absent`` of them without their target;
    ``dark`` of samples in little light, ``small`` of them as if the target had 6 to 16 pixels, ``loop_share`` of them
    frames in a row whose search crops lie where the network's own last answer put them, ``hard`` of them frames that
    the network lost in a pass over the clips every ``hard_every`` steps. ``teacher`` names a trained tracker (a file,
    a folder or a bundled model) whose answers to the first ``teacher_share`` of a step's templates join the loss with
    ``teacher_weight``, its memories with ``memory_weight`` times that. Lengths in target sizes, scales as natural
    logarithms. Raises :class:`InputError` for an illegal value.
    """

    stage: Literal["float", "integer"] = "float"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    steps: Count = 12000
    minutes: Weight = 0.0
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    templates_per_step: Annotated[int, Field(ge=1, le=2**16)] = 24
    searches: Annotated[int, Field(ge=1, le=2**10)] = 2
    learning_rate: Positive = 1.5e-3
    time_rate: Weight = 1.0
    warm_up: Share = 0.05
    weight_decay: Weight = 0.02
    clip: Positive = 2.0
    ema: Share = 0.998
    half_precision: bool = True
    energy_penalty: Weight = 0.0
    energy_target: Annotated[str, Field(min_length=1, max_length=4096)] = "loihi2"
    first_layer: Literal["chip", "host"] = "chip"
    exact: bool = False
    video: Share = 0.4
    paste: Share = 0.15
    least_side: Weight = 16.0
    template_scale: Spread = 0.04
    template_shift: Spread = 0.03
    search_scale: Spread = 0.30
    search_shift: Spread = 0.3
    aspect: Spread = 0.07
    flip: Share = 0.5
    gain: Spread = 0.15
    channel_gain: Spread = 0.06
    grey: Share = 0.08
    blur: Share = 0.15
    motion_blur: Share = 0.15
    distractor: Share = 0.15
    occlusion: Share = 0.10
    rotate: Share = 0.0
    rotate_degrees: Annotated[float, Field(gt=0, le=180)] = 30.0
    dark: Share = 0.0
    small: Share = 0.0
    absent: Share = 0.0
    loop_share: Share = 0.0
    hard: Share = 0.0
    hard_every: Count = 2000
    l1_weight: Weight = 5.0
    giou_weight: Weight = 2.0
    log_size_weight: Weight = 1.0
    teacher: Annotated[str, Field(max_length=4096)] = ""
    teacher_weight: Weight = 0.0
    teacher_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    memory_weight: Weight = 0.0

    @model_validator(mode="wrap")
    @classmethod
    def _legal(cls, data: Any, handler: Callable[[Any], Recipe]) -> Recipe:
        recipe = checked(handler, data, "recipe", (field.name for field in fields(cls)))
        if recipe.templates_per_step % recipe.workers:
            raise InputError(
                f"recipe: {recipe.templates_per_step} templates a step cannot be shared by {recipe.workers} workers"
            )
        if recipe.exact and recipe.stage != "integer":
            raise InputError("recipe: exact needs the integer stage: only there the weights are the program's integers")
        if recipe.video + recipe.paste > 1:
            raise InputError("recipe: video and paste are shares of draws and must not exceed 1 together")
        if recipe.loop_share and recipe.searches < 2:
            raise InputError("recipe: loop_share needs searches of 2 or more: the second crop lies where the first led")
        if not recipe.teacher and (recipe.teacher_weight or recipe.memory_weight):
            raise InputError("recipe: distillation needs a teacher: name a trained tracker or its file as teacher")
        if recipe.teacher and not recipe.teacher_weight:
            raise InputError(f"recipe: teacher {recipe.teacher} teaches nothing while teacher_weight is 0; give it one")
        return recipe

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Strict: unknown keys and wrong types raise :class:`InputError`; absent keys take the default.

        Recipes and runs of earlier versions call the stage ``phase`` and may weigh synaptic operations with 0.
        """
        values = dict(data)
        if "stage" not in values and "phase" in values:
            values["stage"] = values.pop("phase")
        if values.get("synop_penalty") == 0:
            del values["synop_penalty"]
        if "synop_penalty" in values:
            raise InputError(
                "recipe: synop_penalty became energy_penalty, the loss per millijoule of a frame's spikes; 0.06 per "
                "million synaptic operations was about 2.4 on loihi2"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Every field, JSON-ready."""
        return asdict(self)
