"""The run folder: finished sequences as files that survive whatever comes next.

    run.json                               data set the folder belongs to
    trackers/LABEL/tracker.json            what the label's results belong to
    trackers/LABEL/sequences/NAME.json     one record a finished sequence: the truth, floats in full
    programs/DIGEST/                       program lowered from the model with this digest
    failures/LABEL.png                     strips of frames where the tracker lost its target
    got10k/LABEL/NAME/NAME_001.txt         for the got10k toolkit: comma, 3 decimals; NAME_time.txt: seconds
    pytracking/LABEL/NAME.txt              for pytracking and its kin: tab, whole pixels; NAME_time.txt: seconds

This module decides names, formats, and that a file is whole or absent. It must not know scores.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spiketrack_deploy.datasets.sequences import Dataset, VideoSequence
from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.evaluation.run import Record
from spiketrack_deploy.evaluation.subjects import Subject
from spiketrack_deploy.inputs.sources import WEIGHTS
from spiketrack_deploy.inputs.whole_file import write_whole

SCHEMA = "spiketrack-evaluation/3"
RUN, RESULTS, SPEED, TABLE = "run.json", "results.json", "speed.json", "table.csv"
_REMEDY = "choose another folder with -o, or --force to start anew"
OWN = (RUN, RESULTS, SPEED, TABLE, "trackers", "programs", "got10k", "pytracking", "failures")


def json_text(data: Any) -> str:
    """Indented JSON with a final newline: the same bytes for the same data; NaN is refused."""
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


class RunFolder:
    """Results of one data set; labels are trackers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, dataset: Dataset, force: bool) -> None:
        """Claim the folder for ``dataset``: new, or to go on with.

        UsageError where it holds something else; with ``force`` an earlier evaluation in it is removed first.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path}: is a file, the output must be a folder; choose another with -o")
        run = self.path / RUN
        # Hidden names are of files that another evaluation is about to put into place.
        others = self.path.is_dir() and any(p.name[0] != "." for p in self.path.iterdir())
        if others and not run.is_file():
            raise UsageError(f"{self.path}: is not empty and holds no evaluation; choose another folder with -o")
        if run.is_file() and force:
            self._remove()
        claim = {"schema": SCHEMA, "dataset": dataset.name, "digest": dataset.digest}
        found = _read(run) if run.is_file() else claim
        if isinstance(found, dict) and found.get("schema") != SCHEMA:
            raise UsageError(f"{self.path}: holds an evaluation of another version (it is no {SCHEMA}); {_REMEDY}")
        if found != claim:
            raise UsageError(f"{self.path}: holds results of other sequences than {dataset.path} gives now; {_REMEDY}")
        if not run.is_file():
            write_whole(run, json_text(claim))

    def _remove(self) -> None:
        for name in OWN:
            place = self.path / name
            try:
                shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(
                    f"{place}: cannot be removed ({error.strerror}); choose another folder with -o"
                ) from None

    def claim(self, subject: Subject) -> None:
        """Claim a label; UsageError where it holds results of another tracker (other weights, program or OpenCV)."""
        file = self.tracker_folder(subject.label) / "tracker.json"
        identity = {"kind": subject.kind, "engine": subject.engine, **subject.identity}
        found = self.identity(subject.label)
        if found is not None and found != identity:
            differing = next(k for k in {*found, *identity} if found.get(k) != identity.get(k))
            raise UsageError(
                f"{file.parent}: holds results of another {subject.label} (its {differing} differs); {_REMEDY}"
            )
        if found is None:
            write_whole(file, json_text(identity))

    def identity(self, label: str) -> Mapping[str, str] | None:
        """What a label's results belong to, None where there are none."""
        file = self.tracker_folder(label) / "tracker.json"
        found = _read(file) if file.is_file() else None
        return found if isinstance(found, dict) else None

    def tracker_folder(self, label: str) -> Path:
        """Everything that belongs to one label."""
        return self.path / "trackers" / label

    def program_folder(self, digest: str) -> Path:
        """Where the program lowered from the model with this digest lies."""
        return self.path / "programs" / digest[:16]

    def _record_file(self, label: str, sequence: str) -> Path:
        return self.tracker_folder(label) / "sequences" / f"{sequence}.json"

    def record(self, label: str, sequence: VideoSequence) -> Record | None:
        """The record of a finished sequence; None where it is absent, damaged or of another length."""
        file = self._record_file(label, sequence.name)
        if not file.is_file():
            return None
        try:
            record = Record.from_dict(_read(file))
        except InputError:
            return None
        return record if len(record.boxes) == len(sequence.frames) else None

    def add(self, label: str, record: Record) -> None:
        """Write the exchange formats, then the record: a sequence with a record is finished."""
        name = record.sequence
        times = "".join(f"{t:.8f}\n" for t in record.seconds)
        comma = "".join(",".join(f"{v:.3f}" for v in box) + "\n" for box in record.boxes)
        whole = "".join("\t".join(_integer(v) for v in box) + "\n" for box in record.boxes)
        got10k, pytracking = self.path / "got10k" / label / name, self.path / "pytracking" / label
        write_whole(got10k / f"{name}_001.txt", comma)
        write_whole(got10k / f"{name}_time.txt", times)
        write_whole(pytracking / f"{name}.txt", whole)
        write_whole(pytracking / f"{name}_time.txt", times)
        write_whole(self._record_file(label, name), json.dumps(record.to_dict(), allow_nan=False) + "\n")


def _integer(value: float) -> str:
    """``%d`` as pytracking writes it: towards zero. A box that is not finite stays visible."""
    return str(int(value)) if abs(value) < 1e15 else "nan"


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read ({error}); remove it, or start anew with --force") from None


def read_results(path: Path) -> dict[str, Any]:
    """``results.json`` of a run folder (or that file itself); InputError where it is none."""
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path}: holds no {RESULTS}; give the folder of a finished spiketrack evaluate")
    data = _read(file)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA or not isinstance(data.get("trackers"), dict):
        raise InputError(f"{file}: is no {SCHEMA} file; evaluate again with this version")
    return data


def read_speed(path: Path) -> dict[str, Any]:
    """``speed.json`` beside the results, empty where there is none: what a clock measured is not part of a result."""
    file = (path if path.is_dir() else path.parent) / SPEED
    data = _read(file) if file.is_file() else {}
    return data if isinstance(data, dict) else {}


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run folder or a results file; a training's run folder, a model, is none."""
    begun = (path / RUN).is_file() and not (path / WEIGHTS).is_file()
    return (path / RESULTS).is_file() or begun or path.name == RESULTS


def write_table(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A comma-separated table; text with commas is quoted."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([head, *rows])
    write_whole(path, text.getvalue())
