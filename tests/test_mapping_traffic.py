"""Messages between cores against brute force; placement against its promises; link loads by walking every route."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from _mapping import loihi2, map_search, official_program, small_program

from spiketrack_deploy.errors import ProfileError
from spiketrack_deploy.mapping.check import core_of
from spiketrack_deploy.mapping.links import link_loads
from spiketrack_deploy.mapping.placement import mesh, place
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.traffic import traffic
from spiketrack_deploy.mapping.types import CoreLimits, Traffic
from spiketrack_deploy.program.ops.stream import upsample_matrix


def reached(network, s, owner, c, y, x):
    """Cores that hold a target of source neuron (c, y, x): from the equations, position by position."""
    p, q = network.populations[s.source], network.populations[s.target]
    if s.form == "product" or s.transposed:
        ic, iy, ix = (y * p.width + x, c, 0) if s.transposed else (c, None, None)
    else:
        ic, iy, ix = c, y, x
    inputs = p.height * p.width if s.transposed else p.channels
    group = ic * s.groups // inputs
    channels = range(group * q.channels // s.groups, (group + 1) * q.channels // s.groups)
    found = set()
    for ty, tx in itertools.product(range(q.height), range(q.width)):
        if s.form == "product":
            hit = True
        elif s.form == "upsample":
            rows, columns = upsample_matrix(p.height, s.stride[0]), upsample_matrix(p.width, s.stride[1])
            hit = rows[ty, iy] and columns[tx, ix]
        else:
            hit = all(
                any(o * stride + k * dilation - padding == i for k in range(size))
                for o, i, size, stride, padding, dilation in zip(
                    (ty, tx), (iy, ix), s.kernel, s.stride, s.padding, s.dilation
                )
            )
        if hit:
            found.update(owner[s.target][list(channels), ty].tolist())
    return found


@pytest.mark.parametrize(("seed", "steps"), [(0, 1), (1, 3)])
def test_messages_equal_brute_force(seed, steps):
    """Every bundle of synapses, a drawn sample of its source neurons."""
    program = small_program(seed, steps)
    network = populations(program, "search")
    rng = np.random.default_rng(0)
    mapping = map_search(program, loihi2(neurons_per_core=300, neurons_per_core_compiler=300), rounds=1)
    owner = core_of(mapping)
    seen = set()
    for index, s in enumerate(network.synapses):
        p = network.populations[s.source]
        kind = (s.form, s.kernel, s.stride, s.dilation, s.groups == 1, s.transposed)
        if s.form == "host" or not p.on_chip or kind in seen:
            continue
        seen.add(kind)
        flow, _, sent = traffic(network, mapping.pieces, mapping.cores, np.eye(len(network.synapses))[index])
        by_core = {(int(a), int(b)): m for a, b, m in zip(flow.source, flow.target, flow.messages) if m}
        assert sum(by_core.values()) == pytest.approx(sent[index])
        brute: dict[tuple[int, int], int] = {}
        chosen = int(rng.choice(np.unique(owner[s.source])))
        for c, y in np.argwhere(owner[s.source] == chosen).tolist():
            for x in range(p.width):
                for core in reached(network, s, owner, c, y, x):
                    brute[chosen, core] = brute.get((chosen, core), 0) + 1
        here = {key: m for key, m in by_core.items() if key[0] == chosen}
        assert here == pytest.approx(brute), f"{s.name} ({s.form}): messages of core {chosen} differ"
    assert {"conv", "identity", "matrix"} <= {kind[0] for kind in seen}
    assert steps == 1 or any(kind[5] for kind in seen), "the transposition in front of the gate was not compared"


def test_link_loads_equal_walking_every_message():
    program = small_program(0, 1)
    mapping = map_search(program, loihi2(neurons_per_core=300, neurons_per_core_compiler=300), rounds=5)
    loads = link_loads(mapping.placement.x, mapping.placement.y, mapping.traffic)
    walked = {name: np.zeros_like(load) for name, load in loads.items()}
    at, flow = mapping.placement, mapping.traffic
    for a, b, messages in zip(flow.source, flow.target, flow.messages):
        x, y = int(at.x[a]), int(at.y[a])
        while x != at.x[b]:
            step = 1 if at.x[b] > x else -1
            walked["east" if step > 0 else "west"][y, min(x, x + step)] += messages
            x += step
        while y != at.y[b]:
            step = 1 if at.y[b] > y else -1
            walked["south" if step > 0 else "north"][min(y, y + step), x] += messages
            y += step
    for name, load in loads.items():
        np.testing.assert_allclose(load, walked[name], atol=1e-6, err_msg=name)
    assert sum(load.sum() for load in loads.values()) == pytest.approx(at.hops)


TINY = CoreLimits(10, None, None, None, None, 8, 32, 4, 1, 2, 2, family="loihi2")
"""Four routers of one core."""


def test_lower_bound_holds_for_every_placement_of_a_tiny_mesh():
    rng = np.random.default_rng(3)
    for _ in range(20):
        pairs = np.array([(a, b) for a in range(4) for b in range(4) if a != b])
        level = np.ones(len(pairs), dtype=np.int64)
        flow = Traffic(pairs[:, 0], pairs[:, 1], level, rng.integers(0, 9, len(pairs)).astype(float))
        placed = place(flow, 4, TINY, 1)
        m = mesh(TINY, 1)
        costs = []
        for order in itertools.permutations(range(4)):
            seat = np.array(order)
            far = np.abs(m.x[seat[pairs[:, 0]]] - m.x[seat[pairs[:, 1]]])
            far = far + np.abs(m.y[seat[pairs[:, 0]]] - m.y[seat[pairs[:, 1]]])
            costs.append(float((far * flow.messages).sum()))
        assert placed.bound <= min(costs) + 1e-9, "the lower bound exceeds the best placement"
        assert min(costs) - 1e-9 <= placed.hops <= placed.row_major + 1e-9


def test_placement_saves_30_percent_on_s256_t1_and_is_deterministic():
    program = official_program("s256_t1")
    one, two = (map_search(program, loihi2()) for _ in range(2))
    assert one.placement.hops <= 0.7 * one.placement.row_major
    assert one.placement.bound <= one.placement.hops
    assert np.array_equal(one.placement.x, two.placement.x) and np.array_equal(one.placement.y, two.placement.y)
    assert np.array_equal(one.pieces, two.pieces)


def test_mesh_that_cannot_hold_its_cores_is_refused():
    with pytest.raises(ProfileError, match="do not hold"):
        map_search(small_program(0, 1), loihi2(tiles_x=2, tiles_y=2))
