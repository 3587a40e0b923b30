"""What a target can hold: from a profile's limits, or a board's name, to :class:`CoreLimits` and a number of chips.

This module decides which limits bind and which profiles can hold a network at all. It must not know networks.
"""

from __future__ import annotations

from spiketrack_deploy.errors import ProfileError, UsageError
from spiketrack_deploy.hardware.profiles import list_profiles, load_profile
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.mapping.types import CoreLimits

WORD_BYTES = 8


def resolve_target(name: str) -> tuple[Profile, int | None]:
    """Profile and number of chips of a target: a profile's name or file (a chip family: ``None``, as many chips as
    needed; a board: its chips). Raises UsageError for an unknown name.
    """
    profiles = list_profiles()
    named = next((p for p in profiles if p.name == name), None)
    if named is None and (name.endswith(".toml") or "/" in name):
        named = load_profile(name)
    if named is not None:
        return named, _chips(named) if named.kind == "board" else None
    chips = [p.name for p in profiles if p.kind == "chip" and "cores_per_chip" in p.limits]
    boards = [p.name for p in profiles if p.kind == "board"]
    raise UsageError(f"there is no target {name!r}; chips are {', '.join(chips)}, boards are {', '.join(boards)}.")


def _chips(board: Profile) -> int:
    chips = board.limits["chips"].value if "chips" in board.limits else 0
    if chips < 1:
        raise ProfileError(f"profile {board.name} is a board without chips; give limit chips of at least 1.")
    return chips


def core_limits(profile: Profile) -> CoreLimits:
    """The limits of a core and the mesh. ProfileError where they are missing, zero or contradict one another."""

    def limit(name: str) -> int | None:
        return profile.limits[name].value if name in profile.limits else None

    def required(name: str) -> int:
        value = limit(name)
        if value is None:
            raise ProfileError(
                f"profile {profile.name} has no limit {name}: nothing can be mapped to it; choose a chip such as "
                "loihi2."
            )
        if value < 1:
            raise ProfileError(f"profile {profile.name}: limit {name} is {value}; give at least 1.")
        return value

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
    x, y = _mesh(profile, cores, per_tile, limit("tiles_x"), limit("tiles_y"))
    return CoreLimits(
        neurons=min(neurons, compiler or neurons),
        words=words if words is not None else memory // WORD_BYTES if memory is not None else None,
        axons_in=limit("input_axons_per_core"),
        axons_out=limit("axon_map_per_core") if limit("axon_map_per_core") else limit("output_axons_per_core"),
        groups=limit("neuron_groups_per_core"),
        weight_bits=limit("weight_bits"),
        payload_bits=limit("payload_bits"),
        cores_per_chip=cores,
        cores_per_tile=per_tile,
        tiles_x=x,
        tiles_y=y,
        neurons_compiler=compiler is not None and compiler < neurons,
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
