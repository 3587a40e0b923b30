"""What a SpikeTrack network looks like: widths, resolution, template count, and which stages exist.

This module decides which configurations are legal and derives sizes from them. It must not know PyTorch: everything
that only needs sizes (the lowering, the reports, the crops) reads them here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from spiketrack_deploy.errors import InputError

OFFICIAL_WALK: tuple[str, ...] = (
    "downsample1_1",
    "ConvBlock1_1.0",
    "downsample1_2",
    "mrm.0",
    "ConvBlock1_2.0",
    "downsample2",
    "mrm.1",
    "ConvBlock2_1.0",
    "ConvBlock2_2.0",
    "downsample3",
    "mrm.2",
    "block3.0",
    "block3.1",
    "block3.2",
    "mrm.3",
    "block3.3",
    "block3.4",
    "block3.5",
    "downsample4",
    "mrm.4",
    "block4.0",
    "block4.1",
    "mrm.5",
)
"""Stage names in execution order; both branches walk it (docs/spiketrack.md, "Walk")."""

REQUIRED_STAGES = ("downsample1_1", "downsample1_2", "downsample2", "downsample3")
AFTER_DOWNSAMPLE4 = OFFICIAL_WALK[OFFICIAL_WALK.index("downsample4") + 1 :]
MAX_TEMPLATES = 3
"""The neuron guesses its time axis from the first axis and reads up to 3 as time (docs/spiketrack.md, "Neuron")."""

# Resolution divided by the side of the features behind each downsampling stage.
_STRIDE = {"downsample1_1": 2, "downsample1_2": 4, "downsample2": 8, "downsample3": 16, "downsample4": 16}


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """One network layout plus the loop settings that belong to it.

    ``dims`` are (d0, d1, d2, d3) channels; d3 is read only where ``downsample4`` is in the walk. ``resolution`` is the
    crop side r in pixels, a multiple of 16 and at least 32; the head grid has P = r / 16 cells a side. ``templates`` is
    T (1 to 3). ``walk`` is a subsequence of :data:`OFFICIAL_WALK`. The expansions are hidden width over width of
    SepConv, conv block and MLP; ``value_ratio`` is value width over width. ``attention_gain`` None means the official
    factor 2 d^-1/2 after every product of queries and a key-value matrix; a number replaces that factor everywhere.
    Construction raises :class:`InputError` for every illegal combination.
    """

    name: str
    dims: tuple[int, ...]
    resolution: int
    templates: int
    head_width: int
    heads: int = 8
    walk: tuple[str, ...] = OFFICIAL_WALK
    sep_expansion: int = 2
    conv_expansion: int = 4
    mlp_expansion: int = 4
    value_ratio: int = 4
    search_factor: float = 4.0
    template_factor: float = 4.0
    attention_gain: float | None = None
    update_interval: int = 25
    update_threshold: float = 0.7

    def __post_init__(self) -> None:
        _check_types(self)
        _check_sizes(self)
        _check_walk(self)
        _check_heads(self)

    @classmethod
    def official(cls, name: str) -> TrackerConfig:
        """One of the published layouts, ``s256_t1`` to ``b384_t3``, or the unreleased ``t256_t1``."""
        if name not in OFFICIAL_CONFIGS:
            raise InputError(f"there is no configuration {name!r}; choose one of {', '.join(OFFICIAL_CONFIGS)}")
        return OFFICIAL_CONFIGS[name]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrackerConfig:
        """Inverse of :meth:`to_dict`; unknown or missing keys and wrong types raise :class:`InputError`."""
        if not isinstance(data, Mapping):
            raise InputError(f"a tracker configuration must be a JSON object, not {type(data).__name__}")
        known = {f.name for f in fields(cls)}
        unknown = sorted(str(k) for k in data if k not in known)
        if unknown:
            raise InputError(f"tracker configuration has unknown keys: {', '.join(unknown[:8])}")
        missing = [k for k in ("name", "dims", "resolution", "templates", "head_width") if k not in data]
        if missing:
            raise InputError(f"tracker configuration lacks {', '.join(missing)}")
        values = dict(data)
        for key in ("dims", "walk"):
            if isinstance(values.get(key), list):
                values[key] = tuple(values[key])
        for key in ("search_factor", "template_factor", "attention_gain", "update_threshold"):
            if _is_int(values.get(key)):
                values[key] = float(values[key])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON-ready values (tuples become lists)."""
        out: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        out["dims"], out["walk"] = list(self.dims), list(self.walk)
        return out

    def renamed(self, name: str) -> TrackerConfig:
        """The same layout under another name."""
        return replace(self, name=name)

    @property
    def grid(self) -> int:
        """P: cells per side of the attention and head grid."""
        return self.resolution // 16

    @property
    def final_width(self) -> int:
        """Channels that enter the head: d3, or d2 where the walk has no ``downsample4``."""
        return self.dims[3] if "downsample4" in self.walk else self.dims[2]

    @property
    def memory_indices(self) -> tuple[int, ...]:
        """The i of every ``mrm.i`` in the walk, in execution order."""
        return tuple(int(stage.split(".")[1]) for stage in self.walk if stage.startswith("mrm."))

    def width(self, stage: str) -> int:
        """Channels behind ``stage`` (a walk name)."""
        d0, d1, d2, d3 = self.dims
        behind = {
            "downsample1_1": d0 // 2,
            "downsample1_2": d0,
            "downsample2": d1,
            "downsample3": d2,
            "downsample4": d3,
        }
        return behind[_last_downsample(stage)]

    def side(self, stage: str) -> int:
        """Spatial side in cells behind ``stage`` (a walk name)."""
        return self.resolution // _STRIDE[_last_downsample(stage)]

    def attention_factor(self, width: int) -> float:
        """Factor after q (k^T v) for attention over ``width`` channels: the gain, else 2 (width / heads)^-1/2."""
        if self.attention_gain is not None:
            return self.attention_gain
        return 2.0 * float(width // self.heads) ** -0.5


def update_rule(dataset: str) -> tuple[int, float]:
    """(interval in frames, confidence threshold) of the official template update for a data set name."""
    return (40, 0.8) if "lasot" in dataset else (25, 0.7)


def _last_downsample(stage: str) -> str:
    if stage not in OFFICIAL_WALK:
        raise InputError(f"there is no stage {stage!r}; stages are {', '.join(OFFICIAL_WALK)}")
    upto = OFFICIAL_WALK[: OFFICIAL_WALK.index(stage) + 1]
    return next(s for s in reversed(upto) if s.startswith("downsample"))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_types(config: TrackerConfig) -> None:
    def demand(ok: bool, field: str, kind: str) -> None:
        if not ok:
            raise InputError(f"tracker configuration: {field} must be {kind}, not {getattr(config, field)!r}")

    demand(isinstance(config.name, str) and 0 < len(config.name) <= 100, "name", "a short text")
    demand(
        isinstance(config.dims, tuple) and len(config.dims) == 4 and all(_is_int(d) for d in config.dims),
        "dims",
        "four integers",
    )
    demand(isinstance(config.walk, tuple) and all(isinstance(s, str) for s in config.walk), "walk", "stage names")
    for field in ("resolution", "templates", "head_width", "heads", "sep_expansion", "conv_expansion", "mlp_expansion"):
        demand(_is_int(getattr(config, field)), field, "an integer")
    for field in ("value_ratio", "update_interval"):
        demand(_is_int(getattr(config, field)), field, "an integer")
    for field in ("search_factor", "template_factor", "update_threshold"):
        value = getattr(config, field)
        demand(
            isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value), field, "a number"
        )
    gain = config.attention_gain
    demand(
        gain is None or (isinstance(gain, (int, float)) and not isinstance(gain, bool) and math.isfinite(gain)),
        "attention_gain",
        "a number or null",
    )


