"""Loops compiled to machine code (numba), for what a lookup does so often that single array operations cost too much.

A request has a few hundred candidates, so an array operation on them costs more than the arithmetic in it. A compiled
loop says the same thing once per candidate, reads like the formula, and gives every candidate the same number whatever
stands beside it.

Rules for a compiled function: plain arrays and numbers in, results written into arrays it is given; it calls compiled
functions of its own module only, and reads no constants of others that may change, for the cache below does not see
changes elsewhere; no reduction may depend on how many candidates stand beside each other.

The machine code is kept in `__pycache__` beside the source, or in the folder NUMBA_CACHE_DIR names; the first process
after an installation spends some seconds on each function, later ones read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """`loop`, compiled at its first call for the types it is called with; it runs without the interpreter's lock.

    Division by zero and the like give inf and NaN, as in numpy; additions stay in the order written.
    """
    return cast(Loop, numba.njit(cache=True, nogil=True, error_model="numpy")(loop))
