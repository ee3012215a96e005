"""The memory maps of a bundle: advice to the system, and giving mapped pages back.

Pages that were read stay mapped until somebody says otherwise, and count as resident memory of the process although the
system may take them back at any time. Given back they stay in the page cache: reading one again costs a microsecond.
"""

from __future__ import annotations

import mmap
import sys
import time
import weakref
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_STEP: Final = 16 << 20  # bytes advised on at once: half a millisecond during which no other thread runs
_SCATTERED: Final[int | None] = getattr(mmap, "MADV_RANDOM", None)
_NEEDED: Final[int | None] = getattr(mmap, "MADV_WILLNEED", None)
_POPULATE: Final = 22 if sys.platform == "linux" else None  # MADV_POPULATE_READ, since Linux 5.14
_NOT_NEEDED: Final[int | None] = getattr(mmap, "MADV_DONTNEED", None)


class Ahead:
    """Rows of mapped arrays (n, …) that will be read soon: the system is asked to fetch them, and nobody waits.

    Read as they come, pages on disk are waited for one after the other, and no other thread runs meanwhile. Arrays that
    lie in memory are left out. Costs about a microsecond an array if its pages are in the cache already.
    """

    __slots__ = ("_parts",)

    def __init__(self, *arrays: npt.NDArray[Any]) -> None:
        self._parts = [part for part in map(_mapped, arrays) if part is not None and _NEEDED is not None]

    def fetch(self, start: int, stop: int) -> None:
        """Rows from `start` on, before `stop`."""
        if start < stop:
            for held, first, width in self._parts:
                begin = (first + start * width) & -mmap.PAGESIZE
                held.madvise(_NEEDED, begin, first + stop * width - begin)  # type: ignore[arg-type]


def _mapped(array: npt.NDArray[Any]) -> tuple[mmap.mmap, int, int] | None:
    """The map an array lies in, its first byte there, and the bytes of a row; None: it lies elsewhere, or scattered."""
    held: Any = array
    while isinstance(held, np.ndarray):
        held = held.base
    if isinstance(held, memoryview):
        held = held.obj
    if not isinstance(held, mmap.mmap) or not array.flags.c_contiguous or not len(array):
        return None
    return held, array.ctypes.data - np.frombuffer(held, np.uint8).ctypes.data, array.nbytes // len(array)


class Maps:
    """The maps of one bundle that are still in use. Any thread; arrays stay valid whatever is called."""

    def __init__(self) -> None:
        self._of_file: dict[str, weakref.ref[mmap.mmap]] = {}

    def array(
        self, file: str, held: mmap.mmap, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int
    ) -> npt.NDArray[Any]:
        """An array over a map, from `offset` bytes on; read-only if the map is."""
        self._of_file[file] = weakref.ref(held)
        n = int(np.prod(shape))
        return np.frombuffer(held, dtype, n, offset).reshape(shape)

    def read_scattered(self, prefix: str) -> None:
        """Say that files whose names begin so are read here and there: no page beside those asked for is fetched."""
        for file, ref in list(self._of_file.items()):
            held = ref()
            if held is not None and _SCATTERED is not None and file.startswith(prefix):
                held.madvise(_SCATTERED)

    def read_ahead(self, prefix: str, most_bytes: int) -> bool:
        """Read and map the files whose names begin so, if they have no more bytes than this; whether they have.

        Read in one go a page costs a fraction of a microsecond, or of what a disk takes to find it; read when it is
        first asked for, one or some hundred of them. Advice that the system does not know is left out.
        """
        held = [one for file, ref in list(self._of_file.items()) if file.startswith(prefix) and (one := ref())]
        if sum(map(len, held)) > most_bytes:
            return False
        for advice, step in ((_NEEDED, 1 << 40), (_POPULATE, _STEP)):
            if advice is None:
                continue
            for one in held:
                for start in range(0, len(one), step):
                    try:
                        one.madvise(advice, start, min(step, len(one) - start))
                    except OSError:
                        break
                    time.sleep(0)
        return True

    def give_back(self) -> None:
        """Unmap what was read so far; it is mapped again where it is read again."""
        for ref in list(self._of_file.values()):
            held = ref()
            if held is None or _NOT_NEEDED is None:
                continue
            for start in range(0, len(held), _STEP):
                held.madvise(_NOT_NEEDED, start, min(_STEP, len(held) - start))
                time.sleep(0)
