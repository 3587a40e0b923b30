# mypy: ignore-errors
"""Processes beside those that Lava ships: ``Own``, for what none of them does exactly, and the ends of a network.

This module decides the integer rules of ``Own`` by kind of operation. Ports have Lava's axes (width, height, channels).
"""

from __future__ import annotations

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


def whc(array):
    """``[.., C, H, W]`` in Lava's order ``[.., W, H, C]``."""
    return np.ascontiguousarray(np.swapaxes(array, -1, -3))


class Own(AbstractProcess):
    """Operations of the plan that no Process of Lava does exactly, with their states; zero steps from input to output.

    ``work``: operations in order, names of inputs, outputs and states, the first step that counts.
    """

    def __init__(self, *, name, work):
        super().__init__(name=name, work=work)
        for index, shape in enumerate(work["in_shapes"]):
            setattr(self, f"in_{index}", InPort(shape=tuple(shape)))
        for index, shape in enumerate(work["out_shapes"]):
            setattr(self, f"out_{index}", OutPort(shape=tuple(shape)))


class OwnModel(PyLoihiProcessModel):
    """Undecorated: one class per number of ports."""

    def run_spk(self):
        work = self.proc_params["work"]
        values = {}
        for index, name in enumerate(work["inputs"]):
            values[name] = whc(getattr(self, f"in_{index}").recv().astype(np.int64))[None]
        if not hasattr(self, "held"):
            self.held = {name: np.array(start, dtype=np.int64) for name, start in work["states"].items()}
        if self.time_step < work["first"]:
            # Nothing has arrived yet: a bias must not act before the first step.
            outputs = [np.zeros(shape, dtype=np.int32) for shape in work["out_shapes"]]
        else:
            values.update(self.held)
            for op in work["ops"]:
                values[op["name"]] = RULES[op["kind"]](op, [values[name] for name in op["inputs"]])
            for state, value in work["written"].items():
                self.held[state] = values[value]
            outputs = [whc(values[name][0]).astype(np.int32) for name in work["outputs"]]
        for index, value in enumerate(outputs):
            getattr(self, f"out_{index}").send(value)


class Feed(AbstractProcess):
    """Sends arrays ``[T, ...]`` given at construction, one step after the other, the last one for ever."""

    def __init__(self, *, name, data):
        super().__init__(name=name, data=data)
        for index, array in enumerate(data):
            setattr(self, f"out_{index}", OutPort(shape=array.shape[1:]))


class FeedModel(PyLoihiProcessModel):
    """Undecorated: one class per number of ports."""

    def run_spk(self):
        for index, array in enumerate(self.proc_params["data"]):
            getattr(self, f"out_{index}").send(array[min(self.time_step, len(array)) - 1].astype(np.int32))


class Record(AbstractProcess):
    """Writes what it receives to files ``FOLDER/INDEX.bin``, int32, at the steps ``first <= step < last``."""

    def __init__(self, *, name, folder, wanted):
        super().__init__(name=name, folder=folder, wanted=wanted)
        for index, (shape, _, _) in enumerate(wanted):
            setattr(self, f"in_{index}", InPort(shape=tuple(shape)))


class RecordModel(PyLoihiProcessModel):
    """Undecorated: one class per number of ports."""

    def run_spk(self):
        for index, (_, first, last) in enumerate(self.proc_params["wanted"]):
            value = getattr(self, f"in_{index}").recv()
            if first <= self.time_step < last:
                with open(f"{self.proc_params['folder']}/{index}.bin", "ab") as file:
                    file.write(value.astype(np.int32).tobytes())


def sized(process, model, received, sent):
    """A Process class and its model with so many ports; Lava reads them off the model's class."""
    label = f"{process.__name__}_{received}_{sent}"
    if label not in globals():
        kind = type(label, (process,), {"__module__": __name__})
        ports = {f"in_{n}": LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24) for n in range(received)}
        ports.update({f"out_{n}": LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24) for n in range(sent)})
        made = type(f"{label}_Model", (model,), {"__module__": __name__, **ports})
        globals()[made.__name__] = implements(proc=kind, protocol=LoihiProtocol)(requires(CPU)(tag("fixed_pt")(made)))
        globals()[label] = kind
    return globals()[label]


# Integer rules of operations, by kind (the same equations as in the documents of the exporter). Values [1, C, H, W].


def toward_zero(x, bits):
    return np.sign(x) * (np.abs(x) >> bits)


