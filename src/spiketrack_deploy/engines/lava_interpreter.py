"""Which Python runs Lava.

This module decides the search order and the sentence for who has none. It must not start anything. lava-nc 0.10.0, the
last release, declares Python 3.10 only, so Lava lives in an environment of its own.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from spiketrack_deploy.errors import EngineError

VARIABLE = "SPIKETRACK_LAVA_PYTHON"
FOLDER = ".venv-lava"
MISSING = (
    "the Lava engine needs a Python that can import lava (lava-nc 0.10.0) and none was found: run `make env-lava` "
    f"(Python 3.10), or set {VARIABLE} to such an interpreter; every other engine works without it"
)


def _candidates() -> list[Path]:
    checkout = Path(__file__).resolve().parents[3]
    places = [checkout, Path.cwd(), Path(sys.prefix).resolve().parent]
    return [place / FOLDER / "bin" / "python" for place in dict.fromkeys(places)]


def _here() -> bool:
    try:
        return importlib.util.find_spec("lava.magma") is not None
    except ImportError:
        return False


def lava_python(python: str | os.PathLike[str] | None = None) -> Path:
    """The interpreter of the Lava worker; it is only known to exist, not to work.

    Order: ``python``, ``$SPIKETRACK_LAVA_PYTHON``, ``.venv-lava`` of the checkout, of the current folder, or beside the
    running environment, else the running interpreter if it has lava. EngineError: none, or the named one is no program.
    """
    for origin, named in (("python", python), (VARIABLE, os.environ.get(VARIABLE))):
        if named:
            if not os.access(named, os.X_OK) or Path(named).is_dir():
                raise EngineError(f"{origin} names {named}, which is no interpreter; name a Python 3.10 with lava-nc")
            # Not resolved: a virtual environment is known by the path of its link.
            return Path(named).absolute()
    for place in _candidates():
        if os.access(place, os.X_OK):
            return place
    if _here():
        return Path(sys.executable)
    raise EngineError(MISSING)
