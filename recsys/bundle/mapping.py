"""The memory maps of a bundle: advice to the system, and giving mapped pages back.

Pages that were read stay mapped until somebody says otherwise, and count as resident memory of the process although the
system may take them back at any time. Given back they stay in the page cache: reading one again costs a microsecond.
"""

from __future__ import annotations

import mmap
import time
import weakref
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_STEP: Final = 16 << 20  # bytes advised on at once: half a millisecond during which no other thread runs
_SCATTERED: Final[int | None] = getattr(mmap, "MADV_RANDOM", None)
_NOT_NEEDED: Final[int | None] = getattr(mmap, "MADV_DONTNEED", None)


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

    def give_back(self) -> None:
        """Unmap what was read so far; it is mapped again where it is read again."""
        for ref in list(self._of_file.values()):
            held = ref()
            if held is None or _NOT_NEEDED is None:
                continue
            for start in range(0, len(held), _STEP):
                held.madvise(_NOT_NEEDED, start, min(_STEP, len(held) - start))
                time.sleep(0)
