"""What a target can hold: from a profile's limits to :class:`CoreLimits`.

This module decides which limits bind and which profiles can hold a network at all. It must not know networks.
"""

from __future__ import annotations

from spiketrack_deploy.errors import ProfileError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.mapping.families import family_of
from spiketrack_deploy.mapping.types import CoreLimits

WORD_BYTES = 8


def core_limits(profile: Profile) -> CoreLimits:
    """The limits of a core and the mesh. ProfileError where the profile names no family of chips, or its limits are
    missing, zero or contradict one another."""

    def limit(name: str) -> int | None:
        return profile.limits[name].value if name in profile.limits else None

    def required(name: str) -> int:
        value = limit(name)
        if value is None:
            raise ProfileError(
                f"profile {profile.name} has no limit {name}: nothing can be mapped to it; state it, or choose "
                "another chip."
            )
        if value < 1:
            raise ProfileError(f"profile {profile.name}: limit {name} is {value}; give at least 1.")
        return value

    family = family_of(profile)
    neurons, compiler = required("neurons_per_core"), limit("neurons_per_core_compiler")
    words, memory = limit("synaptic_words_per_core"), limit("synaptic_memory_per_core")
    if compiler is not None and compiler > neurons:
        raise ProfileError(
            f"profile {profile.name}: neurons_per_core_compiler {compiler} exceeds neurons_per_core {neurons}."
        )
    if words is not None and memory is not None and words * WORD_BYTES > memory:
        raise ProfileError(
            f"profile {profile.name}: {words} words of {WORD_BYTES} bytes exceed synaptic_memory_per_core {memory}."
        )
    cores, per_tile = required("cores_per_chip"), limit("cores_per_tile") or 1
    usable = profile.limits.get("usable_cores_per_chip")
    x, y = _mesh(profile, cores, per_tile, limit("tiles_x"), limit("tiles_y"))
    return CoreLimits(
        neurons=min(neurons, compiler or neurons),
        words=words if words is not None else memory // WORD_BYTES if memory is not None else None,
        axons_in=limit("input_axons_per_core"),
        axons_out=limit("axon_map_per_core") if limit("axon_map_per_core") else limit("output_axons_per_core"),
        groups=limit("neuron_groups_per_core"),
        weight_bits=limit("weight_bits"),
        payload_bits=limit("payload_bits"),
        cores_per_chip=usable.value if usable else cores,
        cores_per_tile=per_tile,
        tiles_x=x,
        tiles_y=y,
        neurons_compiler=compiler is not None and compiler < neurons,
        family=family,
        usable=usable.band if usable else None,
        built=cores if usable else None,
        memory=limit("memory_per_core"),
        state_bytes=limit("neuron_state_bytes") or 0,
        axon_bytes=limit("input_axon_bytes") or 0,
    )


def _mesh(profile: Profile, cores: int, per_tile: int, x: int | None, y: int | None) -> tuple[int, int]:
    """The stated mesh, or one twice as wide as high that holds all cores (then an assumption)."""
    tiles = -(-cores // per_tile)
    if x is None and y is None:
        y = max(1, round((tiles / 2) ** 0.5))
        x = -(-tiles // y)
    elif x is None or y is None:
        known = x or y or 1
        x, y = (x, -(-tiles // known)) if x is not None else (-(-tiles // known), y)
    if not x or not y or x * y * per_tile < cores:
        raise ProfileError(
            f"profile {profile.name}: {x} x {y} tiles of {per_tile} cores do not hold the {cores} cores of a chip."
        )
    return x, y
