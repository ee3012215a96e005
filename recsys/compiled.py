"""Loops compiled to machine code (numba), for what a lookup does so often that single array operations cost too much.

A request has a few hundred candidates, so an array operation on them costs more than the arithmetic in it. A compiled
loop says the same thing once per candidate, reads like the formula, and gives every candidate the same number whatever
stands beside it.

Rules for a compiled function: plain arrays and numbers in, results written into arrays it is given; it calls compiled
functions of its own module only, and reads no constants of others that may change, for the cache below does not see
changes elsewhere; no reduction may depend on how many candidates stand beside each other. Loops that pick some of many
write each to the next free place and go on to the place after it only if it counts (`found[n] = i`, `n += counts`):
that spares a branch nobody can predict.

The machine code is kept in `__pycache__` beside the source or, if that cannot be written, in the user's cache folder;
NUMBA_CACHE_DIR names another. Whoever comes first after an installation waits some seconds for it, others read it;
where nothing can be kept every process waits, and says so. What is kept is code: only those who may change the program
may write there. Nothing is checked against the bounds of arrays unless NUMBA_BOUNDSCHECK is 1, as it is in our tests:
whoever calls a loop sees to it that rows exist.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

_LOG = logging.getLogger(__name__)
_said: set[str] = set()
Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """`loop`, compiled at its first call for the types it is called with; it runs without the interpreter's lock.

    Division by zero and the like give inf and NaN, as in numpy; additions stay in the order written.
    """
    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        made = numba.njit(cache=True, **settings)(loop)
    except RuntimeError as error:  # no folder to keep it in
        _warn("loops are compiled anew in every process", error)
        return cast(Loop, numba.njit(**settings)(loop))
    if hasattr(made, "_cache"):  # not where NUMBA_DISABLE_JIT is set
        made._cache = _Kept(made._cache)
    return cast(Loop, made)


class _Kept:
    """The cache of one loop, used by one process at a time; what cannot be read is compiled, what cannot be written is
    not kept. A full disk or a file torn by a power cut must not stop a service."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The machine code for a signature; None: there is none."""
        try:
            with self._alone():
                found = self._cache.load_overload(signature, context)
        except Exception as error:  # whatever the bytes of a damaged file are taken for
            _warn("kept machine code cannot be read and is compiled anew", error)
            return None
        return found if found is None or found.signature.args == signature else None

    def save_overload(self, signature: Any, made: Any) -> None:
        """Keep machine code."""
        try:
            with self._alone():
                self._cache.save_overload(signature, made)
        except Exception as error:
            _warn("machine code cannot be kept: every process compiles it anew", error)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        folder = Path(self._cache.cache_path)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".laotie-lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _warn(what: str, error: Exception) -> None:
    """Once per process and reason, not once per loop."""
    if what not in _said:
        _said.add(what)
        _LOG.warning("%s (NUMBA_CACHE_DIR names a folder to keep it in): %s: %s", what, type(error).__name__, error)


@compiled
def _nothing() -> None:
    """A loop to look at."""


def kept_in() -> Path | None:
    """The folder where machine code is kept, beside this source or under one for all; None: nowhere that is usable."""
    path = getattr(getattr(_nothing, "_cache", None), "cache_path", None)
    wanted = os.environ.get("NUMBA_CACHE_DIR")
    if path is None or (wanted and not Path(path).is_relative_to(Path(wanted).absolute())):
        return None
    return Path(path)
