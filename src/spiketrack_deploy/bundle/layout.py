"""The folder an export writes: how it comes into being whole or not at all, and what its manifest promises.

This module decides file names, digests and the rename. It must not know what the files mean.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiketrack_deploy.errors import InputError, UsageError, VerificationError
from spiketrack_deploy.inputs.sources import DENSE as DENSE
from spiketrack_deploy.inputs.sources import DENSE_ONNX as DENSE_ONNX
from spiketrack_deploy.inputs.sources import MANIFEST as MANIFEST
from spiketrack_deploy.inputs.sources import PROGRAM as PROGRAM
from spiketrack_deploy.inputs.sources import is_dense_bundle as is_dense_bundle
from spiketrack_deploy.inputs.untrusted import Entry, shown
from spiketrack_deploy.inputs.untrusted import read_json as read_checked
from spiketrack_deploy.inputs.whole_file import file_digest, write_whole
from spiketrack_deploy.inputs.whole_folder import whole_folder

SCHEMA = "spiketrack-bundle/1"
VECTORS, EXPECTED = "program/vectors.npz", "program/expected.json"
NIR, CUTS, ONNX = "model.nir", "model.cuts.json", "program.onnx"
ENERGY, LAYERS, PARITY = "energy.json", "layers.csv", "parity.json"
BOXES, VIDEO, REPORT, PROVENANCE = "boxes.csv", "tracked.mp4", "report.html", "provenance.json"
OUTPUTS, ANSWERS, INPUT = "outputs.npz", "answers.npz", "input.npz"
NETX = "network.net"

OUTSIDE_HASH: Mapping[str, str] = {
    PROVENANCE: "command, time, versions and durations differ between two identical runs",
    VIDEO: "the video encoder may write other bytes on another machine",
    REPORT: "its pictures depend on the machine's fonts and matplotlib",
    OUTPUTS: "holds what the floating-point network did as well, whose last digits depend on the machine",
    ANSWERS: "holds maps of the floating-point tracker, whose last digits depend on the machine",
    PARITY: "compares with the floating-point tracker, whose last digits depend on the machine and its thread count",
}
"""Files the content hash leaves out, and why; they have a SHA-256 of their own in the manifest all the same."""

AGAIN = "export the bundle again"
_DIGEST = re.compile("[0-9a-f]{64}")
_PATH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/)?[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Manifest:
    """``files``: path relative to the bundle -> SHA-256. ``program_hash``: content hash of the integer program."""

    content_hash: str
    program_hash: str
    files: Mapping[str, str]


def content_hash(files: Mapping[str, str]) -> str:
    """SHA-256 over path and digest of every file that :data:`OUTSIDE_HASH` does not name."""
    from spiketrack_deploy.program.store import canonical_json  # NumPy, which --help does without

    return hashlib.sha256(canonical_json({p: d for p, d in files.items() if p not in OUTSIDE_HASH})).hexdigest()


def write_json(path: Path, data: Any) -> None:
    """Indented, sorted, ASCII, with a final newline: the same bytes for the same data. NaN is refused."""
    write_whole(path, json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Entry:
    """A JSON file of a bundle; InputError names the file when it is missing or not JSON."""
    if not path.exists():
        raise InputError(f"{path}: file is missing; this is not a whole bundle, {AGAIN}")
    return read_checked(path, remedy=AGAIN)


def write_manifest(folder: Path, program_hash: str) -> Manifest:
    """Digest every file of ``folder`` into ``MANIFEST.json``; the last file to be written."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    files = {p.relative_to(folder).as_posix(): file_digest(p) for p in paths}
    manifest = Manifest(content_hash(files), program_hash, files)
    write_json(
        folder / MANIFEST,
        {
            "schema": SCHEMA,
            "content_hash": manifest.content_hash,
            "program_hash": program_hash,
            "files": {p: {"sha256": d, "bytes": (folder / p).stat().st_size} for p, d in files.items()},
            "outside_content_hash": {p: why for p, why in OUTSIDE_HASH.items() if p in files},
        },
    )
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle; InputError where ``folder`` is not one."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such bundle folder; make one with spiketrack-export")
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}: not a bundle, it has no {MANIFEST}; make one with spiketrack-export")
    data = read_json(folder / MANIFEST)
    data.schema(SCHEMA)
    files = {}
    for path, entry in data["files"].members():
        if not _PATH.fullmatch(path):
            raise InputError(f"{folder / MANIFEST}: names a file outside the bundle ({path}); do not trust this bundle")
        files[path] = _digest(entry["sha256"])
    return Manifest(_digest(data["content_hash"]), _digest(data["program_hash"]), files)


def _digest(entry: Entry) -> str:
    if not isinstance(entry.value, str) or not _DIGEST.fullmatch(entry.value):
        raise entry.fault("a SHA-256 in hexadecimal")
    return entry.value


def changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """Files whose bytes are not those of the manifest. InputError where one is missing."""
    for path in manifest.files:
        if not (folder / path).is_file():
            raise InputError(f"{folder / path}: file is missing; this is not a whole bundle, export it again")
    return [path for path, digest in manifest.files.items() if file_digest(folder / path) != digest]


def check_bundle(folder: Path) -> Manifest:
    """Manifest of a bundle whose every file is the one that was exported; else VerificationError naming the first."""
    manifest = read_manifest(folder)
    changed = changed_files(folder, manifest)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise VerificationError(
            f"{folder / changed[0]}{more}: not the file that was exported (its SHA-256 differs); export again"
        )
    if content_hash(manifest.files) != manifest.content_hash:
        raise VerificationError(f"{folder / MANIFEST}: the content hash does not follow from the files; export again")
    return manifest


def check_output(out: Path, force: bool, marker: str = MANIFEST) -> None:
    """UsageError unless ``out`` may be written; called before any work is done.

    With ``force`` an earlier result (a folder that holds ``marker``) may be replaced, but never a folder that is
    something else, because replacing deletes it.
    """
    here = Path.cwd().resolve()
    try:
        place = out.resolve()
        str(place).encode("utf-8")  # encoders of video take no other names
        if any(path.is_symlink() for path in (place, *place.parents)):
            raise RuntimeError  # what a circle of links gives before Python 3.13
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its links run in a circle"
        raise UsageError(f"{out}: cannot be a place to write ({reason}); choose another with -o") from None
    except UnicodeEncodeError:
        raise UsageError(f"{shown(str(out))}: lies at a path that is no UTF-8; choose another with -o") from None
    if place == here or place in here.parents:
        raise UsageError(
            f"{out}: a result replaces its whole folder, so that cannot be the current one or one above; give -o NEW"
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file, the output must be a folder; choose another with -o")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not force:
        raise UsageError(
            f"{out}: exists and is not empty; choose another folder with -o, or --force to replace an earlier result"
        )
    if not (out / marker).is_file():
        raise UsageError(
            f"{out}: holds no earlier result ({marker}), so --force does not delete it; choose another folder with -o"
        )


@contextmanager
def staging(out: Path, force: bool, marker: str = MANIFEST) -> Iterator[Path]:
    """A temporary sibling of ``out`` that becomes ``out`` when the block ends well and disappears when it does not.

    Putting it there is the last step, so ``out`` is either the old bundle or the whole new one, never a mixture. Raises
    UsageError (see :func:`check_output`) before anything is written, InputError where the place cannot be written.
    """
    check_output(out, force, marker)
    with whole_folder(out) as folder:
        yield folder
        check_output(out, force, marker)  # somebody else may have written there in the meantime
