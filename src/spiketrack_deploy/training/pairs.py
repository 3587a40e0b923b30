"""Draws training samples: a template crop and search crops of one target, with the boxes the head should answer.

This module decides what a sample shows. A sample is a function of (seed, step, index) alone, so a resumed run sees what
the uninterrupted one would have seen. It must not know the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from spiketrack_deploy.datasets.catalogue import Catalogue, Floats, FrameStore, Picture, Target
from spiketrack_deploy.datasets.sequences import VideoSequence
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.tracking.boxes import Box
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.training.augment import (
    blurred,
    coarsened,
    covered,
    darkened,
    ellipse,
    laid_over,
    occluded,
    recolour,
)
from spiketrack_deploy.training.recipe import Recipe
from spiketrack_deploy.training.views import (
    Placed,
    View,
    cut,
    cut_mask,
    enlarged,
    jittered,
    turned_box,
    view_around,
    view_onto,
    within,
)

_EDGE = 0.04
"""A target's centre stays this share of the crop away from its border."""
_TRIES = 30
_LARGEST_SHARE = 0.36
_ODD = 3.0
"""A crop that is so many times too wide or narrow for its target is no longer followed."""
_DARK, _SMALL = (0.1, 0.5), (6.0, 16.0)
"""Least and largest light of a dark sample, and pixels of a small target, each even in logarithms."""


Around = tuple[Box | None, ...]
"""By search crop the box, in frame pixels, that it is to lie around; None: drawn."""