def _check_sizes(config: TrackerConfig) -> None:
    who = f"configuration {config.name}"
    if config.resolution % 16 or not 32 <= config.resolution <= 4096:
        raise InputError(f"{who}: resolution {config.resolution} must be a multiple of 16 between 32 and 4096")
    if not 1 <= config.templates <= MAX_TEMPLATES:
        raise InputError(f"{who}: {config.templates} templates are not possible; use 1 to {MAX_TEMPLATES}")
    if any(not 1 <= d <= 65536 for d in config.dims) or config.dims[0] % 2:
        raise InputError(f"{who}: dims {list(config.dims)} must be positive and the first one even")
    if not 8 <= config.head_width <= 65536:
        raise InputError(f"{who}: head_width {config.head_width} must be at least 8, because it is halved three times")
    for field in ("heads", "sep_expansion", "conv_expansion", "mlp_expansion", "value_ratio"):
        if not 1 <= getattr(config, field) <= 1024:
            raise InputError(f"{who}: {field} {getattr(config, field)} must be between 1 and 1024")
    for field in ("search_factor", "template_factor"):
        if not 0 < getattr(config, field) <= 100:
            raise InputError(f"{who}: {field} {getattr(config, field)} must be above 0 and at most 100")
    if config.attention_gain is not None and config.attention_gain <= 0:
        raise InputError(
            f"{who}: attention_gain {config.attention_gain} must be positive, or null for the official one"
        )
    if config.update_interval < 1 or not 0 <= config.update_threshold <= 1:
        raise InputError(f"{who}: update_interval must be at least 1 frame and update_threshold within 0 and 1")


def _check_walk(config: TrackerConfig) -> None:
    who = f"configuration {config.name}"
    remaining = iter(OFFICIAL_WALK)
    for stage in config.walk:
        if stage not in remaining:  # `in` consumes the iterator, so this is a subsequence test
            known = "unknown" if stage not in OFFICIAL_WALK else "repeated or out of order"
            raise InputError(f"{who}: stage {stage!r} of the walk is {known}; keep the order of the official walk")
    missing = [s for s in REQUIRED_STAGES if s not in config.walk]
    if missing:
        raise InputError(f"{who}: the walk lacks {', '.join(missing)}, which every network needs")
    late = [s for s in config.walk if s in AFTER_DOWNSAMPLE4]
    if late and "downsample4" not in config.walk:
        raise InputError(f"{who}: the walk has {', '.join(late)} but not downsample4, which feeds them")


def _check_heads(config: TrackerConfig) -> None:
    for stage in config.walk:
        if stage.startswith(("mrm.", "block")) and config.width(stage) % config.heads:
            raise InputError(
                f"configuration {config.name}: stage {stage} has {config.width(stage)} channels, "
                f"which {config.heads} heads do not divide"
            )


def _official() -> dict[str, TrackerConfig]:
    small, base, tiny = (32, 64, 128, 192), (64, 128, 256, 360), (24, 48, 96, 128)
    table = [
        ("s256", small, 256, 192, (1, 3)),
        ("b256", base, 256, 256, (1, 3)),
        ("b384", base, 384, 256, (1, 3)),
        ("t256", tiny, 256, 128, (1,)),
    ]
    return {
        f"{size}_t{t}": TrackerConfig(f"{size}_t{t}", dims, side, t, width)
        for size, dims, side, width, ts in table
        for t in ts
    }


OFFICIAL_CONFIGS: dict[str, TrackerConfig] = _official()
