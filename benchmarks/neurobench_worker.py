"""Runs inside another interpreter, which has NeuroBench 2.3.0 (Apache-2.0) and PyTorch.

Reads one JSON object from standard input: ``frames`` (list of input maps ``[C][h][w]``) and ``layers``: each with
``weight`` ``[O][I][kh][kw]``, ``stride``, ``padding``, ``dilation`` (pairs), ``groups``, and ``threshold`` (a spike
where the layer's sum reaches it; null for the last layer). Prints NeuroBench's synaptic operations per frame as one
JSON object.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    import torch
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    class Fire(torch.nn.Module):
        def __init__(self, threshold: float) -> None:
            super().__init__()
            self.threshold = threshold

        def forward(self, x: Any) -> Any:
            return (x >= self.threshold).to(x.dtype)

    task = json.load(sys.stdin)
    modules: list[Any] = []
    for layer in task["layers"]:
        weight = torch.tensor(layer["weight"], dtype=torch.float32)
        groups = layer["groups"]
        conv = torch.nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(weight.shape[2:]),
            stride=tuple(layer["stride"]),
            padding=tuple(layer["padding"]),
            dilation=tuple(layer["dilation"]),
            groups=groups,
            bias=False,
        )
        conv.weight.data = weight
        modules.append(conv)
        if layer["threshold"] is not None:
            modules.append(Fire(layer["threshold"]))
    frames = torch.tensor(task["frames"], dtype=torch.float32)
    data = torch.utils.data.DataLoader([(frame, torch.zeros(1)) for frame in frames], batch_size=1)
    with torch.no_grad():
        model = TorchModel(torch.nn.Sequential(*modules))
        found = Benchmark(model, data, [], [], [[], [SynapticOperations]]).run(quiet=True)
    print("\n" + json.dumps({key: float(value) for key, value in found["SynapticOperations"].items()}))


if __name__ == "__main__":
    main()
