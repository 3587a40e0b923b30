"""Crops against an integer re-computation of OpenCV's resize, normalisation, clipping and the window."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.tracking.boxes import clip_box
from spiketrack_deploy.tracking.crop import crop_window, hann_window, sample_target
from spiketrack_deploy.tracking.pixels import normalise

Ints = npt.NDArray[np.int64]


def picture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random RGB frame."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def axis(inner: int, outer: int, clamp: bool) -> tuple[Ints, Ints, Ints]:
    """Source index and the two fixed-point weights of every output position of one axis."""
    scale = 1 / (outer / inner)
    g = ((np.arange(outer) + 0.5) * scale - 0.5).astype(np.float32)
    s = np.floor(g).astype(np.int64)
    g = g - s.astype(np.float32)
    if clamp:
        g = np.where((s < 0) | (s >= inner - 1), np.float32(0), g)
        s = np.clip(s, 0, inner - 1)
    return s, np.rint((1 - g) * 2048).astype(np.int64), np.rint(g * 2048).astype(np.int64)


def resized(image: npt.NDArray[np.uint8], out: int) -> npt.NDArray[np.uint8]:
    """OpenCV's bilinear resize of a square uint8 image in its own fixed-point arithmetic."""
    side = image.shape[0]
    if side == out:
        return image
    if side == 2 * out:
        quad = image.astype(np.int64).reshape(out, 2, out, 2, 3).sum(axis=(1, 3))
        return ((quad + 2) >> 2).astype(np.uint8)
    x, a0, a1 = axis(side, out, clamp=True)
    y, b0, b1 = axis(side, out, clamp=False)
    pixels = image.astype(np.int64)
    rows = pixels[:, x] * a0[:, None] + pixels[:, np.minimum(x + 1, side - 1)] * a1[:, None]
    top, bottom = (rows[np.clip(y + k, 0, side - 1)] >> 4 for k in (0, 1))
    mixed = ((b0[:, None, None] * top) >> 16) + ((b1[:, None, None] * bottom) >> 16) + 2
    return (mixed >> 2).astype(np.uint8)


def cut(frame: npt.NDArray[np.uint8], box: tuple[float, ...], factor: float, out: int) -> npt.NDArray[np.uint8]:
    """The crop, pixel by pixel: black outside, and in the last row and column once the crop reaches them."""
    height, width = frame.shape[:2]
    x, y, w, h = box
    side = math.ceil(math.sqrt(w * h) * factor)
    x1, y1 = round(x + 0.5 * w - 0.5 * side), round(y + 0.5 * h - 0.5 * side)
    last_column = width - 1 if x1 + side >= width else width
    last_row = height - 1 if y1 + side >= height else height
    patch = np.zeros((side, side, 3), dtype=np.uint8)
    for row in range(side):
        for column in range(side):
            if 0 <= y1 + row < last_row and 0 <= x1 + column < last_column:
                patch[row, column] = frame[y1 + row, x1 + column]
    return resized(patch, out)


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(-10, 55),
    y=st.floats(-10, 35),
    w=st.floats(1, 25),
    h=st.floats(1, 25),
    factor=st.sampled_from([1.0, 2.0, 3.0, 4.0]),
    out=st.sampled_from([16, 32, 48]),
)
def test_crops_equal_a_pixel_by_pixel_computation(
    x: float, y: float, w: float, h: float, factor: float, out: int
) -> None:
    frame = picture(40, 60)
    try:
        crop, scale = sample_target(frame, (x, y, w, h), factor, out)
    except InputError as error:
        assert "holds no image" in str(error)
        return
    assert np.array_equal(crop, cut(frame, (x, y, w, h), factor, out))
    assert scale == out / math.ceil(math.sqrt(w * h) * factor)


def test_last_row_and_column_are_lost_once_reached() -> None:
    frame = np.full((40, 40, 3), 255, dtype=np.uint8)
    crop, _ = sample_target(frame, (15, 15, 10, 10), 4.0, 40)  # exactly the frame
    assert crop[:39, :39].min() == 255
    assert crop[39].max() == 0
    assert crop[:, 39].max() == 0


