"""Two yardsticks beside every total: the dense twin, and the published convention of SpikeTrack.

This module decides how they are computed; it must not know the chip that was asked for. Both take their figures from
profiles (``cmos45``: Horowitz, ISSCC 2014; accelerators: what they drew), so no coefficient is written here.

    dense twin   E = dense multiply-accumulates * (MAC + its memory traffic), the same network as an ANN
    published    E = dense MACs * ADD * mean spike value of the layer's input; the image convolution * MAC
    exact        E = unit operations * ADD;                                     the image convolution's real MACs * MAC
                 (every layer of a network without spikes is multiply-accumulates in both)

The published form is arXiv 2602.23963 (its firing-rate hook already holds the factor D = 4, so the mean spike value
0..4 is meant and D is not applied again). It equals the exact one where every weight is non-zero and no border is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.errors import ProfileError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.units import ZERO, Interval, total


def _required(profile: Profile, name: str) -> Interval:
    cost = profile.price(name)
    if cost is None:
        raise ProfileError(f"profile {profile.name}: prices.{name} is missing; a convention needs it.")
    return cost


@dataclass(frozen=True, slots=True)
class DenseTwin:
    """The same network as an ANN, one precision. Energies in nanojoules; ``mac``: of one multiply-accumulate, with its
    memory traffic where the profile has a price for it; ``addition``: of a spike's, ``None`` on an accelerator."""

    profile: str
    macs: float
    mac: Interval
    addition: Interval | None

    @property
    def energy(self) -> Interval:
        """Of one run, nanojoules."""
        return self.mac * self.macs

    def to_dict(self) -> dict[str, Any]:
        """As energy.json writes it; ``mac_to_addition``: nominal, ``None`` where the profile has no addition."""
        ratio = self.mac.nominal / self.addition.nominal if self.addition and self.addition.nominal else None
        return {
            "profile": self.profile,
            "dense_macs": self.macs,
            "mac_nj": self.mac.to_dict(),
            "energy_nj": self.energy.to_dict(),
            "mac_to_addition": ratio,
        }


def dense_twin(layers: Sequence[LayerCounts], profile: Profile) -> DenseTwin:
    """Price ``dense_macs`` of all layers: at the multiply-accumulate of a ``cmos45`` profile, with its memory traffic
    where that has a price, or at that of an accelerator (``dense_mac``). ProfileError where the profile has neither."""
    macs = sum(layer["dense_macs"] for layer in layers)
    whole = profile.price("dense_mac")
    mac = whole or _required(profile, "mac") + (profile.price("mac_memory") or ZERO)
    return DenseTwin(profile.name, macs, mac, profile.price("unit_op"))


@dataclass(frozen=True, slots=True)
class ConventionLayer:
    """One layer under the published convention and by exact count, nanojoules.

    ``mean_input``: mean spike value of its input, 0..4 (SFR * D); ``None`` for the image convolution.
    """

    name: str
    mean_input: float | None
    published: Interval
    exact: Interval

    def to_dict(self) -> dict[str, Any]:
        """As energy.json writes it; the difference is nominal, published minus exact."""
        return {
            "name": self.name,
            "mean_input": self.mean_input,
            "published_nj": self.published.to_dict(),
            "exact_nj": self.exact.to_dict(),
            "difference_nj": self.published.nominal - self.exact.nominal,
        }


@dataclass(frozen=True, slots=True)
class Convention:
    """The published convention over a phase, beside the exact count in the same prices."""

    profile: str
    layers: tuple[ConventionLayer, ...]

    @property
    def published(self) -> Interval:
        """Sum over layers, nanojoules."""
        return total(layer.published for layer in self.layers)

    @property
    def exact(self) -> Interval:
        """Sum over layers, nanojoules."""
        return total(layer.exact for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """As energy.json writes it."""
        return {
            "profile": self.profile,
            "published_nj": self.published.to_dict(),
            "exact_nj": self.exact.to_dict(),
            "difference_nj": self.published.nominal - self.exact.nominal,
            "layers": [layer.to_dict() for layer in self.layers],
        }


def published_convention(layers: Sequence[LayerCounts], profile: Profile) -> Convention:
    """Firing rate times operations, layer by layer, and its difference from the exact count.

    Layers without dense multiply-accumulates are not in the convention and not in the list.
    """
    addition, mac = _required(profile, "unit_op"), _required(profile, "mac")
    rows = []
    for layer in layers:
        dense = layer["dense_macs"]
        if not dense:
            continue
        if layer.kind == "image_conv" or layer["macs"]:  # real values: multiply-accumulates in either form
            rows.append(ConventionLayer(layer.name, None, mac * dense, mac * layer["macs"]))
        else:
            size = layer.counts.get("input_size", 0)
            mean_input = layer.counts.get("input_sum", 0) / size if size else 0.0
            published = addition * (dense * mean_input)
            rows.append(ConventionLayer(layer.name, mean_input, published, addition * layer["unit_ops"]))
    return Convention(profile.name, tuple(rows))
