"""How SpikeTrack's graph is named: ``<phase>.<module path>@t<step>[.<part>]``, and which block a path belongs to.

This module decides the names that this front end knows; none of them is known below it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.nir_graph.graph import CUT_PREFIX, split_name

TEMPLATE, SEARCH = "template", "search"
PHASES = (TEMPLATE, SEARCH)
"""In the order in which they run."""
IMAGE = "image"
MAPS = ("ctr", "offset", "size")
"""What the head puts out: logits of the score, offset and size of the box, cell by cell."""

_BLOCK = re.compile(
    r"^(?:encoder\.)?(?P<block>downsample\w+|ConvBlock\w+\.\d+|block\d\.\d+|mrm\.\d+)(?:\.(?P<part>\w+))?"
)
_STEP_LIST = re.compile(r"(?P<list>\.seg_responder_(?:dw|pw))\.(?P<member>\d+)$")
"""The responders are lists of modules, one per template: one operation with weights per step."""

Ref = tuple[str, int]
"""A value: name of its operation (the same at all steps), and the step."""


class Name(NamedTuple):
    """A node's or a cut's name, taken apart; ``stem`` names the operation."""

    phase: str
    stem: str
    step: int
    part: str


def refusal(name: str, problem: str) -> InputError:
    """The error of a graph that this front end does not know: which node or cut, and what is wrong with it."""
    what = f"cut {name.removeprefix(CUT_PREFIX)}" if name.startswith(CUT_PREFIX) else f"NIR node {name}"
    return InputError(f"{what}: {problem}; the graph is not a SpikeTrack export of this version")


def parse(name: str) -> Name:
    """Take a name (of a cut: with ``cut:`` in front) apart; InputError where it does not follow the form."""
    try:
        phase, path, step, part = split_name(name.removeprefix(CUT_PREFIX))
    except ValueError:
        raise refusal(name, "its name has no phase and step") from None
    member = _STEP_LIST.search(path)
    if member and int(member["member"]) != step:
        raise refusal(name, f"it is the module of step {member['member']} at step {step}")
    return Name(phase, _STEP_LIST.sub(r"\g<list>", path), step, part)


def state_name(index: int) -> str:
    """The memory that ``mrm.<index>`` of the template phase writes and of the search phase reads."""
    return f"memory.{index}"


def block_of(stem: str) -> str:
    """Block of the network that an operation belongs to: ``block3.0.attn``, ``mrm.2.retriever``, ``head`` ..."""
    match = _BLOCK.match(stem)
    if not match:
        return "head"
    block, part = match["block"], match["part"] or ""
    if block.startswith(("block", "mrm")):
        return f"{block}.{part.removeprefix('sum_')}"
    return block