@dataclass(frozen=True, slots=True)
class Sample:
    """``templates`` ``[T,r,r,3]``, ``searches`` ``[K,r,r,3]`` uint8; ``boxes`` ``[K,4]`` centre and size in
    fractions, 0 for a target that is not there; ``views`` of the searches, and the boxes ``around`` which they were
    told to lie."""

    templates: npt.NDArray[np.uint8]
    searches: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]
    views: tuple[View, ...] = ()
    around: Around = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A frame of a clip on which a tracker that began at frame ``first`` was lost: frame ``at``, searched around
    ``box``."""

    clip: str
    first: int
    at: int
    box: Box


@dataclass(frozen=True, slots=True)
class _Scene:
    """What one sample is made of: template and search frames with boxes; ``outline`` of the target where it is known;
    ``backgrounds`` that it is to be pasted on; ``around``: where the searches lie, for scenes that a tracker led to."""

    templates: tuple[tuple[Image, Box], ...]
    searches: tuple[tuple[Image, Box], ...]
    outline: tuple[Floats, ...] = ()
    backgrounds: tuple[Image, ...] = ()
    around: Around | None = None


@dataclass(frozen=True, slots=True)
class _Mood:
    """What a whole sample is shown in: light of templates and of searches, pixels of a small target (0: as it is)."""

    light: tuple[float, float] = (1.0, 1.0)
    side: float = 0.0
    noise: int = 0


class Sampler:
    """Draws samples from a catalogue by weight. Raises :class:`InputError` where no target is large enough.

    ``eye``: the same scenes about the same centres, cut as wide and as fine as this configuration's crops are. What is
    drawn, and the boxes of a sample, stay those of ``config``.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        config: TrackerConfig,
        recipe: Recipe,
        store: FrameStore,
        eye: TrackerConfig | None = None,
    ) -> None:
        self._config, self._recipe, self._store = config, recipe, store
        eye = eye or config
        self._side = eye.resolution
        self._template_wide = eye.template_factor / config.template_factor
        self._search_wide = eye.search_factor / config.search_factor
        least = recipe.least_side
        self._clips = [c for c in catalogue.clips if len(c.usable(least)) >= 2]
        self._frames = [c.usable(least) for c in self._clips]
        self._pictures = [p for p in catalogue.pictures if any(_large(t.box, least) for t in p.targets)]
        self._masked = [p for p in self._pictures if any(t.outline and _large(t.box, least) for t in p.targets)]
        if not self._clips and not self._pictures:
            raise InputError(
                f"no target of the training data is {least:g} pixels large or more; nothing can be trained"
            )
        self.failures: Sequence[Failure] = ()
        """What the share ``hard`` of the samples is drawn from."""
        self.clips = _by_name(self._clips)
        """Those that are drawn from, each under a name of its own."""
        self._clip_weights = _cumulative(self._clips)
        self._picture_weights = _cumulative(self._pictures)
        self._masked_weights = _cumulative(self._masked)

    def looped(self, step: int, index: int) -> bool:
        """Whether this sample is to follow the network."""
        return self._led(step, index)[0] == "loop"

    def _led(self, step: int, index: int) -> tuple[str, Generator]:
        recipe, own = self._recipe, np.random.default_rng([self._recipe.seed, step, index, 2])
        loop, hard = own.random() < recipe.loop_share, own.random() < recipe.hard
        return "loop" if loop and self._clips else "hard" if hard and self.failures else "", own

    def draw(self, step: int, index: int, around: Around = ()) -> Sample:
        """Sample ``index`` (over all workers) of optimiser step ``step``; ``around`` for one that is looped."""
        rng = np.random.default_rng([self._recipe.seed, step, index])
        # Levers draw from streams of their own: what is off changes nothing of what is drawn.
        own, (led, leading) = np.random.default_rng([self._recipe.seed, step, index, 1]), self._led(step, index)
        scene = self._scene(rng) if not led else self._led_scene(leading, around if led == "loop" else None)
        mood = self._mood(own)
        noise = np.random.default_rng(mood.noise)
        grey = bool(rng.random() < self._recipe.grey)
        mirrored = bool(rng.random() < self._recipe.flip)
        templates = [self._template(frame, box, rng, grey, mirrored, mood) for frame, box in scene.templates]
        searches, boxes, views = [], [], []
        for k in range(self._recipe.searches):
            flip = bool(rng.random() < self._recipe.flip) if scene.backgrounds else mirrored
            crop, box, view = self._search(scene, k, rng, own, flip, mood)
            crop = blurred(recolour(crop, rng, self._recipe, grey), rng, self._recipe)
            searches.append(darkened(crop, mood.light[1], noise))
            boxes.append(box)
            views.append(view)
        shown = np.stack([darkened(crop, mood.light[0], noise) for crop in templates])
        return Sample(shown, np.stack(searches), np.array(boxes, dtype=np.float32), tuple(views), around)

    def _led_scene(self, own: Generator, around: Around | None) -> _Scene:
        """Frames of a clip in a row, their crops ``around`` boxes that are known; without, lost frames of one start."""
        steps, searches = self._config.templates, self._recipe.searches
        if around is None:
            lost = self.failures[int(own.integers(len(self.failures)))]
            same = [one for one in self.failures if (one.clip, one.first) == (lost.clip, lost.first)]
            chosen = [lost, *(same[int(own.integers(len(same)))] for _ in range(searches - 1))]
            clip = self.clips[lost.clip]
            template = self._clip_frame(clip, lost.first)
            found = tuple(self._clip_frame(clip, one.at) for one in chosen)
            return _Scene((template,) * steps, found, around=tuple(_near(one.box, own) for one in chosen))
        at = _weighted(own, self._clip_weights)
        clip, usable = self._clips[at], self._frames[at]
        stride = int(own.integers(1, 4))
        begin = int(own.integers(max(len(usable) - stride * (searches - 1), 1)))
        row = [int(usable[min(begin + stride * k, len(usable) - 1)]) for k in range(searches)]
        first = sorted(int(i) for i in own.choice(usable, steps, replace=len(usable) < steps))
        shown = [self._clip_frame(clip, i) for i in (*first, *row)]
        return _Scene(tuple(shown[:steps]), tuple(shown[steps:]), around=around)

    def _mood(self, own: Generator) -> _Mood:
        """Little light on searches, and on templates half of the time; a target of few pixels."""
        recipe = self._recipe
        dark, both, small = own.random() < recipe.dark, own.random() < 0.5, own.random() < recipe.small
        gain, side = (float(np.exp(own.uniform(*np.log(limits)))) for limits in (_DARK, _SMALL))
        light = gain if dark else 1.0
        return _Mood((light if both else 1.0, light), side if small else 0.0, int(own.integers(2**62)))

    def _scene(self, rng: Generator) -> _Scene:
        kind = rng.random()
        if self._clips and (kind < self._recipe.video or not self._pictures):
            return self._clip_scene(rng)
        if self._masked and kind < self._recipe.video + self._recipe.paste:
            return self._pasted_scene(rng)
        for _ in range(_TRIES):
            frame, box, target = self._still(rng, self._pictures, self._picture_weights)
            if not _fills(frame, box):
                break
            if target.outline:  # around so large a target a search region would be black: show it elsewhere
                return self._pasted(frame, box, target, rng)
        still = ((frame, box),)
        return _Scene(still * self._config.templates, still * self._recipe.searches, target.outline)

    def _clip_scene(self, rng: Generator) -> _Scene:
        at = _weighted(rng, self._clip_weights)
        clip, usable = self._clips[at], self._frames[at]
        chosen = rng.choice(usable, self._config.templates + self._recipe.searches, replace=len(usable) < 8)
        steps = self._config.templates
        # Templates in time order, as the tracker keeps them: first, older, newest.
        frames = [self._clip_frame(clip, int(i)) for i in (*sorted(chosen[:steps]), *chosen[steps:])]
        return _Scene(tuple(frames[:steps]), tuple(frames[steps:]))

    def _clip_frame(self, clip: VideoSequence, index: int) -> tuple[Image, Box]:
        x, y, w, h = (float(v) for v in clip.boxes[index])
        return self._store.read(clip.frame(index)), (x, y, w, h)

    def _pasted_scene(self, rng: Generator) -> _Scene:
        frame, box, target = self._still(rng, self._masked, self._masked_weights, masked=True)
        return self._pasted(frame, box, target, rng)

    def _pasted(self, frame: Image, box: Box, target: Target, rng: Generator) -> _Scene:
        backgrounds = tuple(self._any_frame(rng) for _ in range(self._recipe.searches))
        still = ((frame, box),)
        return _Scene(still * self._config.templates, still * self._recipe.searches, target.outline, backgrounds)

    def _still(
        self, rng: Generator, pictures: Sequence[Picture], weights: npt.NDArray[np.float64], masked: bool = False
    ) -> tuple[Image, Box, Target]:
        picture = pictures[_weighted(rng, weights)]
        large = [t for t in picture.targets if _large(t.box, self._recipe.least_side) and (t.outline or not masked)]
        target = large[int(rng.integers(len(large)))]
        return self._store.read(picture.frame), target.box, target

    def _any_frame(self, rng: Generator) -> Image:
        if self._pictures:
            return self._store.read(self._pictures[int(rng.integers(len(self._pictures)))].frame)
        clip = self._clips[int(rng.integers(len(self._clips)))]
        return self._store.read(clip.frame(int(rng.integers(len(clip.frames)))))

    def _template(self, frame: Image, box: Box, rng: Generator, grey: bool, mirrored: bool, mood: _Mood) -> Image:
        size = float(np.sqrt(box[2] * box[3]))
        shift = rng.normal(0, self._recipe.template_shift * size, 2)
        view = view_around(box, self._config.template_factor, mirrored)
        view = jittered(view, (shift[0], shift[1]), float(rng.normal(0, self._recipe.template_scale)), 0.0)
        view = enlarged(view, self._template_wide)
        crop = coarsened(cut(frame, view, self._side), mood.side, view.place(box))
        crop = recolour(crop, rng, self._recipe, grey)
        return blurred(crop, rng, self._recipe) if rng.random() < 0.5 else crop

    def _search(
        self, scene: _Scene, k: int, rng: Generator, own: Generator, mirrored: bool, mood: _Mood
    ) -> tuple[Image, Placed, View]:
        recipe, (frame, box), free = self._recipe, scene.searches[k], scene.around is None
        turned, absent = free and own.random() < recipe.rotate, free and bool(own.random() < recipe.absent)
        angle = math.radians(own.uniform(-1, 1) * recipe.rotate_degrees)
        turn = (angle, box[0] + 0.5 * box[2], box[1] + 0.5 * box[3]) if turned else None
        box = turned_box(box, scene.outline, angle) if turned else box
        seen = replace(self._search_view(box, rng, mirrored), turn=turn)
        around = scene.around[k] if scene.around and k < len(scene.around) else None
        seen = (around and self._view_led(around, box, mirrored)) or seen
        elsewhere = self._elsewhere(frame, seen, box, own) if absent and not scene.backgrounds else None
        seen = elsewhere or seen
        view, r, placed = enlarged(seen, self._search_wide), self._side, seen.place(box)
        shown = within(placed, self._search_wide)
        crop, mask = cut(frame, view, r), None
        if scene.backgrounds:
            mask = cut_mask(scene.outline, view, r)
            behind = self._backdrop(scene.backgrounds[k], rng)
            crop = behind if absent else laid_over(behind, crop, mask)
        if rng.random() < recipe.distractor:
            crop = self._with_distractor(crop, placed, None if absent else mask, rng)
        if absent and not scene.backgrounds and not elsewhere:
            crop = covered(crop, self._backdrop(self._any_frame(rng), rng), shown)
        elif rng.random() < recipe.occlusion and not absent:
            crop = occluded(crop, self._backdrop(self._any_frame(rng), rng), shown, rng)
        return coarsened(crop, mood.side, shown), (0.5, 0.5, 0.0, 0.0) if absent else placed, seen

    def _view_led(self, around: Box, box: Box, mirrored: bool) -> View | None:
        """The tracker's view around a box; None where the target is out of it, or far too small or large in it."""
        view, factor = view_around(around, self._config.search_factor, mirrored), self._config.search_factor
        cx, cy, w, h = view.place(box)
        near = _EDGE < cx < 1 - _EDGE and _EDGE < cy < 1 - _EDGE
        return view if near and 1 / _ODD < factor * math.sqrt(w * h) < _ODD else None

    def _elsewhere(self, frame: Image, view: View, box: Box, own: Generator) -> View | None:
        """The view somewhere else in its frame, clear of the target; None half of the time, or where there is no room
        (the target is to be covered instead)."""
        x, y, w, h = box
        for _ in range(_TRIES if own.random() < 0.5 else 0):
            cx, cy = own.uniform(0, 1, 2) * (frame.shape[1], frame.shape[0])
            if abs(cx - x - 0.5 * w) > 0.5 * (view.width + w) or abs(cy - y - 0.5 * h) > 0.5 * (view.height + h):
                return replace(view, x=float(cx) - 0.5 * view.width, y=float(cy) - 0.5 * view.height, turn=None)
        return None

    def _search_view(self, box: Box, rng: Generator, mirrored: bool) -> View:
        recipe, factor = self._recipe, self._config.search_factor
        size = float(np.sqrt(box[2] * box[3]))
        reach = (0.5 - _EDGE) * factor * size
        log_scale = float(np.clip(rng.normal(0, recipe.search_scale), -1.0, 1.0))
        limit = reach * np.exp(log_scale)
        near = rng.normal(0, recipe.search_shift * size, 2)
        shift = near if rng.random() < 0.5 else rng.uniform(-limit, limit, 2)
        shift = np.clip(shift, -0.95 * limit, 0.95 * limit)
        view = view_around(box, factor, mirrored)
        return jittered(view, (float(shift[0]), float(shift[1])), log_scale, float(rng.normal(0, recipe.aspect)))

    def _backdrop(self, frame: Image, rng: Generator) -> Image:
        """A random square of a picture as a crop."""
        height, width = frame.shape[:2]
        side = float(min(height, width) * rng.uniform(0.4, 1.0))
        corner = rng.uniform(0, 1, 2) * (width - side, height - side)
        view = View(float(corner[0]), float(corner[1]), side, side, bool(rng.random() < 0.5))
        return cut(frame, enlarged(view, self._search_wide), self._side)

    def _with_distractor(self, crop: Image, placed: Placed, front: Floats | None, rng: Generator) -> Image:
        """Another object beside the target, behind it where the target's mask is known, else clear of its box."""
        pictures, weights = (
            (self._masked, self._masked_weights) if self._masked else (self._pictures, self._picture_weights)
        )
        if not pictures:
            return crop
        frame, box, target = self._still(rng, pictures, weights, masked=bool(self._masked))
        scale = float(np.exp(rng.normal(0, 0.25))) * float(np.sqrt(placed[2] * placed[3] / (box[2] * box[3])))
        w, h = box[2] * scale, box[3] * scale
        for _ in range(_TRIES):
            cx, cy = rng.uniform(0.0, 1.0, 2)
            if abs(cx - placed[0]) > 0.5 * (w + placed[2]) or abs(cy - placed[1]) > 0.5 * (h + placed[3]):
                break
        else:
            return crop
        beside, r = within((float(cx), float(cy), w, h), self._search_wide), self._side
        view = view_onto(box, beside, bool(rng.random() < 0.5))
        mask = cut_mask(target.outline, view, r) if target.outline else ellipse(beside, r)
        return laid_over(crop, cut(frame, view, r), mask if front is None else mask * (1 - front))


