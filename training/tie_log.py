"""Ties as they were at sampled instants of a replay, live or not: what strength and demand learn from.

Shape letters: R ties, F_tie features of a tie.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.events.facts import NEVER
from recsys.pipeline.tied import ties_at
from recsys.pipeline.world import World
from recsys.ties.features import TIE_FEATURES

TIES_PER_REQUEST = 12
STRANGERS_PER_REQUEST = 2
_LOGGED = {"user": pl.Int64, "host": pl.Int64, "at": pl.Int64, "tied": pl.Boolean, "weight": pl.Float64}


class TieLog:
    """Ties as they were at sampled instants: what strength is trained, calibrated and judged on.

    Of a user with many ties a sample is logged; the weight of a logged tie is how many it stands for.

    Args:
        world: the state, moved by the caller.
        of: the blocks in which a pair must have something to count as tied.
        strangers: pairs without a tie that are logged besides, each time.
        most: so many of a user's ties are logged at a time at most; None: all.
    """

    def __init__(
        self,
        world: World,
        rng: np.random.Generator,
        *,
        of: tuple[str, ...] = ("visits", "relation"),
        strangers: int = STRANGERS_PER_REQUEST,
        most: int | None = TIES_PER_REQUEST,
    ) -> None:
        self.world, self.rng, self.of, self.strangers, self.most = world, rng, of, strangers, most
        self._rows: list[npt.NDArray[np.float32]] = []
        self._ties: list[tuple[int, int, int, bool, float]] = []

    def log(self, at: int, user: int) -> None:
        """Log some of the user's ties, live or not, and a few hosts he has no tie with."""
        world = self.world
        known = np.unique(np.concatenate([world.ties.of(block, user).hosts for block in self.of])).astype(np.int64)
        tied = known
        if self.most is not None and len(tied) > self.most:
            tied = np.sort(self.rng.choice(tied, self.most, replace=False))
        weight = len(known) / max(len(tied), 1)
        strangers = self.rng.integers(0, len(world.standings), self.strangers)
        hosts = np.concatenate([tied, strangers[~np.isin(strangers, known)]])
        if not len(hosts):
            return
        rows = np.full((len(hosts), len(TIE_FEATURES)), np.nan, dtype=np.float32)
        ties, values = ties_at(world, user, hosts, np.full(len(hosts), NEVER, dtype=np.int64), at)
        rows[ties.asked] = values.T
        self._rows.append(rows)
        self._ties += [
            (user, int(host), at, i < len(tied), weight if i < len(tied) else 1.0) for i, host in enumerate(hosts)
        ]

    def rows(self) -> npt.NDArray[np.float32]:
        """Features (R, F_tie) of the logged ties, NaN for strangers."""
        return np.concatenate([np.empty((0, len(TIE_FEATURES)), dtype=np.float32), *self._rows])

    def frame(self) -> pl.DataFrame:
        """user, host, at, tied and weight of the logged ties, R rows."""
        return pl.DataFrame(self._ties, schema=_LOGGED, orient="row")

    @staticmethod
    def nothing() -> pl.DataFrame:
        """The frame of an empty log."""
        return pl.DataFrame(schema=_LOGGED)
