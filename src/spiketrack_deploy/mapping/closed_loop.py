"""How long a run takes where the next one needs its result: level after level, one run in flight.

This module decides the timing model. It must not know energies. All intervals are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.mapping.types import FloatArray
from spiketrack_deploy.units import ZERO, Interval

ENDS = ("low", "nominal", "high")
CORE_TIMES = (
    (("synops", ("t_synop",)), ("entering", ("t_message_in",))),
    (("words", ("t_word",)),),
    (
        ("native", ("t_slot_native", "t_neuron", "t_neuron_active")),
        ("microcode", ("t_slot_microcode", "t_neuron", "t_neuron_active")),
        ("leaving", ("t_message_out",)),
    ),
)
"""What a core does side by side, the longest of which counts: sums of amount times price (of several names, the first
that a profile has)."""


@dataclass(frozen=True, slots=True)
class CoreWork:
    """What every core does in one elapsed step, float64 ``[cores]`` each: synaptic operations, 64-bit words of synaptic
    memory read, occupied slots of hard-coded and of programmed neurons, messages that enter and leave."""

    synops: FloatArray
    words: FloatArray
    native: FloatArray
    microcode: FloatArray
    entering: FloatArray
    leaving: FloatArray

    @classmethod
    def of(cls, **amounts: ArrayLike) -> CoreWork:
        """What is not named does not happen; single numbers hold for every core."""
        given = {f.name: np.atleast_1d(np.asarray(amounts.get(f.name, 0.0), dtype=np.float64)) for f in fields(cls)}
        return cls(**dict(zip(given, np.broadcast_arrays(*given.values()))))


def core_times(work: CoreWork, profile: Profile) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Seconds of every core in a step, ``[cores]``, at the low, nominal and high ends of the prices.

    What the profile has no time for takes none."""
    ends = []
    for end in ENDS:
        sides = []
        for terms in CORE_TIMES:
            side = np.zeros(work.synops.size)
            for name, prices in terms:
                price = profile.price(*prices)
                if price is not None:
                    side = side + getattr(work, name) * getattr(price, end)
            sides.append(side)
        ends.append(np.max(sides, axis=0))
    return ends[0], ends[1], ends[2]


def barrier(profile: Profile, chips: int) -> Interval | None:
    """The barrier at the end of a step, which is also the least that a step takes; ``None`` where it has no price."""
    return profile.price("t_barrier_chip" if chips == 1 else "t_barrier_chips")


def step_time(
    profile: Profile, synops: ArrayLike, words: ArrayLike, slots: ArrayLike, microcode: ArrayLike, chips: int
) -> Interval:
    """Seconds of one elapsed step. Per core (arrays ``[cores]`` or numbers): synaptic operations, words of synaptic
    memory read, occupied slots of hard-coded neurons, occupied slots of programmed ones; ``chips`` that step together.

    ``max over cores( max(synops t_synop, words t_word, slots t_slot) ) + barrier``. What has no time counts as 0.
    """
    ends = core_times(CoreWork.of(synops=synops, words=words, native=slots, microcode=microcode), profile)
    return Interval(*(float(end.max(initial=0.0)) for end in ends)) + (barrier(profile, chips) or ZERO)
