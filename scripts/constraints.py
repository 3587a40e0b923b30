"""Writes constraints/: versions known to be good, from which scripts/env.sh installs.

    python scripts/constraints.py              of this Python: what is installed beside it; run the suite with it first
    python scripts/constraints.py 3.12 3.13    of other Pythons: resolved by uv as near to this one's as wheels allow
    python scripts/constraints.py --lava PY    of the Lava environment whose interpreter is PY

Only what the package needs is listed (dependencies and the extras dev and dask, theirs included). Local suffixes such
as +cpu, which exist on one index only, and the CUDA packages of a PyTorch build are left out: the wheel decides there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "constraints"
EXTRAS = ("dev", "dask")
_LEFT_TO_THE_WHEEL = re.compile(r"(nvidia-|cuda-|triton\b)")
Pins = dict[str, str]


def declared() -> list[Requirement]:
    """What pyproject.toml asks for, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *(t for e in EXTRAS for t in project["optional-dependencies"][e])]
    return [Requirement(text) for text in texts]


def installed() -> Pins:
    """Versions beside this interpreter of everything that is needed, however far down."""
    pins: Pins = {}
    left = declared()
    while left:
        wanted = left.pop()
        name = canonicalize_name(wanted.name)
        if name in pins or _LEFT_TO_THE_WHEEL.match(name):
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = importlib.metadata.distribution(name)
        pins[name] = found.version.partition("+")[0]
        for text in found.requires or ():
            below = Requirement(text)
            extras = ["", *wanted.extras]
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in extras):
                left.append(below)
    return pins


def resolved(version: str) -> Pins:
    """Versions for another Python; uv keeps the pins that its output file already holds where they still do."""
    near = FOLDER / f"py{sys.version_info[0]}.{sys.version_info[1]}.txt"
    file = FOLDER / f"py{version}.txt"
    file.write_text(near.read_text(encoding="utf-8"), encoding="utf-8")
    options = [*(o for e in EXTRAS for o in ("--extra", e)), "--no-header", "--no-annotate"]
    place = ["--python-version", version, "--python-platform", "x86_64-manylinux_2_28", "-o", str(file)]
    subprocess.run(["uv", "pip", "compile", "-q", "pyproject.toml", *options, *place], cwd=ROOT, check=True)
    return _read(file)


def _read(file: Path) -> Pins:
    lines = (line.split("==") for line in file.read_text(encoding="utf-8").splitlines() if "==" in line)
    return {name: pin for name, pin in lines if not _LEFT_TO_THE_WHEEL.match(name)}


def of_lava(python: str) -> Pins:
    """Versions in the environment of the Lava engine's child process."""
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True)
    pins = {canonicalize_name(x["name"]): x["version"] for x in json.loads(listed.stdout)}
    return {name: pin for name, pin in pins.items() if name not in ("pip", "setuptools", "wheel")}


def write(name: str, pins: Pins, how: str) -> None:
    """One file, sorted."""
    lines = [f"# {how}; written by scripts/constraints.py", *(f"{n}=={pins[n]}" for n in sorted(pins))]
    (FOLDER / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("versions", nargs="*", metavar="X.Y")
    parser.add_argument("--lava", metavar="PY")
    asked = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if asked.lava:
        version = subprocess.run([asked.lava, "-V"], check=True, capture_output=True, text=True).stdout.split()[1]
        name = ".".join(version.split(".")[:2])
        write(f"lava-py{name}.txt", of_lava(asked.lava), f"Python {name}: the tests of the Lava engine ran with these")
    elif not asked.versions:
        write(f"py{here}.txt", installed(), f"Python {here}: the default suite ran with these")
    for version in asked.versions:
        write(f"py{version}.txt", resolved(version), f"Python {version}: resolved from those of {here}, not run")


if __name__ == "__main__":
    main()
