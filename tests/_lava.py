"""What the Lava tests share: the interpreter or the reason to skip, and small hand-made programs."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from spiketrack_deploy.engines.lava_engine import group_members
from spiketrack_deploy.engines.lava_interpreter import lava_python
from spiketrack_deploy.errors import EngineError
from spiketrack_deploy.program.types import AnyArray, Op, Phase, Program, TensorSpec


@cache
def missing() -> str:
    """Why Lava tests cannot run here; empty if they can."""
    try:
        python = lava_python()
    except EngineError as error:
        return str(error)
    done = subprocess.run([str(python), "-c", "import numpy, lava.magma"], capture_output=True, text=True, timeout=60)
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return "" if done.returncode == 0 else f"{python} cannot import lava ({last}); run `make env-lava`"


def requires_lava() -> list[pytest.MarkDecorator]:
    """Marks for tests that start Lava Processes."""
    return [pytest.mark.lava, pytest.mark.skipif(bool(missing()), reason=missing() or "Lava is here")]


def shared_memory(parent: int) -> list[str]:
    """Names of the shared memory that the Lava engines of one process hold at this moment."""
    return [p.name for p in Path("/dev/shm").glob(f"psm_st{parent}_*")]


def running(group: int | None) -> list[int]:
    """Living processes of a group that must have been known."""
    assert group is not None, "the engine never had a process group"
    return group_members(group)


def conv_op(name: str, x: str, block: str, key: str, padding: int) -> Op:
    """A stride-1 convolution with the arrays ``key.*``."""
    attrs = {f"{what}_{axis}": n for what, n in (("stride", 1), ("padding", padding), ("dilation", 1)) for axis in "hw"}
    arrays = {role: f"{key}.{role}" for role in ("weight", "bias", "shift")}
    return Op(name, "conv" if x != "image" else "image_conv", (x,), block, attrs | {"groups": 1}, arrays)


def chain_program(blocks: tuple[str, str, str, str] = ("stem", "stem", "body", "head"), shift: int = 4) -> Program:
    """image_conv -> ni_lif -> conv -> head_out on a 6 x 5 image, phase ``search``; ``shift`` of conv ``b``."""
    rng = np.random.default_rng(7)
    arrays: dict[str, AnyArray] = {
        "a.weight": rng.integers(-20, 21, (1, 3, 3, 3, 3)).astype(np.int8),
        "a.bias": rng.integers(-50, 51, (3, 6, 5)).astype(np.int32),
        "a.shift": np.zeros((1, 3), dtype=np.int8),
        "thresholds": np.array([[200, 900, 2000, 4000]], dtype=np.int32),
        "b.weight": rng.integers(-20, 21, (1, 2, 3, 1, 1)).astype(np.int8),
        "b.bias": rng.integers(-5, 6, (1, 2)).astype(np.int32),
        "b.shift": np.full((1, 2), shift, dtype=np.int8),
        "thresholds.b": np.array([[0, 300, 600, 900]], dtype=np.int32),
        "c.weight": rng.integers(-20, 21, (1, 1, 2, 1, 1)).astype(np.int8),
        "c.bias": np.zeros((1, 1), dtype=np.int32),
        "c.shift": np.zeros((1, 1), dtype=np.int8),
        "unit.3": np.zeros(3, dtype=np.int8),
        "unit.2": np.zeros(2, dtype=np.int8),
        "unit.1": np.zeros(1, dtype=np.int8),
    }
    head = conv_op("head", "s2", blocks[3], "c", 0)
    ops = (
        conv_op("a", "image", blocks[0], "a", 1),
        Op("s", "ni_lif", ("a",), blocks[1], {"steps": 1}, {"thresholds": "thresholds"}),
        conv_op("b", "s", blocks[2], "b", 0),
        Op("s2", "ni_lif", ("b",), blocks[3], {"steps": 1}, {"thresholds": "thresholds.b"}),
        Op(head.name, "head_out", head.inputs, head.block, head.attrs, head.arrays),
    )
    values = {
        "a": TensorSpec("stream", (1, 3, 6, 5), "unit.3"),
        "s": TensorSpec("spikes", (1, 3, 6, 5), scale=0.25, top=4),
        "b": TensorSpec("stream", (1, 2, 6, 5), "unit.2"),
        "s2": TensorSpec("spikes", (1, 2, 6, 5), scale=0.25, top=4),
        "head": TensorSpec("logits", (1, 1, 6, 5), "unit.1"),
    }
    inputs = {"image": TensorSpec("image", (1, 3, 6, 5), top=255)}
    return Program({"search": Phase("search", inputs, ops, values, {"ctr": "head"})}, arrays)


def chain_inputs(seed: int = 0) -> dict[str, AnyArray]:
    """An image for :func:`chain_program`."""
    return {"image": np.random.default_rng(seed).integers(0, 256, (1, 3, 6, 5)).astype(np.uint8)}