def test_corner_rounds_half_to_even() -> None:
    corners = [crop_window((x, 20, 8, 8), 4.0, 100, 100).x1 for x in (12.5, 13.5)]
    assert corners == [0, 2]  # 12.5 + 4 - 16 = 0.5 and 1.5


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((0, 0, 0, 5), "above 0"),
        ((0, 0, 5, 0), "above 0"),
        ((0, 0, -3, 5), "above 0"),
        ((float("nan"), 0, 5, 5), "finite"),
        ((0, 0, float("inf"), 5), "finite"),
        ((500, 0, 5, 5), "outside the frame"),
        ((0, -500, 5, 5), "outside the frame"),
        ((0, 0, 1e6, 1e6), "too large"),
        ((0, 0, 1e-200, 1e-200), "too small"),
    ],
)
def test_unusable_boxes(box: tuple[float, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        sample_target(picture(40, 60), box, 4.0, 32)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_crop_needs_one_row_and_one_column_of_the_frame(axis: str) -> None:
    """A crop of 32 pixels in a frame of 60: from -31 to 58 it holds a line (the last one is never read)."""
    for corner, holds in ((-32, False), (-31, True), (58, True), (59, False)):
        box = (corner + 12, 12, 8, 8) if axis == "x" else (12, corner + 12, 8, 8)
        size = (60, 90) if axis == "x" else (90, 60)
        if holds:
            window = crop_window(box, 4.0, *size)
            assert {"x": window.x1, "y": window.y1}[axis] == corner
        else:
            with pytest.raises(InputError, match="holds no image"):
                crop_window(box, 4.0, *size)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        None,
    ],
)
def test_unusable_frames(frame: Any) -> None:
    with pytest.raises(InputError, match="RGB image"):
        sample_target(frame, (0, 0, 2, 2), 4.0, 32)


def test_normalise_uses_decimal_constants_in_float64() -> None:
    crop = picture(5, 5)
    want = (crop.astype(np.float64) / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    got = normalise(crop)
    assert got.dtype == np.float64
    assert np.array_equal(got, want.transpose(2, 0, 1))


@given(
    x=st.floats(-200, 200),
    y=st.floats(-200, 200),
    w=st.floats(0, 300),
    h=st.floats(0, 300),
)
def test_clipped_boxes_keep_ten_pixels_inside(x: float, y: float, w: float, h: float) -> None:
    left, top, width, height = clip_box((x, y, w, h), 100, 80)
    assert 0 <= left <= 90
    assert 0 <= top <= 70
    assert width >= 10
    assert height >= 10
    assert left + width <= 100 + 1e-9
    assert top + height <= 80 + 1e-9


@given(x=st.floats(-200, 200), y=st.floats(-200, 200), w=st.floats(0, 300), h=st.floats(0, 300))
def test_a_box_is_clipped_side_by_side(x: float, y: float, w: float, h: float) -> None:
    """Left and top end at most 10 pixels before the far edge, right and bottom at least 10 behind the near one."""
    left, right = float(np.median([0, x, 90])), float(np.median([10, x + w, 100]))
    top, bottom = float(np.median([0, y, 70])), float(np.median([10, y + h, 80]))
    assert clip_box((x, y, w, h), 100, 80) == (left, top, max(10, right - left), max(10, bottom - top))


def test_a_crop_may_be_32768_pixels_wide_and_no_more() -> None:
    assert crop_window((0, 0, 8192, 8192), 4.0, 40000, 40000).side == 32768
    with pytest.raises(InputError, match="wider than 32768"):
        crop_window((0, 0, 8193, 8192), 4.0, 40000, 40000)


def test_window_is_the_outer_product_of_an_open_hann_window() -> None:
    window = hann_window(6)
    assert window.shape == (6, 6)
    assert window.max() < 1
    assert np.array_equal(window, window.T)
    assert window[0, 0] == pytest.approx((0.5 * (1 - math.cos(2 * math.pi / 7))) ** 2, abs=1e-16)
    assert window[2, 2] == pytest.approx(window[3, 3])
