"""What a SpikeTrack network looks like: widths, resolution, template count, and which stages exist.

This module decides which configurations are legal and derives sizes from them. It must not know PyTorch: everything
that only needs sizes (the lowering, the reports, the crops) reads them here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.documents import checked, shown
from spiketrack_deploy.trackers.kinds import SPIKETRACK
from spiketrack_deploy.trackers.layouts import entries, published_layout
from spiketrack_deploy.tracking.pixels import Normalisation
from spiketrack_deploy.tracking.rule import PUBLISHED, LoopRule

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
"""Stage names in execution order; both branches walk it (the order of the published encoder)."""

REQUIRED_STAGES = ("downsample1_1", "downsample2", "downsample3")
AFTER_DOWNSAMPLE4 = OFFICIAL_WALK[OFFICIAL_WALK.index("downsample4") + 1 :]
MAX_TEMPLATES = 3
"""The published neuron guesses its time axis from the first axis and reads up to 3 as time."""
MAX_WEIGHTS, MAX_VALUES = 1 << 29, 1 << 27
"""Of a network (estimated from above), and of one layer's output for one crop; b384_t3 has 1.0e8 and 4.7e6."""

# Resolution divided by the side of the features behind each downsampling stage but the first.
_REDUCTION = {"downsample1_2": 4, "downsample2": 8, "downsample3": 16, "downsample4": 16}


_Width = Annotated[int, Field(ge=1, le=65536)]
_Ratio = Annotated[int, Field(ge=1, le=1024)]
_Factor = Annotated[float, Field(gt=0, le=100)]


@dataclass(frozen=True, slots=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class TrackerConfig:
    """One network layout plus the loop settings that belong to it.

    ``dims`` are (d0, d1, d2, d3) channels; d3 is read only where ``downsample4`` is in the walk. ``resolution`` is the
    crop side r in pixels, a multiple of 16 and at least 32; the head grid has P = r / 16 cells a side. ``templates`` is
    T (1 to 3). ``head_width`` is halved three times. ``walk`` is a subsequence of :data:`OFFICIAL_WALK`; without
    ``downsample1_2`` the first convolution makes d0 channels at a quarter of the side at once. The expansions
    are hidden width over width of SepConv, conv block and MLP; ``value_ratio`` is value width over width.
    ``attention_gain`` None means the official factor 2 d^-1/2 after every product of queries and a key-value matrix; a
    number replaces that factor everywhere. ``loop`` and the ``normalisation`` of pixels (None) are the published ones
    where nothing else is stated. Construction raises :class:`InputError` for every illegal combination, and for a
    network beyond :data:`MAX_WEIGHTS` or :data:`MAX_VALUES`, before anything of its size is made.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    dims: Annotated[tuple[_Width, ...], Field(strict=False, min_length=4, max_length=4)]
    resolution: Annotated[int, Field(ge=32, le=4096, multiple_of=16)]
    templates: Annotated[int, Field(ge=1, le=MAX_TEMPLATES)]
    head_width: Annotated[int, Field(ge=8, le=65536)]
    heads: _Ratio = 8
    walk: Annotated[tuple[str, ...], Field(strict=False, max_length=len(OFFICIAL_WALK))] = OFFICIAL_WALK
    sep_expansion: _Ratio = 2
    conv_expansion: _Ratio = 4
    mlp_expansion: _Ratio = 4
    value_ratio: _Ratio = 4
    search_factor: _Factor = 4.0
    template_factor: _Factor = 4.0
    attention_gain: Annotated[float, Field(ge=2**-20, le=2**20)] | None = None
    update_interval: Annotated[int, Field(ge=1, le=10**9)] = 25
    update_threshold: Annotated[float, Field(ge=0, le=1)] = 0.7
    loop: LoopRule = PUBLISHED
    normalisation: Normalisation | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _legal(cls, data: Any, handler: Callable[[Any], TrackerConfig]) -> TrackerConfig:
        config = checked(handler, data, "tracker configuration", (field.name for field in fields(cls)))
        if fault := _name_fault(config) or _walk_fault(config) or _width_fault(config) or _size_fault(config):
            raise InputError(f"tracker configuration {shown(config.name)[1:-1]}: {fault}")
        return config

    @classmethod
    def official(cls, name: str) -> TrackerConfig:
        """One of the published layouts, ``s256_t1`` to ``b384_t3``, or the unreleased ``t256_t1``."""
        return published_layout(name, OFFICIAL_CONFIGS)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrackerConfig:
        """Inverse of :meth:`to_dict`; unknown or missing keys and wrong types raise :class:`InputError`."""
        return cls(**entries(data, SPIKETRACK))

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON-ready values (tuples become lists); ``loop`` and ``normalisation`` only where they are
        not the published ones, so that a configuration of before and what was recorded of it stay the same."""
        out: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        out |= {"dims": list(self.dims), "walk": list(self.walk), "loop": self.loop.to_dict()}
        out["normalisation"] = self.normalisation.to_dict() if self.normalisation else None
        return {key: value for key, value in out.items() if value or key not in ("loop", "normalisation")}

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
            "downsample1_1": d0 if self.coarse_stem else d0 // 2,
            "downsample1_2": d0,
            "downsample2": d1,
            "downsample3": d2,
            "downsample4": d3,
        }
        return behind[_last_downsample(stage)]

    def side(self, stage: str) -> int:
        """Spatial side in cells behind ``stage`` (a walk name)."""
        last = _last_downsample(stage)
        return self.resolution // (self.stride(last) if last == "downsample1_1" else _REDUCTION[last])

    def stride(self, stage: str) -> int:
        """Of the convolution of a downsampling ``stage``."""
        return {"downsample1_1": 4 if self.coarse_stem else 2, "downsample4": 1}.get(stage, 2)

    @property
    def coarse_stem(self) -> bool:
        """Whether the first convolution has stride 4, because no second one follows it."""
        return "downsample1_2" not in self.walk