def limited(op, y):
    return np.clip(y, -op["limit"], op["limit"]) if op.get("limit") else y


def integrate(op, x):
    y = toward_zero(x[0] * op["decay"], 12) + (x[1] << op["shift"])
    return limited(op, y + op["bias"] if "bias" in op else y)


def fire(op, x):
    return np.clip((x[0] - op["first"]) // op["step"] + 1, 0, op["most"])


def reset(op, x):
    return limited(op, x[0] - x[1] * op["level"] if op["subtract"] else np.where(x[1] > 0, op["level"], x[0]))


def sent(op, x):
    act = x[0] + op["bias"] if "bias" in op else x[0]
    delta = (np.maximum(act, 0) if op["rectified"] else act) - x[1]
    return limited(op, np.where(np.abs(delta) >= op["threshold"], delta, 0))


def rescale(op, x):
    return limited(op, (x[0] * op["factor"] + ((1 << op["shift"]) >> 1)) >> op["shift"])


def requantise(op, x):
    s = op["shift"].astype(np.int64)[:, None, None]
    return (x[0] + np.where(s > 0, 1 << np.maximum(s - 1, 0), 0)) >> s


def ni_lif(op, x):
    level = x[0][0] if "offset" not in op else x[0][0] + op["offset"][0]
    return sum(
        (level >= op["thresholds"][:, k, None, None]).astype(np.int64) for k in range(op["thresholds"].shape[1])
    )[None]


def weighted(op, x):
    w = op["weight"][0].astype(np.int64)
    (outputs, fan_in, rows, cols), groups = w.shape, op["groups"]
    padded = np.pad(x[0][0], ((0, 0), (op["padding_h"],) * 2, (op["padding_w"],) * 2))
    out_h = (padded.shape[1] - op["dilation_h"] * (rows - 1) - 1) // op["stride_h"] + 1
    out_w = (padded.shape[2] - op["dilation_w"] * (cols - 1) - 1) // op["stride_w"] + 1
    y = np.zeros((groups, outputs // groups, out_h, out_w), dtype=np.int64)
    for i in range(rows):
        for j in range(cols):
            top, left = i * op["dilation_h"], j * op["dilation_w"]
            part = padded[:, top : top + (out_h - 1) * op["stride_h"] + 1 : op["stride_h"],
                          left : left + (out_w - 1) * op["stride_w"] + 1 : op["stride_w"]]  # fmt: skip
            tap = w[:, :, i, j].reshape(groups, outputs // groups, fan_in)
            y += np.einsum("goc,gcij->goij", tap, part.reshape(groups, fan_in, out_h, out_w))
    y = y.reshape(1, outputs, out_h, out_w) << op["shift"].astype(np.int64)[:, :, None, None]
    bias = op["bias"].astype(np.int64)
    return y + (bias[None] if bias.ndim == 3 else bias[:, :, None, None])


def gate(op, x):
    """Of T logits and T spikes: sum_t e[t] (n[t] - 2), e a table of exponentials of the distance to the largest."""
    steps = len(x) // 2
    level = np.stack([a.reshape(-1) for a in x[:steps]])
    e = op["table"][np.minimum((level.max(axis=0) - level) >> op["shift"], op["table"].size - 1)]
    return sum(e[t][None, :, None, None] * (x[steps + t] - 2) for t in range(steps))


def key_value(op, x):
    tokens = x[0].shape[2] * x[0].shape[3]
    k, v = (a.reshape(1, op["heads"], -1, tokens) for a in x)
    return np.matmul(k, v.swapaxes(2, 3))


def query(op, x):
    _, _, height, width = x[0].shape
    rows = np.matmul(x[1].swapaxes(2, 3), x[0].reshape(1, op["heads"], -1, height * width))
    return rows.reshape(1, -1, height, width) << op["shift"]


RULES = {
    "integrate": integrate,
    "fire": fire,
    "reset": reset,
    "change": lambda op, x: sent(op, x) >> op["shift"],
    "told": lambda op, x: x[1] + sent(op, x),
    "rescale": rescale,
    "requantise": requantise,
    "ni_lif": ni_lif,
    "conv": weighted,
    "graded_conv": weighted,
    "image_conv": weighted,
    "head_out": weighted,
    "leak": lambda op, x: toward_zero(op["decay"] * (x[0] - x[1] * op["reset"][:, None, None]), 12) + x[2],
    "gate": gate,
    "key_value": key_value,
    "query": query,
    "add": lambda op, x: x[0] + x[1],
}
