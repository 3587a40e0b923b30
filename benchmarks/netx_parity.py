"""lava-dl's networks here and there: recorded traces of its wheel, and files of ours in its own loader.

    python benchmarks/netx_parity.py [--python PYTHON] [--drawn N]

Without ``--python`` the traces alone: fixtures of the lava-dl wheel (fetched by pip when needed, 68 MB), compared spike
for spike and integer for integer. With an interpreter that has lava-dl 0.6.0 (``SPIKETRACK_LAVA_DL_PYTHON``) also drawn
networks of every neuron type: written by this package, run by ``lava.lib.dl.netx.hdf5.Network`` in a process group that
is killed after its time limit, compared with this package's program; and the fixtures, read, written and run again.
Exit code 0: nothing differs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "src")]

from spiketrack_deploy.engines.factory import make_engine  # noqa: E402
from spiketrack_deploy.errors import EngineError, SpiketrackError  # noqa: E402
from spiketrack_deploy.frontends.netx.lower import lower_netx  # noqa: E402
from spiketrack_deploy.frontends.netx.network import Layer, NetxNetwork, Neuron  # noqa: E402
from spiketrack_deploy.frontends.netx.read import read_netx  # noqa: E402
from spiketrack_deploy.frontends.netx.recognise import recognise  # noqa: E402
from spiketrack_deploy.frontends.netx.write import write_netx  # noqa: E402
from spiketrack_deploy.program.types import IntArray, Program  # noqa: E402

REQUIREMENT, WHEEL, PYTHON = "lava-dl==0.6.0", "SPIKETRACK_LAVA_DL_WHEEL", "SPIKETRACK_LAVA_DL_PYTHON"
FOLDER = "tests/lava/lib/dl/netx/"
FIXTURES = {
    "tiny": "tiny.net",
    "mnist": "mnist.net",
    "pilotnet_lif": "gts/pilotnet_lif/network.net",
    "pilotnet_sdnn": "gts/pilotnet_sdnn/network.net",
    "ntidigits": "gts/ntidigits/ntidigits.net",
}
RUN_SECONDS = 240
Clears = Callable[[int, int], bool]
"""Whether layer ``l`` is cleared before step ``t``, both from 0."""


class Wheel:
    """Files of the lava-dl wheel."""

    def __init__(self, folder: Path) -> None:
        given = os.environ.get(WHEEL)
        if not given:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
            command += ["--python-version", "3.10", "--dest", str(folder), REQUIREMENT]
            if subprocess.run(command, timeout=600, check=False).returncode:
                raise EngineError(f"{REQUIREMENT} was not fetched; set {WHEEL} to its wheel")
            given = str(next(folder.glob("lava_dl-*.whl")))
        self.archive, self.folder = zipfile.ZipFile(given), folder

    def network(self, name: str) -> Path:
        """A fixture as a file."""
        path = self.folder / f"{name}.net"
        path.write_bytes(self.archive.read(FOLDER + FIXTURES[name]))
        return path

    def array(self, name: str) -> Any:
        """A recorded array."""
        return np.load(io.BytesIO(self.archive.read(f"{FOLDER}gts/{name}.npy")), allow_pickle=False)

    def maps(self, name: str) -> IntArray:
        """A record ``[.., T]`` in Lava's order of axes as ``[T, C, H, W]``."""
        a = self.array(name).astype(np.int64)
        found: IntArray = a.transpose(3, 2, 1, 0) if a.ndim == 4 else a.T[:, :, None, None]
        return found


def run(
    program: Program, x: IntArray, clears: Clears | None = None, layers: tuple[str, ...] = ()
) -> dict[str, IntArray]:
    """All steps of a program; outputs ``[T, ...]`` by name, ``NAME.spikes`` of the ``layers``, and ``saturated``."""
    found: dict[str, list[IntArray]] = {}
    saturated = 0

    def watch(op: Any, value: IntArray) -> None:
        if op.name.removesuffix(".spikes") in layers and op.kind == "fire":
            found.setdefault(op.name, []).append(value[0])

    with make_engine("reference" if program.width > 24 else "sim", program) as engine:
        session = engine.session()
        for t, given in enumerate(x):
            for index, name in enumerate(layers):
                for state in [s for s in session.states if s.startswith(f"{name}.") and s.endswith(".held")]:
                    if clears is not None and clears(t, index):
                        session.states[state] = np.zeros_like(session.states[state])
            result = session.step("step", {"input": given[None]}, watch=watch)
            saturated += sum(c.saturated for c in result.counts.values())
            for name, value in result.outputs.items():
                found.setdefault(name, []).append(value[0])
    return {name: np.stack(values) for name, values in found.items()} | {"saturated": np.array(saturated)}


