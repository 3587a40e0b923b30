"""What enters the chips for a picture: its pixels, or the spikes of a first layer that the host runs.

This module decides which populations a host computes when it runs the first layer: neurons that read pictures and
nothing else (and their own membranes). A first layer whose sums go on as a stream would have to be sent whole, which
is no shorter than pixels, and stays. It must not know cores, prices, or what a host is. A picture's way into a chip is
paid by the value that enters (``t_image``): the spikes of mostly silent neurons are fewer values than the pixels.
"""

from __future__ import annotations

from dataclasses import replace

from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.mapping.activity import Activity
from spiketrack_deploy.mapping.populations import with_levels
from spiketrack_deploy.mapping.types import PopulationGraph, Verdict

CHIP, HOST = "chip", "host"
FIRST_LAYER = (CHIP, HOST)
REASON = "reads pixels; the host runs it and sends what it fires"


def spikes_enter(network: PopulationGraph) -> tuple[PopulationGraph, list[int]]:
    """The network whose first layer is computed outside: its populations are of kind ``entry``, and pixels are gone;
    and which synapses of ``network`` its own are.

    UsageError where no neurons read a picture alone.
    """
    images = {index for index, p in enumerate(network.populations) if p.kind == "image"}
    moved: set[int] = set()
    for target, incoming in enumerate(network.incoming()):
        sources = {network.synapses[i].source for i in incoming}
        population = network.populations[target]
        neurons = population.kind == "neurons" and not population.keeps
        if neurons and sources & images and sources <= images | moved | {target}:
            moved.add(target)
    if not moved:
        raise UsageError("no neurons read a picture and nothing else, so a host has no spikes to send in its place")
    kept = [i for i, s in enumerate(network.synapses) if s.target not in moved]
    order = sorted(kept, key=lambda i: network.synapses[i].source >= network.synapses[i].target)  # recurrent ones last
    read = {network.synapses[i].source for i in kept}
    left = [i for i in range(len(network.populations)) if i not in images or i in read]
    place = {old: new for new, old in enumerate(left)}
    found = tuple(replace(network.populations[i], kind="entry") if i in moved else network.populations[i] for i in left)
    old = [network.synapses[i] for i in order]
    synapses = [replace(s, source=place[s.source], target=place[s.target]) for s in old]
    levelled = with_levels(network.phase, found, [s for s in synapses if s.source < s.target])
    recurrent = synapses[len(levelled.synapses) :]
    return replace(levelled, synapses=(*levelled.synapses, *recurrent)), order


def without_first_layer(network: PopulationGraph) -> tuple[PopulationGraph, list[int]] | None:
    """:func:`spikes_enter`, or ``None`` where there is nothing to leave to a host."""
    try:
        return spikes_enter(network)
    except UsageError:
        return None


def entering(network: PopulationGraph, activity: Activity) -> float:
    """Values that enter for a run: every pixel, and of a first layer outside what it sends."""
    sent = {s.source: activity.rate[i] for i, s in enumerate(network.synapses)}
    return float(
        sum(
            p.slots * (sent.get(index, 0.0) if p.kind == "entry" else 1.0)
            for index, p in enumerate(network.populations)
            if p.kind in ("image", "entry")
        )
    )


def outside(whole: PopulationGraph, rest: PopulationGraph) -> frozenset[str]:
    """Operations of ``whole`` that ``rest`` leaves to the host."""
    own = {p.op for p in rest.populations if p.on_chip} | {s.op for s in rest.synapses}
    every = {p.op for p in whole.populations} | {s.op for s in whole.synapses}
    return frozenset(every - own)


def by_host(verdicts: tuple[Verdict, ...], operations: frozenset[str]) -> tuple[Verdict, ...]:
    """Verdicts of operations that were given to the host."""
    return tuple(replace(v, verdict="host", reason=REASON) if v.op in operations else v for v in verdicts)
