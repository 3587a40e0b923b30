"""Loading and saving of SPMTrack: a released file with DINOv2's, or one full file; nothing in them is executed.

This module decides whether tensors are exactly one configuration's network, and what a size that no file states is. It
must not know the file formats (:mod:`archive`) nor the network's arithmetic. Source: docs/spmtrack.md, "Checkpoint".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.untrusted import parse_json, read_json
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.trackers.archive import CONFIG_KEY, TensorFile, TensorSource, open_tensors
from spiketrack_deploy.trackers.kinds import DINOV2, SPIKETRACK, SPMTRACK, kind_of
from spiketrack_deploy.trackers.spmtrack.config import BACKBONE_GRID, NETWORK, OFFICIAL_CONFIGS, SpmConfig
from spiketrack_deploy.trackers.spmtrack.model import SpmTrack, is_trained
from spiketrack_deploy.trackers.strict import compare, read_values

ALPHA, FLAG = "expert_alpha", "use_rsexpert"
"""Hyper-parameters among the tensors of a released file."""
CONFIG_FILE = "config.json"
_UNUSED = ("cls_token", "mask_token")
_HEAD_DIM = 64
"""Channels of a head in every published size."""
_SIZES = {768: "b", 1024: "l", 1536: "g"}
_ORIGIN = "the model without registers, dinov2_vit{b,l,g}14_pretrain.pth of github.com/facebookresearch/dinov2"

Sources = Mapping[str, TensorSource]


def load_spmtrack(
    files: tuple[Path, ...], config: SpmConfig | None = None, dtype: torch.dtype | None = None
) -> SpmTrack:
    """The network of ``files`` in evaluation mode: a released file and DINOv2's, or one full file.

    Without ``config`` it comes from the file, from a ``config.json`` beside it, or from keys and shapes (published
    crops; 64 channels a head). ``dtype``: float32 unless asked otherwise; DINOv2's positions are resized in it.

    Raises one :class:`InputError` that lists every missing, unexpected, misshaped and unusable tensor (first eight of
    each), or says that the files are not what they should be: swapped, of another size, with registers.
    """
    opened: list[TensorFile] = []
    try:
        for file in files:
            opened.append(open_tensors(file))
        file, tracker = files[0], opened[0]
        _check_kinds(files, [one.tensors for one in opened])
        chosen = config or _configuration(file, tracker)
        _check_hyper_parameters(file, tracker.tensors, chosen)
        precision = dtype or torch.float32
        if len(files) == 1:
            return _filled(chosen, _read_full(file, tracker.tensors, chosen, precision))
        backbone = _backbone(files[1], opened[1].tensors, chosen, precision)
        return _filled(chosen, backbone | _read_trained(file, tracker.tensors, chosen, precision))
    finally:
        for one in opened:
            one.close()


def with_backbone(files: tuple[Path, ...]) -> tuple[Path, ...]:
    """``files``, and for a released file alone DINOv2's where it lies in the same folder: under its published name for
    that width, or as the only ``dinov2*`` there."""
    if len(files) > 1:
        return files
    opened = open_tensors(files[0])
    try:
        tensors = opened.tensors
        if kind_of(tensors, str(files[0])) != SPMTRACK or any(".linear." in key for key in tensors):
            return files
        width = tensors["token_type_embed"].shape[-1] if "token_type_embed" in tensors else 0
    finally:
        opened.close()
    beside = sorted(one for one in files[0].parent.glob("dinov2*") if one.is_file() and one != files[0])
    published = [one for one in beside if one.stem == f"dinov2_vit{_SIZES.get(width)}14_pretrain"]
    chosen = published or beside
    return (*files, chosen[0]) if len(chosen) == 1 else files


def save_spmtrack(model: SpmTrack, path: Path, half: bool = False) -> None:
    """One full ``.safetensors`` file with the configuration in its metadata; the same model gives the same bytes.

    ``half``: rounded to float16, half the size; what is read back are these rounded values."""
    from safetensors.torch import save

    if path.suffix != ".safetensors":
        raise InputError(f"models are saved as .safetensors, not as {path.name}")
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    if half:
        tensors = {key: value.half() for key, value in tensors.items()}
    write_whole(path, save(tensors, metadata={CONFIG_KEY: json.dumps(model.config.to_dict(), sort_keys=True)}))


def on_meta(config: SpmConfig) -> SpmTrack:
    """The network without memory for its values: names, shapes, counts."""
    with torch.device("meta"):
        return SpmTrack(config).eval()


def _filled(config: SpmConfig, state: Mapping[str, Tensor]) -> SpmTrack:
    model = on_meta(config)
    model.load_state_dict(state, strict=True, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name))
    return model


def _check_kinds(files: tuple[Path, ...], tensors: list[Sources]) -> None:
    first = kind_of(tensors[0], str(files[0]))
    if first == DINOV2:
        swapped = len(files) > 1 and kind_of(tensors[1], str(files[1])) == SPMTRACK
        remedy = f"the two are swapped: say {files[1]}+{files[0]}" if swapped else "give the tracker's file first"
        raise InputError(f"checkpoint {files[0]} is a DINOv2 backbone and no tracker; {remedy}")
    if first == SPIKETRACK:
        raise InputError(f"checkpoint {files[0]} is a SpikeTrack, which takes no backbone file; give it alone")
    if len(files) == 1:
        if not any(".linear." in key for key in tensors[0]):
            raise InputError(
                f"checkpoint {files[0]} holds SPMTrack's trained tensors only; say {files[0].name}+DINOV2 with the "
                f"file of its backbone, or put that beside it ({_ORIGIN})"
            )
        return
    second = kind_of(tensors[1], str(files[1]))
    if second != DINOV2:
        raise InputError(f"checkpoint {files[1]} is no DINOv2 backbone but a {second} file; give {_ORIGIN}")
    if any(key.startswith("register_token") for key in tensors[1]):
        raise InputError(
            f"checkpoint {files[1]} is a DINOv2 with registers, which SPMTrack does not use; give {_ORIGIN}"
        )
    if any(".linear." in key for key in tensors[0]):
        raise InputError(f"checkpoint {files[0]} is a full SPMTrack, backbone included; give it alone")


def _configuration(file: Path, found: TensorFile) -> SpmConfig:
    beside = file.with_name(CONFIG_FILE)
    if found.config is not None:
        stored: Any = found.config
        data = parse_json(stored, f"{file} (stored configuration)").value if isinstance(stored, str) else stored
        return _parsed(f"{file} (stored configuration)", data)
    if beside.is_file():
        data = read_json(beside).value
        if isinstance(data, Mapping) and data.get("network") == NETWORK:
            return _parsed(str(beside), data)
    return infer(file, found.tensors)


def stated_config(file: Path) -> SpmConfig:
    """The configuration of a tracker's file, its tensors not looked at."""
    opened = open_tensors(file)
    try:
        return _configuration(file, opened)
    finally:
        opened.close()


