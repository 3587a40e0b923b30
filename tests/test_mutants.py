"""The drawing of mutants: which tokens change into what, and what is left alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
SOURCE = '''"""A docstring with 1 + 1."""

__all__ = ["f" * 2]
LIMIT: int = 4


@given(max(1, 2))
def f(x: int | None = 3, *rest: int) -> int | None:
    """Another, with 2."""
    if x is not None and not rest or x not in (
        5,
    ):
        raise ValueError(f"at most {LIMIT + 1}" + str(6))
    "é" and tell(7, 8)
    text = f"{x + 9}"
    x += -1.5
    return np.maximum(x, rest.max(initial=10)) if flag(indent=11) else True
'''
EXPECTED = [
    (4, "4", "5", None),
    (8, "3", "4", None),
    (10, "is not", "is", 10),
    (10, "and", "or", 10),
    (10, "not", "", 10),
    (10, "or", "and", 10),
    (10, "not in", "in", 10),
    (11, "5", "6", 10),
    (14, "and", "or", 14),
    (16, "+=", "-=", 16),
    (16, "-", "+", 16),
    (16, "1.5", "2.5", 16),
    (17, "maximum", "minimum", 17),
    (17, "max", "min", 17),
    (17, "10", "11", 17),
    (17, "True", "False", 17),
]
"""Line, old and new token, line on which the statement begins inside a function."""


@pytest.fixture
def sites(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import mutants

    yield mutants.sites
    for name in ("mutants", "private_tests"):
        sys.modules.pop(name)


def test_one_token_at_a_time(sites) -> None:
    found = list(sites(SOURCE))
    assert [(line, old, new, begin) for line, _, old, new, begin in found] == EXPECTED
    lines = SOURCE.splitlines()
    assert all(lines[line - 1][column:].startswith(old) for line, column, old, _, _ in found)
    for line, column, old, new, _ in found:
        text = lines[line - 1]
        changed = [*lines[: line - 1], text[:column] + new + text[column + len(old) :], *lines[line:]]
        compile("\n".join(changed), "mutant", "exec")
