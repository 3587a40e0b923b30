"""Places cores on the mesh so that messages travel few hops.

This module decides positions. It must not know what the messages carry. The routers of all chips form one mesh (chips
side by side in a grid that is as square as the chips' shape allows; boards' own wiring between chips is not published),
a message takes as many hops as routers lie between, columns first, then rows.

Start: the best of several fixed curves through the mesh, cores in program order. Improvement: every core proposes the
place where its partners' median lies; disjoint swaps that shorten the way are made together, kept if the total falls.
Deterministic: the random numbers have a fixed seed and the number of rounds does not depend on time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.errors import FitError
from spiketrack_deploy.mapping.types import CoreLimits, FloatArray, IntArray, Placement, Traffic, summed

SEED = 20260223
ROUNDS = 400
PATIENCE = 60
WORK = 6e8
"""Edges looked at, over all rounds, so that a network of 30,000 cores takes well under a minute."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """Places for cores: router column, router row and chip of each, ``[places]``; a grid of chips."""

    x: IntArray
    y: IntArray
    chip: IntArray
    chips_x: int
    chips_y: int


def mesh(limits: CoreLimits, chips: int) -> Mesh:
    """The places of ``chips`` chips, in row-major order chip by chip."""
    per_tile, wide, high = limits.cores_per_tile, limits.tiles_x, limits.tiles_y
    if per_tile * wide * high < limits.cores_per_chip:
        raise FitError(
            f"the profile's mesh of {wide} x {high} routers with {per_tile} cores does not hold "
            f"{limits.cores_per_chip} cores; correct its limits."
        )
    chips_x = max(1, min(chips, round((chips * high / wide) ** 0.5)))
    chips_y = -(-chips // chips_x)
    number = np.arange(chips * limits.cores_per_chip)
    chip, slot = number // limits.cores_per_chip, number // per_tile % -(-limits.cores_per_chip // per_tile)
    chip_row, along = chip // chips_x, chip % chips_x
    chip_column = np.where(chip_row % 2 == 0, along, chips_x - 1 - along)
    return Mesh(chip_column * wide + slot % wide, chip_row * high + slot // wide, chip, chips_x, chips_y)


def place(
    traffic: Traffic, cores: int, limits: CoreLimits, chips: int | None = None, rounds: int = ROUNDS
) -> Placement:
    """Place ``cores`` cores on ``chips`` chips (default: as few as hold them)."""
    chips = chips or max(1, -(-cores // limits.cores_per_chip))
    m = mesh(limits, chips)
    edges = _symmetric(traffic, cores)
    row_major = _cost(edges, m.x, m.y, np.arange(cores))
    starts = [order[:cores] for order in _curves(m)]
    costs = [_cost(edges, m.x, m.y, start) for start in starts]
    seat = _improve(edges, m, starts[int(np.argmin(costs))], rounds)
    hops = _cost(edges, m.x, m.y, seat)
    return Placement(
        m.x[seat], m.y[seat], m.chip[seat], m.chips_x, m.chips_y, hops, row_major, lower_bound(edges, limits)
    )


@dataclass(frozen=True, slots=True)
class _Edges:
    """Undirected traffic, every pair listed from both sides, sorted by ``a``; no core with itself."""

    a: IntArray
    b: IntArray
    w: FloatArray
    cores: int


def _symmetric(traffic: Traffic, cores: int) -> _Edges:
    apart = traffic.source != traffic.target
    a = np.concatenate([traffic.source[apart], traffic.target[apart]])
    b = np.concatenate([traffic.target[apart], traffic.source[apart]])
    w = np.concatenate([traffic.messages[apart]] * 2)
    key, where = np.unique(a * cores + b, return_inverse=True)
    return _Edges(key // max(cores, 1), key % max(cores, 1), summed(where, w, key.size), cores)


def _cost(edges: _Edges, x: IntArray, y: IntArray, seat: IntArray) -> float:
    px, py = x[seat], y[seat]
    far = np.abs(px[edges.a] - px[edges.b]) + np.abs(py[edges.a] - py[edges.b])
    return float((far * edges.w).sum() / 2)


def lower_bound(edges: _Edges, limits: CoreLimits) -> float:
    """Weighted hops that no placement undercuts: every core alone in the best case.

    A router holds ``cores_per_tile`` cores and ``4 k`` routers lie ``k`` hops away; so a core's heaviest partners take
    the other seats of its router, the next ones the seats one hop away, and so on. Half the sum over all cores.
    """
    order = np.lexsort((-edges.w, edges.a))
    a, w = edges.a[order], edges.w[order]
    first = np.searchsorted(a, np.arange(edges.cores))
    rank = np.arange(a.size) - first[a]
    seats = limits.cores_per_tile
    beyond = np.maximum(rank - (seats - 1), -1)  # 0-based among partners that find no seat on the router
    ring = np.floor((-1 + np.sqrt(1 + 2 * np.maximum(beyond, 0) / seats)) / 2).astype(np.int64) + 1
    return float((np.where(beyond < 0, 0, ring) * w).sum() / 2)


def _curves(m: Mesh) -> list[IntArray]:
    """Orders of the places: row-major, whole rows of the mesh, and snakes along strips of several heights."""
    found = [np.arange(m.x.size), np.lexsort((m.x, m.y)), np.lexsort((m.y, m.x))]
    high, wide = int(m.y.max()) + 1, int(m.x.max()) + 1
    step = 1
    while step < 2 * max(high, wide):
        for u, v in ((m.x, m.y), (m.y, m.x)):
            strip = v // step
            along = np.where(strip % 2 == 0, u, -u)
            inside = np.where(along % 2 == 0, v, -v)
            found.append(np.lexsort((inside, along, strip)))
        step *= 2
    return found


def _improve(edges: _Edges, m: Mesh, start: IntArray, rounds: int) -> IntArray:
    """Rounds of simultaneous swaps towards the median of the partners."""
    places = m.x.size
    rng = np.random.default_rng(SEED)
    seat = np.concatenate([start, np.setdiff1d(np.arange(places), start, assume_unique=True)])
    holder = np.empty(places, dtype=np.int64)
    holder[seat] = np.arange(places)
    at = _by_router(m)
    cost = _cost(edges, m.x, m.y, seat)
    limit = int(min(rounds, max(20, WORK / max(edges.a.size, 1))))
    idle = 0
    for number in range(limit):
        partner = _proposals(edges, m, seat, holder, at, rng, number)
        pairs = np.nonzero(partner > np.arange(places))[0]
        if not pairs.size:
            continue
        gain = _gain(edges, m, seat, partner)
        total = gain[pairs] + gain[partner[pairs]]
        good = pairs[total > 1e-9]
        share = 1.0
        while good.size and share > 0.05:
            chosen = good if share == 1.0 else good[rng.random(good.size) < share]
            trial = seat.copy()
            trial[chosen], trial[partner[chosen]] = seat[partner[chosen]], seat[chosen]
            new = _cost(edges, m.x, m.y, trial)
            if new < cost:
                idle = 0 if new < cost * (1 - 1e-4) else idle + 1
                seat, cost = trial, new
                holder[seat] = np.arange(places)
                break
            share /= 3
        else:
            idle += 1
        if idle > PATIENCE:
            break
    return seat[: edges.cores]


def _by_router(m: Mesh) -> IntArray:
    """``[rows, columns, seats]``: the places of every router, -1 where there is none."""
    order = np.lexsort((m.x, m.y))
    key = m.y[order] * (int(m.x.max()) + 1) + m.x[order]
    rank = np.arange(key.size) - np.searchsorted(key, key)
    table = np.full((int(m.y.max()) + 1, int(m.x.max()) + 1, int(rank.max()) + 1), -1, dtype=np.int64)
    table[m.y[order], m.x[order], rank] = order
    return table


def _proposals(
    edges: _Edges, m: Mesh, seat: IntArray, holder: IntArray, at: IntArray, rng: np.random.Generator, number: int
) -> IntArray:
    """A partner for many cores (itself for the others): who sits near the centre of the core's own partners."""
    places = seat.size
    px, py = m.x[seat].astype(np.float64), m.y[seat].astype(np.float64)
    weight = np.bincount(edges.a, weights=edges.w, minlength=places)
    busy = np.nonzero(weight > 0)[0]
    cx = np.bincount(edges.a, weights=edges.w * px[edges.b], minlength=places)[busy] / weight[busy]
    cy = np.bincount(edges.a, weights=edges.w * py[edges.b], minlength=places)[busy] / weight[busy]
    # Some rounds go part of the way only: the centre itself is crowded.
    part = (1.0, 0.5, 0.25)[number % 3]
    spread = (0.7, 1.5, 3.0)[number // 3 % 3]
    tx = px[busy] + part * (cx - px[busy]) + rng.normal(0, spread, busy.size)
    ty = py[busy] + part * (cy - py[busy]) + rng.normal(0, spread, busy.size)
    column = np.clip(np.rint(tx), 0, at.shape[1] - 1).astype(np.int64)
    row = np.clip(np.rint(ty), 0, at.shape[0] - 1).astype(np.int64)
    place = at[row, column, rng.integers(0, at.shape[2], busy.size)]
    wanted = np.where(place >= 0, holder[np.maximum(place, 0)], busy)
    # A matching: first come, first served in a random order; both sides must still be free.
    partner = np.arange(places)
    turn = np.empty(places, dtype=np.int64)
    turn[:] = np.iinfo(np.int64).max
    order = rng.permutation(busy.size)
    np.minimum.at(turn, busy, order)
    np.minimum.at(turn, wanted, order)
    won = (turn[busy] == order) & (turn[wanted] == order) & (wanted != busy)
    partner[busy[won]] = wanted[won]
    partner[wanted[won]] = busy[won]
    return partner


def _gain(edges: _Edges, m: Mesh, seat: IntArray, partner: IntArray) -> FloatArray:
    """Hops saved if a core alone moved to its partner's place; what lies between the two of a pair stays as it is."""
    ax, ay = m.x[seat], m.y[seat]
    bx, by = ax[partner], ay[partner]
    a, b = edges.a, edges.b
    moving = np.nonzero((partner[a] != a) & (partner[a] != b))[0]
    a, b = a[moving], b[moving]
    now = np.abs(ax[a] - ax[b]) + np.abs(ay[a] - ay[b])
    then = np.abs(bx[a] - ax[b]) + np.abs(by[a] - ay[b])
    return summed(a, edges.w[moving] * (now - then), seat.size)