def tiny(wheel: Wheel) -> Iterator[tuple[str, int, int]]:
    """Cleared every 17 steps, layer l one step behind layer l - 1, as its test does with Lava's Reset Process."""
    network = read_netx(wheel.network("tiny"))
    drive = wheel.array("tinynet/input_bias").astype(np.int64).transpose(2, 1, 0)
    want = np.moveaxis(wheel.array("tinynet/output")[0], -1, 0).astype(np.int64)
    names = tuple(layer.name for layer in network.layers)
    for timing, late, clears in (
        ("lava", 2, lambda t, k: t > 0 and (t - 1) % 17 == (k - 1) % 17),
        ("aligned", 0, None),
    ):
        got = run(lower_netx(network, timing), np.stack([drive] * 17), clears, names)
        yield f"tiny, output, {timing}", int((got["output"][late : late + 15] != want[1:]).sum()), int(want[1:].sum())


def pilotnet_lif(wheel: Wheel) -> Iterator[tuple[str, int, int]]:
    """Every layer of the record; layer l is cleared before its steps l and l + 17."""
    network = read_netx(wheel.network("pilotnet_lif"))
    image = wheel.array("pilotnet_lif/image").astype(np.int64).transpose(2, 1, 0)
    names = tuple(layer.name for layer in network.layers)
    got = run(lower_netx(network), np.stack([image] * 24), lambda t, k: t in (k, k + 17), names)
    records = ("input", *(f"conv-{n}" for n in range(5)), "fc-0", "fc-1", "fc-2")
    for name, record in zip(names, records):
        want = wheel.maps(f"pilotnet_lif/{record}")
        yield f"pilotnet_lif, {name}", int((got[f"{name}.spikes"] != want).sum()), int(want.sum())


def pilotnet_sdnn(wheel: Wheel) -> Iterator[tuple[str, int, int]]:
    """The sums of the last layer; one picture, then no change."""
    network, first = read_netx(wheel.network("pilotnet_sdnn")), wheel.maps("pilotnet_sdnn/input")
    want = wheel.array("pilotnet_sdnn/output").astype(np.int64).ravel()
    x = np.concatenate([first, np.zeros((len(want) - 1, *first.shape[1:]), np.int64)])
    got = run(lower_netx(network), x)
    yield "pilotnet_sdnn, output", int((got["output"].ravel() != want).sum()) + int(got["saturated"]), len(want)


def ntidigits(wheel: Wheel) -> Iterator[tuple[str, int, int]]:
    """3000 steps of a network with axonal delays. The record begins a step later than Lava's own steps."""
    network = read_netx(wheel.network("ntidigits"))
    x, want = (wheel.array(f"ntidigits/{name}").astype(np.int64).T for name in ("input", "output"))
    got = run(lower_netx(network), x.reshape(len(x), 1, 1, -1))
    differ = int((got["output"].reshape(want.shape)[:-1] != want[1:]).sum()) + int(got["saturated"])
    yield "ntidigits, output", differ, int(want.sum())


def in_lava(python: str, network: Path, x: IntArray) -> IntArray:
    """What netx gives; EngineError where it dies or does not end."""
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(given, x=x)
        command = [python, str(ROOT / "benchmarks" / "netx_worker.py"), str(network), str(given), str(result)]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
            try:
                status = process.wait(RUN_SECONDS)
            except subprocess.TimeoutExpired:
                status = -1
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if status or not result.exists():
            tail = (Path(folder) / "log").read_text(errors="replace").strip().splitlines()[-3:]
            raise EngineError(f"{python}: netx ended with {status}: {' / '.join(tail)}")
        with np.load(result) as done:
            out: IntArray = done["out"]
    return out


