"""What an SPMTrack network looks like: widths, grids, experts, and the settings of its loop.

This module decides which configurations are legal and derives sizes from them. It must not know PyTorch. Source: the
published configuration and model code (github.com/WenRuiCai/SPMTrack), described in docs/spmtrack.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.documents import checked, shown
from spiketrack_deploy.trackers.layouts import entries, published_layout

PATCH = 14
"""Side of a patch in pixels."""
REFERENCES = 3
"""Templates in every frame; signatures, memory and masks of the published code are fixed at three."""
BACKBONE_GRID = 37
"""Cells a side of the position table in a DINOv2 file."""
MAX_WEIGHTS, MAX_VALUES = 3 << 30, 1 << 31
"""Of a network; of all attention weights of one block (G: 1.3e9 and 4.2e7)."""

_Width = Annotated[int, Field(ge=1, le=65536)]
_Side = Annotated[int, Field(ge=PATCH, le=4096, multiple_of=PATCH)]
_Factor = Annotated[float, Field(gt=0, le=100)]


@dataclass(frozen=True, slots=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class SpmConfig:
    """One network layout plus the loop settings that belong to it.

    ``dim`` D, ``depth`` L blocks, ``heads``; ``ffn``: ``mlp`` (GELU between fc1 and fc2) or ``swiglu`` (w12, w3) of
    ``hidden`` values; ``experts`` of ``rank`` on every linear layer, their sum scaled by ``alpha`` / ``rank``;
    ``template`` and ``search``: sides of the crops in pixels, multiples of 14. ``memory``: which references a frame
    takes (``tracking/references.py``); ``window_weight``: share of the window in the response. Construction raises
    :class:`InputError` for every illegal combination before anything of its size is made.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    dim: _Width
    depth: Annotated[int, Field(ge=1, le=128)]
    heads: Annotated[int, Field(ge=1, le=1024)]
    ffn: Literal["mlp", "swiglu"] = "mlp"
    hidden: _Width = 3072
    rank: Annotated[int, Field(ge=1, le=4096)] = 64
    alpha: Annotated[int, Field(ge=1, le=1 << 20)] = 64
    experts: Annotated[int, Field(ge=1, le=64)] = 4
    template: _Side = 196
    search: _Side = 378
    template_factor: _Factor = 2.0
    search_factor: _Factor = 5.0
    window_weight: Annotated[float, Field(ge=0, le=1)] = 0.45
    memory: Literal["halves", "thirds"] = "halves"

    @model_validator(mode="wrap")
    @classmethod
    def _legal(cls, data: Any, handler: Callable[[Any], SpmConfig]) -> SpmConfig:
        config = checked(handler, data, "tracker configuration", (field.name for field in fields(cls)))
        if fault := _fault(config):
            raise InputError(f"tracker configuration {shown(config.name)[1:-1]}: {fault}")
        return config

    @classmethod
    def official(cls, name: str) -> SpmConfig:
        """One of the published layouts ``spmtrack_b``, ``spmtrack_l``, ``spmtrack_g``."""
        return published_layout(name, OFFICIAL_CONFIGS)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SpmConfig:
        """Inverse of :meth:`to_dict`; unknown or missing keys and wrong types raise :class:`InputError`."""
        return cls(**entries(data, NETWORK))

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON-ready values, and which network it is."""
        return {"network": NETWORK, **{f.name: getattr(self, f.name) for f in fields(self)}}

    @property
    def grid(self) -> int:
        """P: cells per side of the search crop and of the maps."""
        return self.search // PATCH

    @property
    def template_grid(self) -> int:
        """Cells per side of a template."""
        return self.template // PATCH

    @property
    def tokens(self) -> int:
        """State token, three templates, search cells."""
        return 1 + REFERENCES * self.template_grid**2 + self.grid**2

    @property
    def scale(self) -> float:
        """s: what the sum of the experts is multiplied by."""
        return self.alpha / self.rank

    @property
    def ffn_layers(self) -> tuple[tuple[str, int, int], ...]:
        """The linear layers of the feed-forward part: name, inputs, outputs."""
        if self.ffn == "mlp":
            return ("fc1", self.dim, self.hidden), ("fc2", self.hidden, self.dim)
        return ("w12", self.dim, 2 * self.hidden), ("w3", self.hidden, self.dim)


NETWORK = "spmtrack"


def _fault(config: SpmConfig) -> str:
    if not config.name.isprintable():
        return "name must be printable text"
    if config.dim % config.heads:
        return f"{config.heads} heads do not divide its width of {config.dim}"
    if config.template > config.search:
        return f"its template of {config.template} pixels is larger than its search crop of {config.search}"
    inner = config.hidden * (3 if config.ffn == "swiglu" else 2)
    widths = 9 * config.dim + 2 * inner
    weights = config.depth * (config.dim * (4 * config.dim + inner) + config.rank * (1 + config.experts) * widths)
    values = config.heads * config.tokens**2
    if weights <= MAX_WEIGHTS and values <= MAX_VALUES:
        return ""
    return (
        f"about {weights / 1e6:,.0f} million weights and {values / 1e6:,.0f} million attention weights in a block are "
        f"more than {MAX_WEIGHTS / 1e6:,.0f} and {MAX_VALUES / 1e6:,.0f}; lower dim, depth, hidden, rank or search"
    )


OFFICIAL_CONFIGS: dict[str, SpmConfig] = {
    "spmtrack_b": SpmConfig("spmtrack_b", 768, 12, 12),
    "spmtrack_l": SpmConfig("spmtrack_l", 1024, 24, 16, hidden=4096),
    "spmtrack_g": SpmConfig("spmtrack_g", 1536, 40, 24, ffn="swiglu", hidden=4096),
}
