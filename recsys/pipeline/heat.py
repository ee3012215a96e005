"""How many viewers came to a host lately, in a form that orders hosts at any instant.

The rate at instant t is r · 2^(−(t − ref)/h) with the decayed sum r at the host's own last fact ref. All hosts share h,
so their order at any t is the order of log₂ r + ref/h, in which t does not occur: kept per host, moved by one number a
fact, and read for all live rooms by one gather.
"""

from __future__ import annotations

from math import inf, log2

import numpy as np
import numpy.typing as npt

from recsys.index.epoch import Epoch
from recsys.index.largest import among_largest
from recsys.ties.algebra import Block, Floats, Rows
from recsys.ties.update import Cells


class Heat:
    """`of_host` (n,): log₂ of a decayed sum, up to a constant of the instant; −∞ where nobody ever came.

    Args:
        block: the hosts' block.
        rows: states by host row.
        name: the decayed column.
    """

    def __init__(self, block: Block, rows: Rows, name: str = "entries_30m") -> None:
        self._column = block.decay_column(name)
        self._width, self._n_ints = len(block.decays), len(block.ints)
        self._half_life_us = float(block.half_lives_us[self._column])
        counts = rows.decayed[:, self._column]
        known = counts > 0.0
        self.of_host: Floats = np.full(len(rows), -np.inf)
        self.moves = 0
        """Grows with every entry and every host: what depends on entries alone holds as long as it stays."""
        self._hottest: tuple[tuple[Epoch, int, int], npt.NDArray[np.intp]] | None = None
        self.of_host[known] = np.log2(counts[known]) + rows.ints[known, 0] / self._half_life_us

    def grow(self, n: int) -> None:
        """Hold at least `n` hosts."""
        if n > len(self.of_host):
            more = max(n, len(self.of_host) * 3 // 2) - len(self.of_host)
            self.moves += 1
            self.of_host = np.concatenate([self.of_host, np.full(more, -np.inf)])

    def put(self, of_host: Floats) -> None:
        """Take over what `of_host` of another one was, (n,)."""
        self.grow(len(of_host))
        self.moves += 1
        self.of_host[: len(of_host)] = of_host

    def hottest(self, epoch: Epoch, size: int) -> npt.NDArray[np.intp]:
        """Positions in the epoch of the `size` rooms whose hosts have the most entries now, ascending; of equal ones
        the first.

        The order of hosts does not depend on the instant, so the answer holds until an entry or a room changes it.
        """
        asked, known = (epoch, size, self.moves), self._hottest
        if known is not None and known[0] == asked:
            return known[1]
        found = among_largest(self.of_host.take(epoch.hosts), size)
        self._hottest = asked, found
        return found

    def update(self, held: Cells, host: int) -> None:
        """The state of one host has changed; `held` are the flat views of all of them."""
        self.moves += 1
        count = held.decayed[host * self._width + self._column]
        self.of_host[host] = log2(count) + held.ints[host * self._n_ints] / self._half_life_us if count > 0.0 else -inf
