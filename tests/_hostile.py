"""Bundles changed by somebody who recomputes every digest, and the command run inside the test's own process."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spiketrack_deploy.bundle import layout
from spiketrack_deploy.cli.commands import group
from spiketrack_deploy.cli.main import run
from spiketrack_deploy.errors import InputError

PROGRAM, EXPECTED = "program/program.json", "program/expected.json"
ARRAYS, VECTORS = "program/arrays.npz", "program/vectors.npz"


def ended(folder: Path, *args: object) -> tuple[int, str]:
    """Exit code and standard error of ``spiketrack ARGS`` in ``folder``, without the second a new process takes."""
    signals = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    hook, here, said = sys.unraisablehook, Path.cwd(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = run(group, "spiketrack", [str(a) for a in args])
    finally:
        os.chdir(here)
        sys.unraisablehook = hook
        for number, handler in signals.items():
            signal.signal(number, handler)
    return code, said.getvalue().strip()


def refused(folder: Path, words: tuple[str, ...], *args: object, code: int = 3) -> None:
    """The command must end with ``code`` and one sentence that holds ``words``."""
    found, sentence = ended(folder, *args)
    assert found == code, f"exit code {found} instead of {code}: {sentence}"
    assert sentence.startswith("error: ") and "\n" not in sentence, f"not one sentence: {sentence!r}"
    missing = [word for word in words if word not in sentence]
    assert not missing, f"{missing} not in {sentence!r}"


def one_sentence(read: Callable[[], object], *words: str) -> None:
    """``read`` must raise what ends a command with exit code 3, in one sentence that holds ``words``."""
    with pytest.raises(InputError) as caught:
        read()
    sentence = str(caught.value)
    assert caught.value.exit_code == 3 and "\n" not in sentence, f"not one sentence: {sentence!r}"
    missing = [word for word in words if word not in sentence]
    assert not missing, f"{missing} not in {sentence!r}"


def program_hash(data: Any) -> str:
    """As a program is hashed; written again here, because what is changed may not be readable."""

    def hashed(value: Any) -> Any:
        beside = ("schema", "meta", "cadence", "block", "scale")
        if isinstance(value, dict):
            return {key: hashed(item) for key, item in value.items() if key not in beside}
        return [hashed(item) for item in value] if isinstance(value, list) else value

    return hashlib.sha256(json.dumps(hashed(data), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sign(bundle: Path) -> None:
    """Make every digest of the bundle fit what is there now."""
    digest = "0" * 64
    with contextlib.suppress(ValueError, RecursionError):
        digest = program_hash(json.loads((bundle / PROGRAM).read_text()))
    with contextlib.suppress(ValueError, RecursionError, TypeError):
        expected = json.loads((bundle / EXPECTED).read_text())
        (bundle / EXPECTED).write_text(json.dumps(expected | {"program": digest}, allow_nan=False), encoding="utf-8")
    layout.write_manifest(bundle, digest)


def change(bundle: Path, name: str, edit: Callable[[Any], object]) -> None:
    """Apply ``edit`` to the data of a JSON file and sign the bundle again."""
    data = json.loads((bundle / name).read_text())
    edit(data)
    (bundle / name).write_text(json.dumps(data), encoding="utf-8")
    sign(bundle)


def overwrite(bundle: Path, name: str, content: str | bytes) -> None:
    """Replace a whole file and sign the bundle again."""
    (bundle / name).write_bytes(content.encode() if isinstance(content, str) else content)
    sign(bundle)


def repack(
    bundle: Path, name: str, edit: Callable[[dict[str, bytes]], object], method: int = zipfile.ZIP_STORED
) -> None:
    """Apply ``edit`` to the members of an archive and sign the bundle again."""
    with zipfile.ZipFile(bundle / name) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    edit(members)
    with zipfile.ZipFile(bundle / name, "w", method) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    sign(bundle)


def npy(header: str, data: bytes = b"") -> bytes:
    """A file of NumPy's format with any header."""
    return b"\x93NUMPY\x02\x00" + len(header + "\n").to_bytes(4, "little") + header.encode() + b"\n" + data
