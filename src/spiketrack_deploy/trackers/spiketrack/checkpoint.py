"""Loading and saving of networks: strict, and without executing anything from a file.

This module decides whether a set of tensors is exactly one configuration's network. It must not know the file formats
(:mod:`archive`) nor the network's arithmetic. Source: docs/spiketrack.md, "Checkpoint".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.untrusted import parse_json, read_json
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.trackers.archive import CONFIG_KEY, TensorFile, TensorSource, open_tensors
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.infer import infer_config, template_count
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.strict import Faults, compare, read_values

_COUNTER = ".num_batches_tracked"
MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


def load_checkpoint(
    path: str | os.PathLike[str], config: TrackerConfig | None = None
) -> tuple[SpikeTrack, TrackerConfig]:
    """The network of a checkpoint in evaluation mode, and its configuration.

    ``path``: an official PyTorch zip file (``{'net': state dict}`` or a bare state dict), a ``.safetensors`` file, or a
    folder that holds ``model.safetensors``. Without ``config`` it comes from the file (our own files carry it), from a
    ``config.json`` beside a ``.safetensors``, or from keys and shapes. Parameters are float32, or float64 where the
    file has any.

    Raises one :class:`InputError` that lists every missing, unexpected, misshaped and unusable tensor (first eight of
    each). Counters (``num_batches_tracked``) are never demanded, and dropped silently where a norm is frozen.
    """
    file = Path(path)
    if file.is_dir():
        file = file / MODEL_FILE
    with_tensors = open_tensors(file)
    try:
        chosen = _configuration(file, with_tensors) if config is None else config
        return _load(file, with_tensors.tensors, chosen), chosen
    finally:
        with_tensors.close()


def save_model(
    model: SpikeTrack, config: TrackerConfig, path: str | os.PathLike[str], *, compact: bool = False
) -> None:
    """Write a ``.safetensors`` file with the configuration in its metadata; the same model gives the same bytes.

    ``compact`` stores as float16 every float32 tensor that loses nothing by it: int8 times a power of two does not, so
    a network trained in the integer program's arithmetic takes half the space.
    """
    from safetensors.torch import save

    file = Path(path)
    if file.suffix != ".safetensors":
        raise InputError(f"models are saved as .safetensors, not as {file.name}")
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    if compact:
        tensors = {key: _halved(value) for key, value in tensors.items()}
    write_whole(file, save(tensors, metadata={CONFIG_KEY: json.dumps(config.to_dict(), sort_keys=True)}))


def _halved(value: Tensor) -> Tensor:
    if value.dtype != torch.float32:
        return value
    half = value.half()
    return half if torch.equal(half.float(), value) else value


def read_config(path: str | os.PathLike[str]) -> TrackerConfig:
    """A configuration file (JSON object, see :meth:`TrackerConfig.to_dict`)."""
    return _parsed_config(str(path), read_json(Path(path)).table())


def _configuration(file: Path, found: TensorFile) -> TrackerConfig:
    if found.config is not None:
        return _parsed_config(f"{file} (stored configuration)", found.config)
    beside = file.with_name(CONFIG_FILE)
    if file.suffix == ".safetensors" and beside.is_file():
        return read_config(beside)
    return infer_config({key: source.shape for key, source in found.tensors.items()}, str(file))


def _parsed_config(source: str, stored: object) -> TrackerConfig:
    data: Any = parse_json(stored, source).value if isinstance(stored, str) else stored
    try:
        return TrackerConfig.from_dict(data)
    except InputError as error:
        raise InputError(f"configuration {source}: {error}") from error


def _load(file: Path, sources: Mapping[str, TensorSource], config: TrackerConfig) -> SpikeTrack:
    with torch.device("meta"):
        model = SpikeTrack(config)
    expected = model.state_dict()
    _check_templates(file, {key: source.shape for key, source in sources.items()}, config)
    faults = compare(
        expected,
        sources,
        optional=lambda key: key.endswith(_COUNTER),
        ignored=lambda key: _frozen_counter(key, expected),
    )
    state: dict[str, Tensor] = {}
    if not faults.sentence():  # nothing is read, hence nothing allocated, before every shape is right
        wide = any(sources[key].dtype == torch.float64 for key in expected if key in sources)
        state = _read(file, expected, sources, torch.float64 if wide else torch.float32, faults)
    if problem := faults.sentence():
        raise InputError(f"checkpoint {file} does not fit configuration {config.name}: {problem}")
    model.load_state_dict(state, strict=True, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.eval()


def _check_templates(file: Path, shapes: Mapping[str, tuple[int, ...]], config: TrackerConfig) -> None:
    count = template_count(shapes)
    if count is not None and config.memory_indices and count != config.templates:
        raise InputError(
            f"checkpoint {file} was made for {count} template(s) but configuration {config.name} has "
            f"{config.templates}; every template step has responder weights of its own, so choose one with T = {count}"
        )


def _frozen_counter(key: str, expected: Mapping[str, Tensor]) -> bool:
    """Whether ``key`` is a counter under a norm that the network freezes."""
    return key.endswith(_COUNTER) and key[: -len(_COUNTER)] + ".running_mean" in expected


def _read(
    file: Path, expected: Mapping[str, Tensor], sources: Mapping[str, TensorSource], dtype: torch.dtype, faults: Faults
) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for key in expected:
        source = sources.get(key)
        state[key] = value = torch.zeros(()).long() if source is None else read_values(file, key, source, dtype, faults)
        if key.endswith(".running_var") and bool((value < 0).any()):
            faults.unusable.append(key)
    return state
