"""How long work tells what it is doing.

This module decides the signature alone, so that any room may tell and any room may listen. It must not print.
"""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[str, int, int], None]
"""``tell(what, done, total)``: called now and then; ``total`` 0 where it is not known."""