def _by_name(clips: Sequence[VideoSequence]) -> dict[str, VideoSequence]:
    found: dict[str, VideoSequence] = {}
    for clip in clips:  # two folders may have a clip of one name
        twins = sum(other.name == clip.name for other in found.values())
        found[f"{clip.name}#{twins + 1}" if twins else clip.name] = clip
    return found


def _near(box: Box, rng: Generator) -> Box:
    """A box moved and scaled by a few hundredths of its size."""
    x, y, w, h = box
    side, (dx, dy, ds) = math.sqrt(max(w * h, 1.0)), rng.normal(0, 0.05, 3)
    scale = math.exp(ds)
    return x + dx * side - 0.5 * w * (scale - 1), y + dy * side - 0.5 * h * (scale - 1), w * scale, h * scale


def _fills(frame: Image, box: Box) -> bool:
    """Whether a target takes more than about a third of its picture."""
    return box[2] * box[3] > _LARGEST_SHARE * frame.shape[0] * frame.shape[1]


def _large(box: Box, least: float) -> bool:
    return box[2] * box[3] >= least**2


def _cumulative(items: Sequence[Picture] | Sequence[VideoSequence]) -> npt.NDArray[np.float64]:
    weights = np.cumsum([max(item.weight, 0.0) for item in items])
    return weights if len(weights) and weights[-1] > 0 else np.arange(1.0, len(items) + 1)


def _weighted(rng: Generator, cumulative: npt.NDArray[np.float64]) -> int:
    return int(min(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"), len(cumulative) - 1))
