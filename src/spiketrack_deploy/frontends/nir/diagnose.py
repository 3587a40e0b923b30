"""Named remarks about a NIR file and how it was read: what was assumed, filled in, left out, or contradicts itself.

Decides the names (:data:`CODES`) and what a file suggests about its convention. Must not know files or integers.
Nothing here changes a network; ``--strict`` turns every diagnostic into an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

CODES: dict[str, str] = {
    "batch-axis": "a stored shape begins with a batch axis of 1, which was left out",
    "field-filled": "a field that older versions of NIR lack was filled in",
    "stored-shape": "a stored shape disagrees with what the parameters say; the parameters were followed",
    "size-1": "a parameter of one value stands for every neuron of the node",
    "unread": "a node that no output reads was left out",
    "convention-assumed": "no convention was given",
    "dt-assumed": "no step was given",
    "convention-contradicted": "the file says something else than the convention",
    "reset-unknown": "the file cannot say whether its framework subtracted the threshold",
    "decay-rounds-to-zero": "a time constant is so long that its decay is nothing in 12 bits",
    "delay-rounded": "a delay is no whole number of steps",
    "v-reset-fires": "a neuron's reset value is where it fires again at once",
    "silent": "a node never spiked in the run",
    "saturated": "an integer ran into the limit of its width",
    "input-clipped": "input values lie outside what the stated scale holds",
    "drawn-input": "no input was given; it was drawn",
}
"""Name of every diagnostic, and what it means."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """``code``: one of :data:`CODES`; ``node``: whom it concerns, empty for the whole; ``text``: one sentence."""

    code: str
    node: str
    text: str

    def __post_init__(self) -> None:
        assert self.code in CODES, self.code

    def __str__(self) -> str:
        return f"[{self.code}] {f'node {self.node!r}: ' if self.node else ''}{self.text}"

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"code": self.code, "node": self.node, "text": self.text}


def gathered(found: Iterable[tuple[str, str, str]]) -> tuple[Diagnostic, ...]:
    """Diagnostics of (code, node, text), equal texts of many nodes in one line."""
    by_text: dict[tuple[str, str], list[str]] = {}
    for code, node, text in found:
        by_text.setdefault((code, text), []).append(node)
    return tuple(Diagnostic(code, _few(nodes), text) for (code, text), nodes in by_text.items())


def _few(nodes: list[str], most: int = 6) -> str:
    named = ", ".join(nodes[:most])
    return named if len(nodes) <= most else f"{named} and {len(nodes) - most} more"
