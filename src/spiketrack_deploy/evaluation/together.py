"""Several sequences of one tracker stepped together: a network that takes a batch of crops gets one of each.

This module decides which sequences share a pass; one that ends makes room for the next. It must not know scores, files
of results, or what a network computes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import groupby
from time import perf_counter
from typing import Any

from spiketrack_deploy.datasets.files import open_tree
from spiketrack_deploy.evaluation.pool import Done
from spiketrack_deploy.evaluation.run import Book, Record, Task, attempt, failed
from spiketrack_deploy.evaluation.subjects import FRAME, Workshop, open_network
from spiketrack_deploy.evaluation.tally import Tally
from spiketrack_deploy.tracking.reference_loop import BoxMaps, ReferenceTracker

Lane = Generator[Any, tuple[BoxMaps, float], Record]
"""One sequence on its way: yields what its next frame has to be searched with, is sent maps and seconds."""


def run_together(tasks: Sequence[Task], batch: int, done: Done) -> None:
    """All tasks in this process, up to ``batch`` sequences of a tracker in one pass where its network takes several
    crops; of any other tracker one after the other."""
    with Workshop() as workshop:
        for subject, group in groupby(enumerate(tasks), key=lambda item: item[1].subject):
            work = list(group)
            opened = open_network(subject) if len(work) > 1 else None
            if opened is None or not hasattr(opened.network, "search_many"):
                for index, task in work:
                    done(index, attempt(task, workshop))
            else:
                _step_all(work, batch, opened, done)


def _step_all(work: Sequence[tuple[int, Task]], batch: int, opened: Any, done: Done) -> None:
    waiting, lanes, asked = list(reversed(work)), dict[int, tuple[Task, Lane]](), dict[int, Any]()

    def advance(index: int, task: Task, lane: Lane, given: tuple[BoxMaps, float] | None) -> None:
        try:
            asked[index] = lane.send(given)  # type: ignore[arg-type]
            lanes[index] = task, lane
        except StopIteration as end:
            asked.pop(index, None), lanes.pop(index, None)
            done(index, end.value)
        except Exception as error:  # noqa: BLE001 - one sequence, whatever breaks it, must not end a run of hours
            asked.pop(index, None), lanes.pop(index, None)
            done(index, failed(task, error))

    while waiting or lanes:
        while waiting and len(lanes) < batch:
            index, task = waiting.pop()
            advance(index, task, _lane(task, opened), None)
        indices, begin = list(lanes), perf_counter()
        if not indices:
            continue
        try:
            maps = opened.network.search_many([asked[index] for index in indices])
        except Exception as error:  # noqa: BLE001 - as above; a pass is of all its sequences
            for index in indices:
                done(index, failed(lanes.pop(index)[0], error))
            continue
        each = (perf_counter() - begin) / len(indices)
        for index, made in zip(indices, maps, strict=True):
            advance(index, *lanes[index], (made, each))


def _lane(task: Task, opened: Any) -> Lane:
    """As :func:`~spiketrack_deploy.evaluation.run.track_sequence`, but for the network's pass, which is others' too: a
    frame is charged an equal share of its time, and embedding a reference counts as cropping it."""
    tracker, sequence = ReferenceTracker(opened.network), task.sequence
    tally = Tally() if opened.counts is not None else None
    with open_tree(sequence.root, listed=False) as tree:
        frame, (x, y, w, h), begin = tree.image(sequence.frames[0]), sequence.boxes[0].tolist(), perf_counter()
        tracker.init(frame, (x, y, w, h))
        book = Book(sequence, perf_counter() - begin)
        for name in sequence.frames[1:]:
            frame, begin = tree.image(name), perf_counter()
            asked = tracker.ask(frame)
            crop = perf_counter() - begin
            maps, network = yield asked
            begin = perf_counter()
            tracked = tracker.take(maps)
            book.add(tracked, crop, network, crop + network + perf_counter() - begin)
            if tally is not None:
                tally.frames += 1
                tally.add_run(FRAME, opened.counts)
    return book.record(tally)
