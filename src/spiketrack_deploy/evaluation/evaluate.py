"""The verb: which trackers on which sequences, run what is missing, write results, tables and pictures.

This module decides the order of work and what ends a run. It must not compute a score nor draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from spiketrack_deploy.datasets.sequences import Dataset, open_dataset
from spiketrack_deploy.errors import EngineError, InputError, UsageError
from spiketrack_deploy.evaluation import store
from spiketrack_deploy.evaluation.cluster import check_cluster, run_cluster
from spiketrack_deploy.evaluation.cost import Layers
from spiketrack_deploy.evaluation.metrics import SCORES
from spiketrack_deploy.evaluation.pool import Done, run_here, run_processes
from spiketrack_deploy.evaluation.resolve import Resolver, resolve
from spiketrack_deploy.evaluation.run import EXIT_BUG, Failure, Record, Task
from spiketrack_deploy.evaluation.strips import draw_strips
from spiketrack_deploy.evaluation.subjects import FLOAT, FRAME, PROGRAM_KIND, Subject, safe_label
from spiketrack_deploy.evaluation.summary import Findings, speed, summarise, with_differences
from spiketrack_deploy.evaluation.together import run_together
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.mapping.ways import DEFAULT_WAY, Way, way_on
from spiketrack_deploy.program.types import Program

DEFAULT_PROFILE, DENSE_PROFILE = "loihi2", "cmos45_int8"
"""Prices where none are named: a chip's, or where a dense tracker takes part, which no chip of spikes runs, a
convention that prices both kinds, at the same number of bits."""


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What ``spiketrack evaluate`` is asked.

    ``trackers``: models, bundles, baselines (``kcf``, ``csrt``, ``static``), each with an optional ``@engine``, and
    folders of earlier evaluations; ``engines``: for those without ``@``. ``dataset`` may be None where all are earlier
    evaluations. ``sequences``: only these; ``max_frames``: of each. ``jobs`` processes with ``threads`` threads each,
    or a Dask cluster at ``dask``, or up to ``batch`` sequences of a dense tracker in one pass of this process.
    ``profile``: prices, by default :data:`DEFAULT_PROFILE` or :data:`DENSE_PROFILE`; ``first_layer`` and
    ``streams``: how its chips run programs (``mapping.ways``), by default as a bundle was exported. ``device`` of
    float trackers: cpu, cuda, or auto for a GPU where there is one. ``out``: a folder, gone on with where it holds the
    same evaluation already.
    """

    trackers: tuple[str, ...]
    dataset: Path | None
    engines: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()
    max_frames: int | None = None
    profile: str | None = None
    first_layer: str | None = None
    streams: str | None = None
    jobs: int = 1
    threads: int = 1
    dask: str | None = None
    batch: int = 1
    device: str = "cpu"
    out: Path | None = None
    force: bool = False


def evaluate(
    request: EvaluationRequest, tell: Tell | None = None, recorded: Callable[[Path], Way] = lambda bundle: DEFAULT_WAY
) -> dict[str, Any]:
    """Run, score, write; returns the results (``results.json``) with ``speed``, ``output``, ``pictures`` and
    ``exit_code``: 0, or that of the sequences that failed (they are in the results, with reasons). ``recorded``: how
    the chips of a bundle run its program.

    Raises UsageError (2), InputError (3), EngineError (6) before or instead of running; what is finished stays.
    """
    asked = resolve_target(request.profile) if request.profile is not None else None
    earlier = [name for name in request.trackers if store.is_run(Path(name))]
    fresh = [name for name in request.trackers if name not in earlier]
    if fresh and request.dataset is None:
        raise UsageError(f"{fresh[0]}: is no folder of an earlier evaluation, so say on which DATASET to evaluate it")
    if request.dataset is None:
        results, times = _merged([_earlier(name) for name in earlier])
        return _finish(results, times, _free(_output(request, "compare"), request.force), [])
    if request.dask is not None and request.jobs > 1:
        raise UsageError("--dask and --jobs were both given; on a cluster the number of its workers counts")
    if request.batch > 1 and (request.jobs > 1 or request.dask is not None):
        raise UsageError("--batch steps sequences together in one process; leave --jobs and --dask out")
    dataset = _dataset(request, request.dataset)
    if request.dask is not None:
        check_cluster(request.dask)
    first = safe_label(Path(fresh[0]).name) if len(fresh) == 1 else "compare"
    folder = store.RunFolder(_output(request, f"evaluate-{safe_label(dataset.name)}-{first}"))
    profile = (asked or resolve_target(DEFAULT_PROFILE)).profile
    asked_way = partial(way_on, profile, request.first_layer, request.streams)
    asked_way()  # a profile without chips is refused before anything is written

    def way(bundle: Path | None) -> Way:
        return asked_way() if bundle is None else asked_way(recorded(bundle))

    resolver = Resolver(request.engines, request.threads, folder, tell, way, request.device)
    subjects = resolve(fresh, resolver, lambda: folder.open(dataset, request.force))
    ledger = _Ledger(folder, subjects, dataset, tell)
    if ledger.tasks:
        _dispatch(request, ledger.tasks, ledger.done)
    findings = [ledger.findings(subject) for subject in subjects]
    dense = any(found.layers is not None for found in findings)
    target = asked or resolve_target(DENSE_PROFILE if dense else DEFAULT_PROFILE)
    own = (summarise(dataset, findings, target), speed(findings))
    results, times = _merged([own, *(_earlier(name) for name in earlier)])
    strips = draw_strips(dataset, findings, folder.path)
    return _finish(results, times, folder.path, [f for found in findings for f in found.failures], strips)