def _parsed(source: str, data: Any) -> SpmConfig:
    try:
        return SpmConfig.from_dict(data)
    except InputError as error:
        raise InputError(f"configuration {source}: {error}") from error


def infer(file: Path, tensors: Sources) -> SpmConfig:
    """The configuration whose keys and shapes fit; ``spmtrack_b``, ``_l``, ``_g`` or ``custom``."""

    def shape(key: str, axes: int = 2) -> tuple[int, ...]:
        found = tensors.get(key)
        if found is None or len(found.shape) != axes:
            raise InputError(f"checkpoint {file} is no whole SPMTrack: {key} is missing or has not {axes} axes")
        return found.shape

    dim = shape("token_type_embed")[1]
    rank = shape("blocks.0.attn.qkv.q.tmoe.compress_expert")[0]
    depth = 1 + max(int(k.split(".")[1]) for k in tensors if k.startswith("blocks.") and k.split(".")[1].isdecimal())
    gated = "blocks.0.mlp.w12.tmoe.compress_expert" in tensors
    hidden = shape(f"blocks.0.mlp.{'w3' if gated else 'fc2'}.tmoe.compress_expert")[1]
    experts = shape("blocks.0.attn.qkv.q.tmoe.expert_route.weight")[0]
    known = next((c for c in OFFICIAL_CONFIGS.values() if (c.dim, c.depth) == (dim, depth)), None)
    if known is None and dim % _HEAD_DIM:
        raise InputError(f"checkpoint {file} does not tell its heads; put a {CONFIG_FILE} beside it")
    made = SpmConfig(
        "custom",
        dim,
        depth,
        known.heads if known else dim // _HEAD_DIM,
        ffn="swiglu" if gated else "mlp",
        hidden=hidden,
        rank=rank,
        alpha=_scalar(file, tensors[ALPHA], ALPHA) if ALPHA in tensors else rank,
        experts=experts,
    )
    return known if known and replace(made, name=known.name) == known else made


def _scalar(file: Path, source: TensorSource, key: str) -> int:
    if math.prod(source.shape) != 1:
        raise InputError(f"checkpoint {file}: {key} has the shape {list(source.shape)}, it must be one number")
    value = source.read().reshape(()).item()
    if not math.isfinite(value) or value != int(value):
        raise InputError(f"checkpoint {file}: {key} is {value}, it must be an integer")
    if key == ALPHA and not 1 <= value <= 1 << 20:
        raise InputError(
            f"checkpoint {file}: {key} is {int(value)}; the experts' scale must be above 0 (published: 64)"
        )
    return int(value)


