"""Which libraries are installed, and in which version.

This module decides which of them are named. It must not import any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

PACKAGES = (
    "numpy", "torch", "numba", "h5py", "onnx", "onnxruntime", "opencv-contrib-python-headless", "av",
    "pydantic", "click", "rich", "matplotlib", "safetensors",
)  # fmt: skip


def versions(names: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Installed version of each distribution, ``None`` where it is absent; nothing is imported."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