def _output(request: EvaluationRequest, name: str) -> Path:
    return request.out or Path("export") / name


def _free(out: Path, force: bool) -> Path:
    """A folder for a comparison alone: empty, or one that holds an earlier comparison and may be replaced."""
    if out.is_dir() and any(out.iterdir()):
        if (out / store.RUN).exists() or not (out / store.RESULTS).is_file():
            raise UsageError(f"{out}: is not empty and holds no comparison; choose another folder with -o")
        if not force:
            raise UsageError(f"{out}: holds an earlier comparison; choose another folder with -o, or --force")
    return out


def _dataset(request: EvaluationRequest, path: Path) -> Dataset:
    dataset = open_dataset(path.absolute())
    if request.sequences:
        dataset = dataset.chosen(request.sequences)
    return replace(dataset, sequences=tuple(s.first(request.max_frames) for s in dataset.sequences))


class _Ledger:
    """What is finished and what is left. Records are written as they arrive, so that an end at any point loses only
    the sequences that are being tracked."""

    def __init__(
        self, folder: store.RunFolder, subjects: Sequence[Subject], dataset: Dataset, tell: Tell | None
    ) -> None:
        self._folder, self._dataset, self._tell = folder, dataset, tell
        self._records: dict[str, dict[str, Record]] = {s.label: {} for s in subjects}
        self._failures: dict[str, list[Failure]] = {s.label: [] for s in subjects}
        self.tasks: list[Task] = []
        for subject in subjects:
            for sequence in dataset.sequences:
                record = folder.record(subject.label, sequence)
                if record is None:
                    self.tasks.append(Task(subject, sequence))
                else:
                    self._records[subject.label][sequence.name] = record
        self._total = len(subjects) * len(dataset.sequences)
        self._finished = self._total - len(self.tasks)

    def done(self, index: int, outcome: Record | Failure) -> None:
        """Keep the outcome of one task."""
        label = self.tasks[index].subject.label
        if isinstance(outcome, Failure):
            self._failures[label].append(outcome)
        else:
            self._folder.add(label, outcome)
            self._records[label][outcome.sequence] = outcome
        self._finished += 1
        if self._tell:
            self._tell(f"{label} {outcome.sequence}", self._finished, self._total)

    def findings(self, subject: Subject) -> Findings:
        """Everything of one subject in the order of the data set: in which order it finished must not show."""
        names = {s.name: order for order, s in enumerate(self._dataset.sequences)}
        records = self._records[subject.label]
        failures = sorted(self._failures[subject.label], key=lambda f: names[f.sequence])
        found = {n: records[n] for n in names if n in records}
        return Findings(subject, found, failures, _program(subject), _layers(subject))


def _dispatch(request: EvaluationRequest, tasks: Sequence[Task], done: Done) -> None:
    if request.dask is not None:
        run_cluster(tasks, request.dask, done)
    elif request.batch > 1:
        run_together(tasks, request.batch, done)
    elif request.jobs > 1:
        run_processes(tasks, request.jobs, done)
    else:
        run_here(tasks, done)


