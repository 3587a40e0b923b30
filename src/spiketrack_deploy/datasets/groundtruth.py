"""Text of boxes and labels as arrays.

This module decides which spellings are read (comma, tab, semicolon or blanks between numbers) and names the line that
is wrong. It must not know folders.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError

Boxes = npt.NDArray[np.float64]
Labels = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]
_BETWEEN = re.compile(r"\s*[,;]\s*|\s+")


def read_boxes(data: bytes, where: str) -> Boxes:
    """Lines ``x,y,w,h`` as float64 ``[N,4]``; NaN or no width or height: the target is absent (all NaN).

    Blank lines at the end are ignored. InputError names the first line that is not four numbers.
    """
    lines = _text(data, where).rstrip().splitlines()
    if not lines:
        raise InputError(f"{where} is empty")
    rows = np.array([_numbers(line, f"{where}, line {number}", 4) for number, line in enumerate(lines, 1)])
    if np.isinf(rows).any():
        raise InputError(f"{where}, line {int(np.isinf(rows).any(axis=1).argmax()) + 1}: a box cannot be infinite")
    return hide(rows, ~(np.isfinite(rows).all(axis=1) & (rows[:, 2] > 0) & (rows[:, 3] > 0)))


def flags(data: bytes, where: str) -> Labels:
    """A label per frame, one a line or all in one line."""
    text = _text(data, where).strip()
    if not text:
        raise InputError(f"{where} is empty")
    return np.array([_numbers(part, where, 1)[0] for part in _BETWEEN.split(text)])


def hide(boxes: Boxes, absent: Marks) -> Boxes:
    """Boxes with NaN in the rows that ``absent`` marks."""
    return np.where(absent[:, None], np.nan, boxes)


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{where} is no text") from None


def _numbers(line: str, where: str, count: int) -> list[float]:
    parts = _BETWEEN.split(line.strip())
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise InputError(f"{where}: {line.strip()[:60]!r} is not {'a box x,y,w,h' if count == 4 else 'a number'}")
    return numbers
