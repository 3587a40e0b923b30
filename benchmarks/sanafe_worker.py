"""Runs inside another interpreter, which has SANA-FE (GPL-3.0) and need not have anything else.

Reads one JSON object from standard input: ``outputs`` (number of target neurons), ``spikes`` (per input neuron its list
of 0 and 1 per step), ``edges`` (pairs input, output), ``synapse`` (name of the chip's synapse unit). Prints one JSON
object: SANA-FE's energies in joules, its synaptic events and fired neurons. One flush step follows, because a soma
consumes its input in the step after.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    import sanafe

    task = json.load(sys.stdin)
    arch = sanafe.load_loihi()
    network = sanafe.Network()
    synapse = task["synapse"]
    out = network.create_neuron_group(
        "out",
        task["outputs"],
        model_attributes={"threshold": 1e30},
        default_synapse_hw_name=synapse,
        default_dendrite_hw_name="loihi_dendrites",
        soma_hw_name="loihi_lif",
    )
    inputs = network.create_neuron_group("in", len(task["spikes"]), default_synapse_hw_name=synapse)
    for index, train in enumerate(task["spikes"]):
        inputs[index].set_attributes(soma_hw_name=f"loihi_inputs[{index}]", model_attributes={"spikes": [*train, 0]})
    # Inputs and targets on two cores of one tile, in the order in which neurons are numbered.
    for group, core in ((out, arch.tiles[0].cores[1]), (inputs, arch.tiles[0].cores[0])):
        for index in range(len(group)):
            group[index].map_to_core(core)
    # A synapse of weight 0 costs as much and moves no membrane: a soma is then updated only when input arrives.
    weights = [0.0] * len(task["edges"])
    inputs.connect_neurons_sparse(out, {"weight": weights}, [tuple(edge) for edge in task["edges"]])
    chip = sanafe.SpikingChip(arch)
    chip.load(network)
    found = chip.sim(len(task["spikes"][0]) + 1, timing_model="simple")
    keys = ("spikes", "neurons_fired", "sim_time")
    print(json.dumps({"energy": dict(found["energy"])} | {key: found[key] for key in keys if key in found}))


if __name__ == "__main__":
    main()
