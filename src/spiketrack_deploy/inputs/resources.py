"""Where the bundled models, clips and hardware profiles are: in the checkout, or inside the installed wheel.

This module decides places and names only; it must not know what is inside a model or a profile.
"""

from __future__ import annotations

from pathlib import Path

from spiketrack_deploy.errors import UsageError

_PACKAGE = Path(__file__).resolve().parents[1]
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")
_CLIP_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm")


def _data_dir(name: str) -> Path:
    """The wheel carries a copy under ``_data``; a checkout has the original at its top and no ``_data``."""
    packed = _PACKAGE / "_data" / name
    return packed if packed.is_dir() else _PACKAGE.parents[1] / name


def models_dir() -> Path:
    """The folder of bundled models: one folder each, with config, weights and model card."""
    return _data_dir("models")


def profiles_dir() -> Path:
    """The folder of hardware profiles: one TOML file per chip and convention."""
    return _data_dir("hardware_profiles")


def _weights(folder: Path) -> Path | None:
    files = sorted(f for f in folder.iterdir() if f.suffix in _WEIGHT_SUFFIXES)
    return files[0] if files else None


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def model_names() -> tuple[str, ...]:
    """Names of the bundled models: the folders of :func:`models_dir` that hold a weights file."""
    return tuple(f.name for f in _children(models_dir()) if f.is_dir() and _weights(f) is not None)


def profile_names() -> tuple[str, ...]:
    """Names of the bundled hardware profiles."""
    return tuple(f.stem for f in _children(profiles_dir()) if f.suffix == ".toml")


def clip_names() -> tuple[str, ...]:
    """Names of the bundled clips: video files and folders of frames in ``clips`` beside the models."""
    clips = _children(models_dir() / "clips")
    return tuple(f.stem for f in clips if f.is_dir() or f.suffix in _CLIP_SUFFIXES)


def find_model(name: str) -> Path:
    """The weights file of a bundled model (its config and card lie beside it); UsageError lists the names."""
    if name in model_names():
        weights = _weights(models_dir() / name)
        if weights is not None:
            return weights
    raise UsageError(_unknown("model", name, model_names()))


def find_profile(name: str) -> Path:
    """The TOML file of a bundled hardware profile; UsageError lists the names."""
    if name in profile_names():
        return profiles_dir() / f"{name}.toml"
    raise UsageError(_unknown("hardware profile", name, profile_names()))


def find_clip(name: str) -> Path:
    """A bundled clip: a video file or a folder of frames; UsageError lists the names."""
    for path in _children(models_dir() / "clips"):
        if path.stem == name and name in clip_names() and (path.is_dir() or path.suffix in _CLIP_SUFFIXES):
            return path
    raise UsageError(_unknown("clip", name, clip_names()))


def _unknown(what: str, name: str, names: tuple[str, ...]) -> str:
    return f"unknown {what} {name!r}: bundled are {', '.join(names) if names else 'none'}; or give the path of a file."
