"""Text of boxes and labels as arrays.

This module decides which spellings are read (comma, tab, semicolon or blanks between numbers) and names the line that
is wrong. It must not know folders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.tracking.boxes import Boxes, Marks, visible

Labels = npt.NDArray[np.float64]
_BETWEEN = re.compile(r"\s*[,;]\s*|\s+")


def box_lines(data: bytes, where: str) -> list[str]:
    """Lines of a file of boxes, without blank ones at the end; InputError where there is none.

    Apart from :func:`read_boxes`, so that a list that does not belong to the frames is refused before it is read.
    """
    lines = _text(data, where).rstrip().splitlines()
    if not lines:
        raise InputError(f"{where} is empty")
    return lines


def read_boxes(lines: Sequence[str], where: str) -> Boxes:
    """Lines ``x,y,w,h`` as float64 ``[N,4]``; NaN or no width or height: the target is absent (all NaN).

    InputError names the first line that is not four numbers.
    """
    rows = np.empty((len(lines), 4))
    for index, line in enumerate(lines):
        rows[index] = _numbers(line, f"{where}, line {index + 1}", 4)
    if np.isinf(rows).any():
        raise InputError(f"{where}, line {int(np.isinf(rows).any(axis=1).argmax()) + 1}: a box cannot be infinite")
    return hide(rows, ~visible(rows))


def flags(data: bytes, where: str, count: int) -> Labels:
    """A label for each of ``count`` frames, one a line or all in one line; InputError where there are not as many."""
    parts = _BETWEEN.split(_text(data, where).strip())
    if len(parts) != count:
        raise InputError(f"{where} has {len(parts)} entries for {count} boxes")
    return np.array([_numbers(part, where, 1)[0] for part in parts])


def hide(boxes: Boxes, absent: Marks) -> Boxes:
    """Boxes with NaN in the rows that ``absent`` marks."""
    return np.where(absent[:, None], np.nan, boxes)


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{where} is no text") from None


def _numbers(line: str, where: str, count: int) -> list[float]:
    parts = _BETWEEN.split(line.strip(), count)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise InputError(f"{where}: {line.strip()[:60]!r} is not {'a box x,y,w,h' if count == 4 else 'a number'}")
    return numbers
