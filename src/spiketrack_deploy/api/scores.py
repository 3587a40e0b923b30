"""Scoring trackers on sequences.

This module decides defaults. It must not compute a score; heavy parts are imported when the verb runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from spiketrack_deploy.api.asked import Place, as_path
from spiketrack_deploy.api.results import EvaluateResult
from spiketrack_deploy.inputs.progress import Tell


def evaluate(
    trackers: Sequence[Place],
    dataset: Place | None,
    *,
    engines: Sequence[str] = (),
    sequences: Sequence[str] = (),
    max_frames: int | None = None,
    profile: str | None = None,
    first_layer: str | None = None,
    streams: str | None = None,
    jobs: int = 1,
    threads: int = 1,
    dask: str | None = None,
    batch: int = 1,
    device: str = "cpu",
    out: Place | None = None,
    force: bool = False,
    tell: Tell | None = None,
) -> EvaluateResult:
    """One-pass evaluation of ``trackers`` on ``dataset``, a folder or zip laid out like OTB, GOT-10k or LaSOT.

    ``trackers``: models, bundles and baselines (``kcf``, ``csrt``, ``static``), each with an optional ``@engine``, and
    folders of earlier evaluations. ``dataset`` may be None where all are such folders.
    ``profile``: prices, by default loihi2, or cmos45_int8 where a dense tracker takes part; ``first_layer`` and
    ``streams``: how its chips run a program (see :func:`map`); ``batch``: sequences of a
    dense tracker that are stepped together; ``device`` of float trackers: cpu, cuda, or auto for a GPU where there is
    one. ``out``: a folder, gone on with where it holds the same evaluation already.

    Sequences that cannot be used are in the result with reasons; UsageError (2), InputError (3), EngineError (6) where
    nothing could be run.
    """
    from spiketrack_deploy.bundle.layout import ENERGY
    from spiketrack_deploy.bundle.recorded import recorded_counts
    from spiketrack_deploy.evaluation.evaluate import EvaluationRequest
    from spiketrack_deploy.evaluation.evaluate import evaluate as run

    request = EvaluationRequest(
        trackers=tuple(str(t) for t in trackers),
        dataset=as_path(dataset),
        engines=tuple(engines),
        sequences=tuple(sequences),
        max_frames=max_frames,
        profile=profile,
        first_layer=first_layer,
        streams=streams,
        jobs=jobs,
        threads=threads,
        dask=dask,
        batch=batch,
        device=device,
        out=as_path(out),
        force=force,
    )
    return cast(EvaluateResult, run(request, tell, lambda bundle: recorded_counts(bundle / ENERGY).way))


def is_evaluation(folder: Place) -> bool:
    """Whether ``folder`` holds an earlier evaluation or comparison."""
    from spiketrack_deploy.evaluation.store import is_run

    return is_run(Path(folder))