def _last_downsample(stage: str) -> str:
    if stage not in OFFICIAL_WALK:
        raise InputError(f"there is no stage {stage!r}; stages are {', '.join(OFFICIAL_WALK)}")
    upto = OFFICIAL_WALK[: OFFICIAL_WALK.index(stage) + 1]
    return next(s for s in reversed(upto) if s.startswith("downsample"))


def _name_fault(config: TrackerConfig) -> str:
    return "" if config.name.isprintable() else "name must be printable text"


def _walk_fault(config: TrackerConfig) -> str:
    remaining = iter(OFFICIAL_WALK)
    for stage in config.walk:
        if stage not in remaining:  # `in` consumes the iterator, so this is a subsequence test
            known = "repeated or out of order" if stage in OFFICIAL_WALK else "unknown"
            return f"stage {shown(stage)} of the walk is {known}; keep the order of the official walk"
    missing = [s for s in REQUIRED_STAGES if s not in config.walk]
    if missing:
        return f"the walk lacks {', '.join(missing)}, which every network needs"
    if config.coarse_stem and "ConvBlock1_1.0" in config.walk:
        return (
            "the walk has ConvBlock1_1.0 but not downsample1_2: a first convolution of stride 4 leaves nothing at r/2"
        )
    late = [s for s in config.walk if s in AFTER_DOWNSAMPLE4]
    if late and "downsample4" not in config.walk:
        return f"the walk has {', '.join(late)} but not downsample4, which feeds them"
    return ""


def _width_fault(config: TrackerConfig) -> str:
    if config.dims[0] % 2 and not config.coarse_stem:
        return f"the first of dims must be even, not {config.dims[0]}"
    for stage in config.walk:
        if stage.startswith(("mrm.", "block")) and config.width(stage) % config.heads:
            return f"stage {stage} has {config.width(stage)} channels, which {config.heads} heads do not divide"
    return ""


def _size_fault(config: TrackerConfig) -> str:
    """Weights are estimated from above, by a factor of up to four, as if every stage were a convolution block."""
    expansion = max(config.sep_expansion, config.conv_expansion, config.mlp_expansion, config.value_ratio)
    gates = len(config.memory_indices) * config.grid**4 // 2
    widths = [config.width(stage) for stage in config.walk]
    weights = gates + sum(18 * expansion * width**2 for width in widths)
    weights += 27 * config.head_width * (config.final_width + config.head_width)
    values = max(expansion * width * config.side(stage) ** 2 for width, stage in zip(widths, config.walk))
    if weights <= MAX_WEIGHTS and values <= MAX_VALUES:
        return ""
    return (
        f"up to {weights / 1e6:,.0f} million weights and {values / 1e6:,.0f} million values in one layer are more than "
        f"{MAX_WEIGHTS / 1e6:,.0f} and {MAX_VALUES / 1e6:,.0f}; lower dims, head_width, the expansions or resolution"
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
