"""What runs on this machine, and how to get what does not.

This module decides which checks are made. It must not import what it checks for: versions come from package metadata,
the Lava interpreter is asked in a child process.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from spiketrack_deploy import __version__
from spiketrack_deploy.engines.lava_interpreter import lava_python
from spiketrack_deploy.errors import EngineError
from spiketrack_deploy.inputs.resources import clip_names, model_names, profile_names
from spiketrack_deploy.inputs.versions import versions

SUPPORTED = ((3, 10), (3, 13))
_NEEDED_BY = {"reference": ("numpy",), "sim": ("numpy", "torch"), "onnx": ("numpy", "onnx", "onnxruntime")}
_PIP = {"reference": "pip install numpy", "sim": "pip install torch", "onnx": "pip install onnx onnxruntime"}
LAVA_HELP = (
    "make env-lava (lava-nc 0.10.0 wants Python 3.10), or set SPIKETRACK_LAVA_PYTHON to an interpreter that has lava-nc"
)
_ASK_LAVA = "import importlib.metadata as m, sys; print('%d.%d.%d' % sys.version_info[:3], m.version('lava-nc'))"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor: what, whether it is there, what was found, and how to get it where it is not."""

    what: str
    ok: bool
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"what": self.what, "ok": self.ok, "found": self.found, "remedy": self.remedy}


def lava_check(timeout: float = 20.0) -> Check:
    """Whether the interpreter that the Lava engine would use has lava-nc."""
    try:
        python = lava_python()
        answer = subprocess.run(
            [str(python), "-c", _ASK_LAVA], capture_output=True, text=True, timeout=timeout, check=False
        )
    except EngineError as error:
        return Check("engine lava", False, "no interpreter", str(error))
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("engine lava", False, f"{python} does not answer ({error})", LAVA_HELP)
    if answer.returncode:
        return Check("engine lava", False, f"{python} has no lava-nc", LAVA_HELP)
    version, lava = answer.stdout.split()
    return Check("engine lava", True, f"lava-nc {lava} on Python {version} ({python})")


def checks() -> list[Check]:
    """Python, packages, engines, bundled data."""
    found = versions()
    low, high = SUPPORTED
    here = sys.version_info[:2]
    result = [
        Check(
            "python",
            low <= here <= high,
            platform.python_version(),
            "" if low <= here <= high else "use Python 3.10 to 3.13",
        )
    ]
    result += [
        Check(name, v is not None, v or "absent", "" if v else f"pip install {name}") for name, v in found.items()
    ]
    for engine, needs in _NEEDED_BY.items():
        lacking = [n for n in needs if found.get(n) is None]
        result.append(
            Check(
                f"engine {engine}",
                not lacking,
                f"lacks {', '.join(lacking)}" if lacking else "runs here",
                _PIP[engine] if lacking else "",
            )
        )
    result.append(lava_check())
    for what, names in (("models", model_names()), ("clips", clip_names()), ("profiles", profile_names())):
        result.append(
            Check(
                f"bundled {what}", bool(names), ", ".join(names) or "none", "" if names else "install the package again"
            )
        )
    return result


def report() -> dict[str, Any]:
    """``{"version", "platform", "checks": [...], "ok"}``; ``ok``: all but the optional Lava engine is there."""
    listed = checks()
    return {
        "version": __version__,
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "checks": [c.to_dict() for c in listed],
        "ok": all(c.ok for c in listed if c.what != "engine lava"),
    }