def drawn(rng: np.random.Generator, kind: str) -> NetxNetwork:
    """A small network whose biases and weights make it spike. ``kind``: current, recurrent, delayed, sdnn, cuba."""
    shape = (2, 7, 5)
    current = int(rng.integers(300, 4096)) if kind == "current" else 4096
    cuba = Neuron("cuba", int(rng.integers(8, 40)), current, int(rng.integers(0, 4097)))

    def weights(*size: int) -> IntArray:
        w = rng.integers(-128, 128, size)
        w[0] = np.abs(w[0])
        return w

    def bias(count: int) -> IntArray:
        found: IntArray = rng.integers(-10, 20, count)
        return found

    if kind == "sdnn":
        neurons = [Neuron("sdnn", int(rng.integers(0, 5))) for _ in range(3)] + [Neuron("sdnn", 0, sigma=True)]
        small = [weights(*size) // 8 for size in ((3, 2, 3, 2), (6, 45, 1, 1), (4, 6, 1, 1))]
        conv = Layer("1.conv", "conv", (3, 3, 5), neurons[1], small[0], bias(3), (2, 1), (0, 1), (1, 2))
        dense = Layer("2.dense", "dense", (6, 1, 1), neurons[2], small[1], bias(6))
        first = Layer("0.input", "input", shape, neurons[0], np.zeros(0, np.int64))
        return NetxNetwork(
            kind, shape, (first, conv, dense, Layer("3.dense", "dense", (4, 1, 1), neurons[3], small[2]))
        )
    first = Layer(
        "0.input", "input", shape, Neuron("cuba", 20, 4096, int(rng.integers(0, 4097))), np.zeros(0, np.int64)
    )
    conv = Layer("1.conv", "conv", (4, 3, 5), cuba, weights(4, 1, 3, 2), bias(4), (2, 1), (0, 1), (1, 2), 2)
    back = weights(6, 6) if kind == "recurrent" else None
    delay = rng.integers(0, 9, (6, 60)) if kind == "delayed" else None
    dense = Layer("2.dense", "dense", (6, 1, 1), cuba, weights(6, 60, 1, 1), bias(6), delay=delay, recurrent=back)
    # Without an input layer spikes enter from outside.
    return NetxNetwork(kind, shape, (conv, dense) if kind == "delayed" else (first, conv, dense))


def against_lava(python: str, wheel: Wheel, count: int) -> Iterator[tuple[str, int, int]]:
    """Files of ours in netx."""
    rng = np.random.default_rng(16)
    path = wheel.folder / "ours.net"
    for kind in ("cuba", "current", "recurrent", "delayed", "sdnn"):
        for n in range(count):
            network = drawn(rng, kind)
            program = lower_netx(network)
            write_netx(network if kind == "delayed" else recognise(program, network.name), path)
            low, high = (0, 2) if network.layers[0].kind != "input" else (-40, 60)
            x = rng.integers(low, high, (50, *network.input_shape))
            got = run(lower_netx(read_netx(path)), x)
            want = in_lava(python, path, x)
            yield f"{kind} {n}", int((got["output"].reshape(want.shape) != want).sum()), int(np.count_nonzero(want))
    for name in ("tiny", "mnist"):
        network = read_netx(wheel.network(name))
        write_netx(recognise(lower_netx(network), name), path)
        x = rng.integers(0, 60, (20, *network.input_shape))
        got = run(lower_netx(network), x)
        want = in_lava(python, path, x)
        output = got.get("output", np.zeros((20, want.shape[1]), np.int64))
        yield f"{name}, written again", int((output.reshape(want.shape) != want).sum()), int(np.count_nonzero(want))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=os.environ.get(PYTHON), help="interpreter with lava-dl 0.6.0")
    parser.add_argument("--drawn", type=int, default=2, help="networks of each kind")
    options = parser.parse_args()
    wrong = 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            wheel = Wheel(Path(folder))
            parts = [tiny(wheel), pilotnet_lif(wheel), pilotnet_sdnn(wheel), ntidigits(wheel)]
            parts += [against_lava(options.python, wheel, options.drawn)] if options.python else []
            for part in parts:
                for name, differ, size in part:
                    wrong += differ
                    print(f"{'ok  ' if not differ else 'FAIL'} {name}: {differ} differ, {size} not zero", flush=True)
    except SpiketrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not options.python:
        print(
            f"note: files of ours in netx were not tried; --python or {PYTHON} names an interpreter with {REQUIREMENT}"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
