"""Loops as machine code, where numba can make it and it proves itself.

This module decides when compiled code is used; it must not know what it computes. Numba is imported on first use only.
Machine code is cached where numba finds a folder that belongs to the user (beside the source, ``$NUMBA_CACHE_DIR``, or
the user's cache folder); without one it is compiled anew in each process, in about a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Loop = tuple[Callable[..., Any], Callable[[Any], Any]]
"""A function in the part of Python that numba knows, and its signature, made from the module numba."""
Compiled = list[Callable[..., Any]]


def machine_code(loops: Sequence[Loop], cache: bool) -> Compiled:
    """ImportError: no numba; RuntimeError, OSError: no folder to cache in, a full disk; others where LLVM fails."""
    import numba

    if numba.config.DISABLE_JIT:
        raise ImportError("numba is told not to compile")
    return [numba.njit([signature(numba)], nogil=True, cache=cache)(loop) for loop, signature in loops]


def compile_loops(loops: Sequence[Loop], is_right: Callable[[Compiled], bool]) -> Compiled | None:
    """The compiled ``loops``, or ``None`` where they cannot be had or fail their own small case."""
    for cache in (True, False):
        try:
            made = machine_code(loops, cache)
            if is_right(made):
                return made
        except ImportError:
            break
        except Exception:  # noqa: BLE001  (numba, LLVM and the disk fail in many ways; results must not depend on them)
            continue
    return None
