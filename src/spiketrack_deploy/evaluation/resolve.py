"""From the names on a command line to subjects: baselines, models, bundles, and which engine runs them.

This module decides what a name means and finds out before the first frame whether it can be built. It must not run
anything on a sequence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spiketrack_deploy.energy.layers import main_phase, runs_per_result
from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.evaluation.baselines import BASELINES, baseline_version, check_baseline
from spiketrack_deploy.evaluation.store import RunFolder
from spiketrack_deploy.evaluation.subjects import BASELINE, FLOAT, PROGRAM_KIND, Subject, safe_label
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.sources import (
    DENSE_DATA,
    DENSE_ONNX,
    ModelSource,
    demand_spiking,
    find_frames,
    find_source,
    is_bundle,
    is_dense_bundle,
    program_folder,
)
from spiketrack_deploy.inputs.whole_file import file_digest
from spiketrack_deploy.inputs.whole_folder import whole_folder
from spiketrack_deploy.mapping.ways import Way, populations_of
from spiketrack_deploy.program.store import content_hash, load_program, save_program
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.trackers.opening import CPU, FLOATS, check, demand_engine, find_device
from spiketrack_deploy.trackers.settings import tracker_config

ONNX = "onnx"
ENGINES = (*FLOATS, "sim", "lava", "reference", ONNX)

Later = Callable[[], Subject]
"""A subject once the run folder is claimed: lowering a model writes its program there."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """What all names of one command have in common. ``engines``: for names without ``@engine``; none means the float
    tracker for a model and the simulator for a bundle. ``device``: cpu, cuda or auto, of float trackers;
    ``way``: how chips run the program of a bundle, or of a model (None)."""

    engines: tuple[str, ...]
    threads: int
    folder: RunFolder
    tell: Tell | None
    way: Callable[[Path | None], Way]
    device: str = "cpu"

    def plans(self, name: str) -> list[Later]:
        """One or several subjects of ``name``; UsageError, InputError or EngineError where it names nothing usable."""
        if name in BASELINES:
            check_baseline(name)
            version = baseline_version(name)
            identity = {"opencv": version} if version else {}
            return [lambda: Subject(name, BASELINE, name, BASELINE, 1, identity)]
        head, _, tail = name.rpartition("@")
        bare, asked = (head, (tail,)) if head and tail in ENGINES else (name, self.engines)
        if is_bundle(Path(bare)):
            if is_dense_bundle(Path(bare)):
                return self._dense_bundle(Path(bare), asked)
            return self._bundle(Path(bare), asked or ("sim",))
        source = find_source(bare)
        for one in asked or (FLOAT,):
            demand_engine(source.path, one)
            if one in FLOATS:
                find_device(self.device, one)
                check(source.path, one)  # a bad checkpoint is one clear error now, not one for every sequence
        return [partial(self._float if one in FLOATS else self._lowered, source, one) for one in asked or (FLOAT,)]

    def _dense_bundle(self, path: Path, engines: Sequence[str]) -> list[Later]:
        """Its exported step, in ONNX Runtime."""
        if tuple(engines) not in ((), (ONNX,)):
            demand_spiking(path)
        step, label = path / DENSE_ONNX, _label(path.resolve().name, ONNX)
        weights = path / DENSE_DATA
        identity = {"model": file_digest(step)} | ({"weights": file_digest(weights)} if weights.exists() else {})
        return [partial(Subject, label, FLOAT, str(step.resolve()), ONNX, self.threads, identity)]

    def _bundle(self, path: Path, engines: Sequence[str]) -> list[Later]:
        if set(FLOATS) & set(engines):
            raise UsageError(f"{path}: a bundle holds a program; give the model it was made from to the float engine")
        program = load_program(program_folder(path))
        identity = {"program": content_hash(program)}
        # A program's hash covers integers alone; what the host does with them is part of a result too.
        if rule := tracker_config(program, str(path)).loop.to_dict():
            identity["loop"] = json.dumps(rule, sort_keys=True)
        place = str(program_folder(path).resolve())
        label, way = path.resolve().name, self._way(program, path)
        return [
            partial(Subject, _label(label, one), PROGRAM_KIND, place, one, self.threads, identity, way=way)
            for one in engines
        ]

    def _way(self, program: Program, bundle: Path | None) -> Way:
        """UsageError now where chips cannot run the program so, not behind the last frame."""
        way = self.way(bundle)
        populations_of(program, main_phase(runs_per_result(program)), way)
        return way

    def _float(self, source: ModelSource, engine: str) -> Subject:
        device = find_device(self.device, engine)
        identity = {"model": _model_digest(source)} | ({"device": device} if device != CPU else {})
        label = _label(source.name, engine)
        return Subject(label, FLOAT, str(source.absolute), engine, self.threads, identity, device)

    def _lowered(self, source: ModelSource, engine: str) -> Subject:
        """The program lies in the run folder: every engine, every worker and every later run uses this very one."""
        digest = _model_digest(source)
        place = self.folder.program_folder(digest)
        if not place.is_dir():
            from spiketrack_deploy.frontends.compile import Options, compile

            # Calibrated as an export is by default: never on the sequences that are evaluated.
            options = Options(clip=find_frames(None, None, None), tell=self.tell)
            with whole_folder(place) as part:  # where another evaluation lowers it too the last one stays: the same
                save_program(compile(source.path, options).program, part)
        program = load_program(place)
        identity = {"model": digest, "program": content_hash(program)}
        label, way = _label(source.name, engine), self._way(program, None)
        return Subject(label, PROGRAM_KIND, str(place.resolve()), engine, self.threads, identity, way=way)


def resolve(names: Sequence[str], resolver: Resolver, claim: Callable[[], None]) -> list[Subject]:
    """Subjects of all names, each with a label of its own. ``claim`` is called once all names are known to mean
    something, before anything is written."""
    unknown = next((engine for engine in resolver.engines if engine not in ENGINES), None)
    if unknown is not None:
        raise UsageError(f"unknown engine {unknown!r}; choose from {', '.join(ENGINES)}")
    plans = [plan for name in names for plan in resolver.plans(name)]
    claim()
    subjects = [plan() for plan in plans]
    labels = [s.label for s in subjects]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise UsageError(f"two trackers are called {twice}; evaluate them apart with -o, then compare the folders")
    for subject in subjects:
        resolver.folder.claim(subject)
    return subjects


def _label(name: str, engine: str) -> str:
    return f"{safe_label(name)}@{engine}"


def _model_digest(source: ModelSource) -> str:
    from spiketrack_deploy.trackers.spiketrack.checkpoint import MODEL_FILE

    files = [file / MODEL_FILE if file.is_dir() else file for file in source.files]
    config = files[0].with_name("config.json")
    return "+".join(file_digest(file) for file in [*files, *([config] if config.is_file() else [])])
