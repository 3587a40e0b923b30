"""Where a tracker fails, as strips of frames: true box and tracked box before, at and behind the loss.

This module decides what a loss is, which frames show it and how a strip looks. It must not compute a score.
matplotlib is imported inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spiketrack_deploy.datasets.files import open_tree
from spiketrack_deploy.datasets.sequences import Dataset, VideoSequence
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.evaluation.plots import save_figure
from spiketrack_deploy.evaluation.run import Record
from spiketrack_deploy.evaluation.summary import Findings
from spiketrack_deploy.tracking.boxes import Boxes, overlaps, success_curve, visible
from spiketrack_deploy.tracking.images import Image

FOLDER = "failures"
LOST, FRAMES = 0.1, 5
"""A target is lost where the overlap falls below LOST and stays there for FRAMES scored frames, or to the end."""
ROWS = 6
"""Sequences of one picture, the worst first."""
_OFFSETS = (-8, -3, -1, 0, 3, 10)
_ROOM, _LEAST = 1.6, 4.0
"""A view is as wide as both boxes together times _ROOM, and at least _LEAST target sizes."""
_TRUE, _TRACKED = "#00e676", "#ff3d00"


class Loss(NamedTuple):
    """A sequence with its success AUC, and the frame at which its target was lost."""

    sequence: VideoSequence
    record: Record
    auc: float
    frame: int


def loss(predicted: Boxes, truth: Boxes) -> int | None:
    """Index of the first frame of a loss (:data:`LOST`) of boxes ``[N,4]``; None where there is none."""
    scored = np.flatnonzero(visible(truth))
    scored = scored[scored > 0]
    low = overlaps(predicted[scored], truth[scored]) < LOST
    for at in np.flatnonzero(low):
        if low[at : at + FRAMES].all():
            return int(scored[at])
    return None


def losses(dataset: Dataset, records: dict[str, Record]) -> list[Loss]:
    """What one tracker lost, the worst first."""
    found = []
    for sequence in dataset.sequences:
        record = records.get(sequence.name)
        if record is None or not sequence.scorable:
            continue
        at, scored = loss(record.array, sequence.boxes), visible(sequence.boxes)
        scored[:1] = False
        if at is not None:
            auc = success_curve(overlaps(record.array[scored], sequence.boxes[scored])).mean()
            found.append(Loss(sequence, record, float(auc), at))
    return sorted(found, key=lambda one: one.auc)


def shown(one: Loss) -> list[int]:
    """Frames of a strip: the first, those around the loss, the last that shows the target; in order, each once."""
    scored = np.flatnonzero(visible(one.sequence.boxes))
    around = [scored[np.abs(scored - (one.frame + offset)).argmin()] for offset in _OFFSETS]
    return sorted({int(i) for i in (scored[0], *around, scored[-1])})


def draw_strips(dataset: Dataset, findings: Sequence[Findings], folder: Path) -> list[str]:
    """One picture a tracker that lost something, below ``folder``; their names. Baselines have none."""
    names = []
    for found in findings:
        lost = losses(dataset, dict(found.records))[:ROWS]
        if lost and found.subject.kind != "baseline":
            (folder / FOLDER).mkdir(parents=True, exist_ok=True)
            name = f"{FOLDER}/{found.subject.label}"
            names += save_figure(_figure(found.subject.label, lost), folder, name, ("png",))
    return names


def _figure(label: str, lost: Sequence[Loss]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = len(_OFFSETS) + 2
    figure = Figure(figsize=(1.55 * columns, 1.85 * len(lost) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(hspace=0.16)  # type: ignore[union-attr,call-arg]
    figure.suptitle(f"{label}: where targets were lost, the worst first\n", fontsize=11)
    axes = figure.subplots(len(lost), columns, squeeze=False)
    for row, one in zip(axes, lost):
        for ax in row:
            ax.axis("off")
        for ax, (index, frame) in zip(row, _frames(one)):
            _panel(ax, frame, one, index)
        name = f"{one.sequence.name}  AUC {100 * one.auc:.0f}, lost at frame {one.frame + 1} of {len(one.record.boxes)}"
        title = row[0].text(0, 1.17, name, transform=row[0].transAxes, fontsize=9, va="bottom")
        title.set_in_layout(False)  # else its column would be as wide as the words
    keys = [Line2D([], [], color=c, label=t) for c, t in ((_TRUE, "true box"), (_TRACKED, "tracked box"))]
    figure.legend(handles=keys, loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    return figure


def _frames(one: Loss) -> Iterator[tuple[int, Image]]:
    with open_tree(one.sequence.root, listed=False) as tree:
        for index in shown(one):
            try:
                yield index, tree.image(one.sequence.frames[index])
            except InputError:  # it was read when it was tracked; a picture is not worth the results
                continue


def _panel(ax: Any, frame: Image, one: Loss, index: int) -> None:
    from matplotlib.patches import Rectangle

    true, tracked = one.sequence.boxes[index], one.record.array[index]
    both = np.array([box for box in (true, tracked) if np.isfinite(box).all()])
    low, high = both[:, :2].min(axis=0), (both[:, :2] + both[:, 2:]).max(axis=0)
    side = max(_ROOM * float((high - low).max()), _LEAST * float(np.sqrt(true[2] * true[3])))
    (x, y), height, width = (low + high) / 2, *frame.shape[:2]
    ax.imshow(frame, interpolation="bilinear")
    for box, colour in ((true, _TRUE), (tracked, _TRACKED)):
        if np.isfinite(box).all():
            ax.add_patch(Rectangle(box[:2], box[2], box[3], fill=False, edgecolor=colour, linewidth=1.6))
    ax.set_xlim(max(x - side / 2, -0.5), min(x + side / 2, width - 0.5))
    ax.set_ylim(min(y + side / 2, height - 0.5), max(y - side / 2, -0.5))
    ax.set_title(f"{index + 1}", fontsize=8, pad=2, color=_TRACKED if index == one.frame else "#222222")