def _layers(subject: Subject) -> Layers | None:
    if subject.kind != FLOAT:
        return None
    from spiketrack_deploy.trackers.opening import frame_layers

    layers = frame_layers(Path(subject.source), checked=False)  # it was checked when it was resolved
    return {FRAME: [(layer.name, layer.kind, layer.block) for layer in layers]} if layers else None


def _program(subject: Subject) -> Program | None:
    from spiketrack_deploy.program.store import load_program

    return load_program(Path(subject.source)) if subject.kind == PROGRAM_KIND else None


Scored = tuple[dict[str, Any], Mapping[str, Any]]
"""Results and, by label, speeds."""


def _earlier(name: str) -> Scored:
    path = Path(name)
    results = store.read_results(path)
    trackers = {label: {**tracker, "from": str(path)} for label, tracker in results["trackers"].items()}
    return {**results, "trackers": trackers}, store.read_speed(path)


def _merged(scored: Sequence[Scored]) -> Scored:
    """One set of results out of several of the same sequences; a label that recurs gets the name of its folder."""
    first = scored[0][0]
    if len(scored) == 1:
        return scored[0]
    trackers: dict[str, Any] = {}
    times: dict[str, Any] = {}
    for results, speeds in scored:
        if results["dataset"]["digest"] != first["dataset"]["digest"]:
            place = next((t["from"] for t in results["trackers"].values() if "from" in t), "one of them")
            raise InputError(
                f"{place}: was evaluated on {_data(results)}, the first one on {_data(first)}; nothing compares"
            )
        for label, tracker in results["trackers"].items():
            unique = label if label not in trackers else f"{label} ({Path(tracker.get('from', 'again')).name})"
            if unique in trackers:
                raise UsageError(f"{unique} occurs twice; give each evaluation once")
            trackers[unique] = tracker
            if label in speeds:
                times[unique] = speeds[label]
    return {**first, "trackers": with_differences(trackers)}, times


def _data(results: Mapping[str, Any]) -> str:
    data = results["dataset"]
    return f"{data['name']} ({len(data['sequences'])} sequences, {data['frames']} frames, {data['digest'][:8]})"


def _finish(
    results: dict[str, Any],
    times: Mapping[str, Any],
    out: Path,
    failures: Sequence[Failure],
    strips: Sequence[str] = (),
) -> dict[str, Any]:
    from spiketrack_deploy.evaluation.plots import draw_all

    write_whole(out / store.RESULTS, store.json_text(results))
    store.write_table(out / store.TABLE, *table(results, times))
    if times:
        write_whole(out / store.SPEED, store.json_text(times))
    pictures = [*draw_all(results["trackers"], out), *strips]
    return {
        **results,
        "speed": times,
        "output": str(out),
        "pictures": pictures,
        "exit_code": _exit_code(results, failures),
    }


def _exit_code(results: Mapping[str, Any], failures: Sequence[Failure]) -> int:
    """0 where everything asked for is there; else the worst there was, unusable input counting least."""
    codes = {f.exit_code for f in failures}
    if results["dataset"]["problems"]:
        codes.add(InputError.exit_code)
    known = [c for c in (EXIT_BUG, EngineError.exit_code) if c in codes] or sorted(codes, reverse=True)
    return known[0] if known else 0


def table(results: Mapping[str, Any], times: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Head and one row a tracker: every mean with its interval, energy with its band, frames per second."""
    head = ["tracker", "engine", "sequences", "failed", *(x for s in SCORES for x in (s, f"{s}_low", f"{s}_high"))]
    head += ["energy_nj", "energy_low_nj", "energy_high_nj", "synops_per_frame", "fps"]
    rows = []
    for label, tracker in results["trackers"].items():
        mean, energy = tracker["mean"], tracker["energy"]
        row: list[Any] = [label, tracker["engine"], len(tracker["sequences"]), len(tracker["failed"])]
        row += [mean[s][k] if mean else "" for s in SCORES for k in ("mean", "low", "high")]
        row += (
            [energy["per_frame_nj"][k] for k in ("nominal", "low", "high")]
            + [energy["phases"][energy["main"]]["counts"].get("synops", 0)]
            if energy
            else [""] * 4
        )
        rows.append([*row, times.get(label, {}).get("fps_mean") or ""])
    return head, rows
