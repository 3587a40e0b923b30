"""A float teacher: a trained tracker that answers the student's own crops, and what the student is told by its answers.

This module decides which networks may teach which, how their maps meet on the student's grid, and the loss. It must not
know how a step is made. The teacher sees each search region about the student's own centre, at its own resolution and
as wide as its own crops are, so that its answers are those it gives in a loop.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spiketrack_deploy.datasets.catalogue import Catalogue, FrameStore
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.sources import find_source
from spiketrack_deploy.trackers.opening import is_dense
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.head import Maps
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.retriever import MemoryRetrieval
from spiketrack_deploy.training.joint import branch_pass, float_maps, normalised
from spiketrack_deploy.training.losses import box_errors, cell_boxes, overlap
from spiketrack_deploy.training.pairs import Failure, Sample, Sampler
from spiketrack_deploy.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Lesson:
    """The teacher's answers on the student's grid: ``score`` ``[N,P,P]``, ``boxes`` ``[N,P,P,4]`` (centre and size in
    fractions of the student's crop), ``trust`` ``[N]`` the IoU of its best box with the truth, ``memories`` by
    retriever ``[T,N,heads,d,rd]``."""

    score: Tensor
    boxes: Tensor
    trust: Tensor
    memories: Mapping[str, Tensor]


def teacher_file(recipe: Recipe) -> Path | None:
    """The checkpoint that the recipe's teacher names, or None. InputError where there is none, or a dense one."""
    if not recipe.teacher:
        return None
    try:
        path = find_source(recipe.teacher).path
    except InputError as error:
        raise InputError(f"recipe: teacher {error}") from error
    if is_dense(path):
        raise InputError(
            f"recipe: teacher {recipe.teacher} is a dense tracker, whose answers are no maps on a SpikeTrack grid; "
            "name a float SpikeTrack"
        )
    return path


def open_teacher(recipe: Recipe, student: TrackerConfig) -> SpikeTrack | None:
    """The network that teaches ``student``, in evaluation mode; None without one. InputError where it cannot."""
    path = teacher_file(recipe)
    if path is None:
        return None
    model, config = load_checkpoint(path)
    if config.search_factor < student.search_factor:
        raise InputError(
            f"recipe: teacher {config.name} has another crop size: its search crops are {config.search_factor:g} "
            f"targets wide and show less than the student's, {student.search_factor:g}; take one that sees as much"
        )
    if recipe.memory_weight and not shared_memories(config, student):
        raise InputError(
            f"recipe: memory_weight: no retriever of teacher {config.name} writes a memory of the student's shape; "
            "leave memory_weight at 0, or take a teacher of the same widths, heads and templates"
        )
    return model.requires_grad_(False)


def shared_memories(teacher: TrackerConfig, student: TrackerConfig) -> tuple[str, ...]:
    """Retrievers whose memories ``[T,N,heads,d,rd]`` have one shape in both networks, whatever their grids."""
    mine, theirs = (
        {f"mrm.{i}": (c.templates, c.heads, c.width(f"mrm.{i}"), c.value_ratio) for i in c.memory_indices}
        for c in (student, teacher)
    )
    return tuple(name for name, shape in mine.items() if theirs.get(name) == shape)


class Teacher:
    """Answers the samples of a step. ``share`` of the templates of a step are taught, the first ones.

    ``seconds``: time spent so far, crops and network.
    """

    def __init__(
        self,
        model: SpikeTrack,
        student: nn.Module,
        config: TrackerConfig,
        recipe: Recipe,
        catalogue: Catalogue,
        store: FrameStore,
    ) -> None:
        self.recipe, self.config = recipe, config
        self.model, self.seconds = model, 0.0
        self._sampler = Sampler(catalogue, config, recipe, store, eye=model.config)
        cells = cells_within(config.grid, model.config.grid, model.config.search_factor / config.search_factor)
        self._cells = torch.from_numpy(cells)
        self._memories: dict[str, Tensor] = {}
        if recipe.memory_weight:
            names = shared_memories(model.config, config)
            for path, module in student.named_modules():
                name = ".".join(path.split(".")[-2:])
                if isinstance(module, MemoryRetrieval) and name in names:
                    module.register_forward_pre_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def watch(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            self._memories[name] = arguments[1]

        return watch

    def look(self, failures: Sequence[Failure]) -> None:
        """Draw lost frames from the same ones as the student."""
        self._sampler.failures = failures

    def lesson(self, step: int, indices: Sequence[int], drawn: Sequence[Sample], truth: Tensor) -> Lesson:
        """The answers to the samples ``indices`` of ``step``, which the student saw as ``drawn``; ``truth`` ``[N,4]``
        their boxes, on the device to use."""
        began = time.monotonic()
        samples = [self._sampler.draw(step, index, seen.around) for index, seen in zip(indices, drawn)]
        own, device, each = self.model.config, truth.device, self.recipe.searches
        templates = np.stack([s.templates for s in samples], 1)
        steps = [min(t, len(templates) - 1) for t in range(own.templates)]
        crops = (
            torch.from_numpy(c).to(device) for c in (templates[steps], np.concatenate([s.searches for s in samples]))
        )
        half = torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.half_precision)
        with torch.no_grad(), half:
            self.model.to(device)
            t, s = (normalised(c.flatten(0, -4), own.normalisation) for c in crops)
            t = t.unflatten(0, (own.templates, -1))
            memories = self.model.template_branch(t) if self.recipe.memory_weight else {}
            maps = branch_pass(self.model, t, s, each)
        lesson = self._on_grid(float_maps(maps), truth)
        kept = {f"mrm.{i}": memory.float().repeat_interleave(each, 1) for i, memory in memories.items()}
        self.seconds += time.monotonic() - began
        return Lesson(lesson.score, lesson.boxes, lesson.trust, kept)

    def _on_grid(self, maps: Maps, truth: Tensor) -> Lesson:
        """Each cell of the student takes the answer of the teacher's best cell within it."""
        wide = self.model.config.search_factor / self.config.search_factor
        cells = self._cells.to(truth.device)
        found = cell_boxes(maps).flatten(1, 2)
        boxes = torch.cat([(found[..., :2] - 0.5) * wide + 0.5, found[..., 2:] * wide], -1)
        inside = maps.score[:, 0].flatten(1)[:, cells]
        score, best = inside.max(-1)
        chosen = cells[None].expand(len(score), -1, -1).gather(2, best[..., None])[..., 0]
        boxes = boxes.gather(1, chosen[..., None].expand(-1, -1, 4))
        top = boxes[torch.arange(len(score), device=truth.device), score.argmax(1)]
        side = self.config.grid
        return Lesson(score.unflatten(1, (side, side)), boxes.unflatten(1, (side, side)), overlap(top, truth)[0], {})

    def loss(self, maps: Maps, lesson: Lesson) -> Tensor:
        """What the student's maps ``[N,...]`` miss of a lesson, in the units of the tracking loss, weighed by trust."""
        recipe, count = self.recipe, len(lesson.score)
        score = (response(maps.ctr_logits[:count, 0], lesson.score) * lesson.trust).sum() / count
        # A box counts as far as the teacher is sure of its cell.
        weight = lesson.score * lesson.trust[:, None, None]
        weight = weight / weight.sum().clamp_min(1e-6)
        answered = cell_boxes(maps)[:count]
        total = score + box_errors(answered, lesson.boxes, weight).weighed(recipe)
        memories, self._memories = self._memories, {}
        apart = [_apart(mine[:, :count].float(), lesson.memories[name]) for name, mine in memories.items()]
        return total + recipe.memory_weight * torch.stack(apart).mean() if apart else total


def response(logits: Tensor, wanted: Tensor) -> Tensor:
    """Quality focal loss (Li 2020, arXiv 2006.04388, eq. 4, beta 2) less its floor, summed over the cells of each
    sample: ``[N]``, 0 where the scores agree."""
    p = torch.sigmoid(logits)
    entropy = F.binary_cross_entropy(wanted, wanted, reduction="none")
    cross = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return ((cross - entropy) * (p - wanted).abs() ** 2).flatten(1).sum(1)


def _apart(mine: Tensor, theirs: Tensor) -> Tensor:
    """1 - cosine of memories ``[T,N,...]``, a mean over samples and steps; their lengths grow with the grids."""
    return 1 - F.cosine_similarity(mine.flatten(2), theirs.flatten(2), dim=-1).mean()


def cells_within(side: int, theirs: int, wide: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    """``[side^2, n]``: flat cells of a grid of ``theirs`` cells a side over a crop ``wide`` times as wide, about the
    same centre, that lie in each cell of a grid of ``side``; at least the one at its middle, repeated to equal n."""
    per = max(int(np.ceil(theirs / (side * wide) - 1e-9)), 1)
    at = (np.arange(side * per) + 0.5) / (side * per)
    index = np.clip(np.floor(((at - 0.5) / wide + 0.5) * theirs + 1e-9), 0, theirs - 1).astype(np.int64)
    rows = index.reshape(side, 1, per, 1)
    columns = index.reshape(1, side, 1, per)
    return (rows * theirs + columns).reshape(side * side, per * per)
