"""Loops compiled to machine code (numba), for what a lookup does so often that single array operations cost too much.

A request has a few hundred candidates, so an array operation on them costs more than the arithmetic in it. A compiled
loop says the same thing once per candidate, reads like the formula, and gives every candidate the same number whatever
stands beside it.

Rules for a compiled function: plain arrays and numbers in, results written into arrays it is given; it calls compiled
functions of its own module only, and reads no constants of others that may change, for the cache below does not see
changes elsewhere; no reduction may depend on how many candidates stand beside each other.

The machine code is kept in `__pycache__` beside the source or, if that cannot be written, in the user's cache folder;
NUMBA_CACHE_DIR names another. Whoever comes first after an installation waits some seconds for it, others read it;
where nothing can be written every process waits, and says so. Nothing is checked against the bounds of arrays unless
NUMBA_BOUNDSCHECK is 1, as it is in our tests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

_LOG = logging.getLogger(__name__)
Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """`loop`, compiled at its first call for the types it is called with; it runs without the interpreter's lock.

    Division by zero and the like give inf and NaN, as in numpy; additions stay in the order written.
    """
    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return cast(Loop, numba.njit(cache=True, **settings)(loop))
    except RuntimeError as error:  # no folder to keep it in
        _LOG.warning("%s is compiled anew in every process (set NUMBA_CACHE_DIR): %s", loop.__qualname__, error)
        return cast(Loop, numba.njit(**settings)(loop))


@compiled
def _nothing() -> None:
    """A loop to look at."""


def kept_in() -> Path | None:
    """The folder where the machine code of this package is kept; None: nowhere."""
    folder: str | None = cast(Any, _nothing).stats.cache_path
    return Path(folder).parent if folder else None
