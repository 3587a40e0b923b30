"""The two stages of training: real weights with batch norm, then the integer program's arithmetic.

This module decides what a stage trains, feeds and delivers. It must not know the order of a step, schedules nor files.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from spiketrack_deploy.trackers.spiketrack.head import Maps
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.norm import freeze_norms, thaw_norms
from spiketrack_deploy.training.integer_model import IntegerModel
from spiketrack_deploy.training.joint import branch_pass, joint_pass, normalised
from spiketrack_deploy.training.pairs import Sample
from spiketrack_deploy.training.surrogate import learn


class Stage(Protocol):
    """``module`` holds what is trained, saved and averaged; ``exact`` forbids half precision."""

    @property
    def module(self) -> nn.Module:
        """What is trained."""

    exact: bool

    def maps(self, templates: Tensor, searches: Tensor, each: int) -> Maps:
        """Head maps of uint8 crops: templates ``[T,N,r,r,3]``, searches ``[N each,r,r,3]``."""

    def convolutions(self) -> Mapping[str, nn.Module]:
        """Path -> convolution, as they run (for counting); paths are the tracker's."""

    def deployed(self, state: Mapping[str, Tensor]) -> SpikeTrack:
        """A tracker with the published keys in evaluation mode, carrying ``state``."""

    def prepare(self) -> None:
        """Called before every step."""

    def refresh(self, samples: Sequence[Sample]) -> None:
        """Called now and then with a few samples, for what has to follow the weights."""


class FloatStage:
    """NI-LIF surrogate on real weights.

    At T = 1 every norm learns, on both branches at once. At T > 1 the branches differ in time steps: norms that both
    share stay as the T = 1 network left them, those of retrievers and head, each of one branch only, go on learning.
    """

    exact = False

    def __init__(self, model: SpikeTrack) -> None:
        self.joint = model.config.templates == 1
        if self.joint:
            thaw_norms(model)
        learn(model)
        self.module: SpikeTrack = model

    def maps(self, templates: Tensor, searches: Tensor, each: int) -> Maps:
        """See :class:`Stage`."""
        own = self.module.config.normalisation
        s = normalised(searches, own)
        t = normalised(templates.flatten(0, 1), own).unflatten(0, templates.shape[:2])
        return joint_pass(self.module, t[0], s, each) if self.joint else branch_pass(self.module, t, s, each)

    def convolutions(self) -> Mapping[str, nn.Module]:
        """See :class:`Stage`."""
        return _convolutions(self.module)

    def deployed(self, state: Mapping[str, Tensor]) -> SpikeTrack:
        """See :class:`Stage`."""
        out = SpikeTrack(self.module.config)  # a copy would carry whatever watches the one in training
        if self.joint:
            thaw_norms(out)
        out.load_state_dict({key: value.detach().cpu() for key, value in state.items()})
        freeze_norms(out)
        return out.eval()

    def prepare(self) -> None:
        """Training mode; norms that both branches share are of the frozen kind at T > 1."""
        self.module.train()

    def refresh(self, samples: Sequence[Sample]) -> None:
        """Nothing follows the weights."""


class IntegerStage:
    """The program's arithmetic, exact in float32."""

    exact = True

    def __init__(self, model: SpikeTrack, samples: Sequence[Sample]) -> None:
        self.module: IntegerModel = IntegerModel(model, samples)

    def maps(self, templates: Tensor, searches: Tensor, each: int) -> Maps:
        """See :class:`Stage`."""
        t, s = (crops.to(torch.float32).movedim(-1, -3) for crops in (templates, searches))
        maps: Maps = self.module(t[0] if self.module.config.templates == 1 else t, s, each)
        return maps

    def convolutions(self) -> Mapping[str, nn.Module]:
        """See :class:`Stage`."""
        return _convolutions(self.module.net)

    def deployed(self, state: Mapping[str, Tensor]) -> SpikeTrack:
        """See :class:`Stage`."""
        return self.loaded(state).deployed()

    def loaded(self, state: Mapping[str, Tensor]) -> IntegerModel:
        """A copy of the trained module that carries ``state``."""
        out = copy.deepcopy(self.module).cpu()
        out.load_state_dict({key: value.detach().cpu() for key, value in state.items()})
        return out

    def prepare(self) -> None:
        """Nothing depends on the mode."""

    def refresh(self, samples: Sequence[Sample]) -> None:
        """Exponents and units follow the masters."""
        self.module.refit(samples)


def _convolutions(model: SpikeTrack) -> dict[str, nn.Module]:
    return {
        path: m for path, m in model.named_modules() if isinstance(m, (nn.Conv1d, nn.Conv2d)) and ".gate." not in path
    }
