"""What is done to crops besides cutting them: light, blur, pasted targets, distractors and occluders.

This module decides pixels only; boxes do not move here. It must not know where crops come from. Black padding stays
black, as the tracker's padding does (docs/training.md).
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from spiketrack_deploy.datasets.catalogue import Floats
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.training.recipe import Recipe
from spiketrack_deploy.training.views import Placed

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def recolour(crop: Image, rng: Generator, recipe: Recipe, grey: bool) -> Image:
    """Gain, gain per channel, gamma, saturation by one table per channel; 0 stays 0."""
    import cv2

    gain = np.exp(rng.normal(0, recipe.gain) + rng.normal(0, recipe.channel_gain, 3))
    gamma = np.exp(rng.normal(0, recipe.gain))
    levels = np.arange(256, dtype=np.float64) / 255.0
    table = np.clip(np.rint(255.0 * gain[None] * levels[:, None] ** gamma), 0, 255).astype(np.uint8)
    out = np.asarray(cv2.LUT(crop, table[None]), dtype=np.uint8)
    keep = 0.0 if grey else min(1.0, rng.uniform(0.5, 1.5))
    if keep < 1.0:
        luma = out.astype(np.float32) @ _GREY
        out = np.rint(keep * out + (1 - keep) * luma[:, :, None]).astype(np.uint8)
    return out


def blurred(crop: Image, rng: Generator, recipe: Recipe) -> Image:
    """Gaussian blur, and motion blur along a random direction, each with its share."""
    import cv2

    out = crop
    if rng.random() < recipe.blur:
        sigma = float(rng.uniform(0.3, 1.2))
        out = np.asarray(cv2.GaussianBlur(out, (5, 5), sigma), dtype=np.uint8)
    if rng.random() < recipe.motion_blur:
        out = np.asarray(cv2.filter2D(out, -1, _streak(rng)), dtype=np.uint8)
    return out


def darkened(crop: Image, gain: float, rng: Generator) -> Image:
    """Little light: ``gain`` times the values, and a sensor's noise; black padding stays black. At 1 nothing."""
    if gain == 1:
        return crop
    noise = rng.normal(0, rng.uniform(1.0, 4.0), crop.shape)
    lit = np.clip(np.rint(gain * crop + noise), 0, 255)
    return np.where(crop.any(2, keepdims=True), lit, 0).astype(np.uint8)


def coarsened(crop: Image, side: float, target: Placed) -> Image:
    """As a camera would show it whose picture of the ``target`` (in fractions of the crop) is ``side`` pixels large,
    where it was larger; at 0 nothing."""
    import cv2

    out = crop.shape[0]
    pixels = round(side / max(float(np.sqrt(target[2] * target[3])), 1e-6))
    if not side or pixels >= out:
        return crop
    small = cv2.resize(crop, (max(pixels, 1),) * 2, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (out, out), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _streak(rng: Generator) -> Floats:
    length, angle = int(rng.integers(2, 4)), float(rng.uniform(0, np.pi))
    side = 2 * length + 1
    kernel = np.zeros((side, side))
    along = np.linspace(-length, length, 4 * side)
    rows, columns = np.rint(along * np.sin(angle)).astype(int), np.rint(along * np.cos(angle)).astype(int)
    kernel[rows + length, columns + length] = 1.0
    return kernel / kernel.sum()


def laid_over(crop: Image, above: Image, coverage: Floats) -> Image:
    """``above`` over ``crop`` where ``coverage`` ``[r,r]`` (0..1) says so."""
    c = coverage[:, :, None].astype(np.float32)
    return np.rint(crop * (1 - c) + above * c).astype(np.uint8)


def ellipse(box: Placed, out: int) -> Floats:
    """Coverage of the ellipse inscribed in a box (centre and size in fractions), soft at its rim: for targets
    without mask."""
    grid = (np.arange(out) + 0.5) / out
    dx, dy = (grid - box[0]) / (0.5 * box[2]), (grid - box[1]) / (0.5 * box[3])
    radius = np.sqrt(dx[None] ** 2 + dy[:, None] ** 2)
    return np.clip((1.0 - radius) * 4.0, 0.0, 1.0)


def covered(crop: Image, other: Image, box: Placed) -> Image:
    """Cover the target whole, a little beyond its box, with a piece of another picture."""
    return laid_over(crop, other, np.minimum(2 * ellipse((box[0], box[1], 1.7 * box[2], 1.7 * box[3]), len(crop)), 1))


def occluded(crop: Image, other: Image, box: Placed, rng: Generator) -> Image:
    """Cover one side of the target's box, up to half of it, with a piece of another picture."""
    out, r = crop.copy(), crop.shape[0]
    x1, y1 = (box[0] - 0.5 * box[2]) * r, (box[1] - 0.5 * box[3]) * r
    w, h = box[2] * r, box[3] * r
    share, side = float(rng.uniform(0.15, 0.5)), int(rng.integers(4))
    left, right, top, bottom = x1, x1 + w, y1, y1 + h
    if side == 0:
        right = x1 + share * w
    elif side == 1:
        left = x1 + (1 - share) * w
    elif side == 2:
        bottom = y1 + share * h
    else:
        top = y1 + (1 - share) * h
    a, b, c, d = (int(np.clip(round(v), 0, r)) for v in (top, bottom, left, right))
    out[a:b, c:d] = other[a:b, c:d]
    return out