def _check_hyper_parameters(file: Path, tensors: Sources, config: SpmConfig) -> None:
    """Alpha and flag belong to a released file; the published code ignores what they say and trusts its settings."""
    if ALPHA in tensors and (alpha := _scalar(file, tensors[ALPHA], ALPHA)) != config.alpha:
        raise InputError(f"checkpoint {file}: {ALPHA} is {alpha}, its configuration says {config.alpha}; correct one")
    if FLAG in tensors and _scalar(file, tensors[FLAG], FLAG):
        raise InputError(
            f"checkpoint {file}: {FLAG} is set (experts scaled by alpha / sqrt(rank)); no such model was published and "
            "none is read here"
        )


def _collect(
    file: Path, expected: Mapping[str, Tensor], sources: Sources, config: SpmConfig, dtype: torch.dtype,
    ignored: Callable[[str], bool],
) -> dict[str, Tensor]:  # fmt: skip
    faults = compare(expected, sources, ignored=ignored)
    values: dict[str, Tensor] = {}
    if not faults.sentence():  # nothing is read, hence nothing allocated, before every shape is right
        values = {key: read_values(file, key, sources[key], dtype, faults) for key in expected}
    if problem := faults.sentence():
        raise InputError(f"checkpoint {file} does not fit configuration {config.name}: {problem}")
    return values


def _read_trained(file: Path, tensors: Sources, config: SpmConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    expected: dict[str, Tensor] = {k: v for k, v in on_meta(config).state_dict().items() if is_trained(k)}
    extra = {ALPHA: torch.zeros((), dtype=torch.int64), FLAG: torch.zeros((), dtype=torch.bool)}
    values = _collect(file, {**expected, **extra}, tensors, config, dtype, lambda key: False)
    return {key: values[key] for key in expected}


def _read_full(file: Path, tensors: Sources, config: SpmConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    return _collect(file, on_meta(config).state_dict(), tensors, config, dtype, lambda key: key in (ALPHA, FLAG))


def dinov2_shapes(config: SpmConfig) -> dict[str, Tensor]:
    """Names and shapes that the backbone's own file must have, as tensors without values."""
    found: dict[str, Tensor] = {}
    for key, value in on_meta(config).state_dict().items():
        if is_trained(key):
            continue
        part = _qkv_part(key)
        if part is None:
            found[key.replace(".linear.", ".")] = value
        elif part[1] == "q":
            found[part[0]] = torch.empty((3 * value.shape[0], *value.shape[1:]), device="meta")
    found["pos_embed"] = torch.empty((1, 1 + BACKBONE_GRID**2, config.dim), device="meta")
    return found


def _qkv_part(key: str) -> tuple[str, str] | None:
    """``blocks.i.attn.qkv.q.linear.weight`` -> (``blocks.i.attn.qkv.weight``, ``q``)."""
    head, middle, tail = key.partition(".attn.qkv.")
    return (f"{head}.attn.qkv.{tail.split('.')[-1]}", tail[0]) if middle else None


def _backbone(file: Path, tensors: Sources, config: SpmConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    width = tensors["pos_embed"].shape[-1:]
    if width != (config.dim,):
        raise InputError(
            f"checkpoint {file} is a DINOv2 of width {list(width)}, the tracker's is {config.dim}; give the size that "
            "it was trained on (B: vitb14, L: vitl14, G: vitg14)"
        )
    values = _collect(file, dinov2_shapes(config), tensors, config, dtype, lambda key: key in _UNUSED)
    state: dict[str, Tensor] = {}
    for key in on_meta(config).state_dict():
        part = _qkv_part(key)
        if key == "pos_embed":
            state[key] = resized_positions(values[key], config.grid)
        elif not is_trained(key):
            if part is None:
                state[key] = values[key.replace(".linear.", ".")]
            else:
                state[key] = values[part[0]].chunk(3)["qkv".index(part[1])].clone()
    return state


def resized_positions(table: Tensor, grid: int) -> Tensor:
    """DINOv2's ``[1, 1 + 37*37, D]`` without its first entry, bicubic (a = -0.75) on ``grid`` x ``grid`` cells."""
    square = table[:, 1:].unflatten(1, (BACKBONE_GRID, BACKBONE_GRID)).permute(0, 3, 1, 2)
    return functional.interpolate(square, (grid, grid), mode="bicubic", align_corners=False).flatten(2).mT.contiguous()


def draw_backbone(config: SpmConfig, seed: int) -> SpmTrack:
    """A network of drawn weights (normal 0.02, norms and scales at one), for counting, timing and as a start."""
    generator = torch.Generator().manual_seed(seed)
    model = SpmTrack(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() > 1:
                nn.init.trunc_normal_(value, std=0.02, generator=generator)
            else:
                value.fill_(0.0 if name.endswith("bias") else 1.0)
    return model.eval()
