"""Where ties that changed are kept: in memory up to a bound, further ones in a file the system takes out of memory.

Beyond the bound, arrays lie in a file without a name, mapped whole and written before it is touched: a disk that is
full is an error at that moment, never a fault in the middle of a read. The system writes changed pages out when it
likes and takes them out of memory when it needs it; they are gone with the process, as what is in memory is.
"""

from __future__ import annotations

import logging
import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Arrays = list[npt.NDArray[Any]]
_LONGEST = 1 << 38
"""Bytes of the file at most; no disk is used before arrays lie there."""
_ALIGNED = 8
_LOG = logging.getLogger(__name__)


class Space:
    """Memory for arrays that only grow in number; by default without bound. One writer.

    Attributes:
        in_memory, in_file: bytes of the arrays that lie there.
    """

    def __init__(self) -> None:
        self.in_memory = self.in_file = 0
        self._bound: tuple[int, Path] | None = None
        self._opened: tuple[IO[bytes], mmap.mmap] | None = None

    def bound(self, most_bytes: int, folder: Path) -> None:
        """From now on keep at most so many bytes in memory, and what is beyond in a file in `folder`."""
        self._bound = most_bytes, folder

    def hold(self, arrays: Sequence[npt.NDArray[Any]]) -> Arrays:
        """These arrays, or, with memory at its bound, the same in the file.

        What was acknowledged has to be kept: where the disk is full, memory takes what is beyond its bound.
        """
        size = sum(array.nbytes for array in arrays)
        if self._bound is not None and self.in_memory + size > self._bound[0]:
            try:
                return self._written(arrays, self._bound[1])
            except OSError as error:
                _LOG.warning("ties that changed stay in memory beyond their bound: %s: %s", self._bound[1], error)
        self.in_memory += size
        return list(arrays)

    def _written(self, arrays: Sequence[npt.NDArray[Any]], folder: Path) -> Arrays:
        if self._opened is None:
            nameless = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed with this object
            nameless.truncate(_LONGEST)
            weakref.finalize(self, nameless.close)
            self._opened = nameless, mmap.mmap(nameless.fileno(), _LONGEST)
        file, mapped = self._opened
        found, at = [], self.in_file
        for array in arrays:
            content, done = array.tobytes(), 0
            while done < len(content):
                done += os.pwrite(file.fileno(), content[done:], at + done)
            found.append(np.ndarray(array.shape, array.dtype, buffer=mapped, offset=at))
            at += -(-len(content) // _ALIGNED) * _ALIGNED
        self.in_file = at
        return found
