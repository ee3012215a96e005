"""Ties at rest: sampled users and all their ties at instants when nobody of them need be there.

The log of requests sees a tie when its user has just come somewhere. Whoever asks how many will come to a host's next
broadcast asks of everybody, most of whom have not been seen for days: another mixture of ties, so other probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from recsys.config import DemandConfig
from recsys.pipeline.world import World
from training.tie_log import TieLog

MOST_TIES = 60
"""Ties of one user at one instant that are written down at most; each then stands for more than itself."""


class RestLog:
    """Users drawn at instants spread over a stretch, one in each of as many equal parts of it.

    Args:
        world: the state, moved by the caller, who calls what is `due` when all facts before its instant are known.
        from_us, before_us: the stretch, µs.
        n_users: user rows in use.
    """

    def __init__(
        self, world: World, rng: np.random.Generator, from_us: int, before_us: int, n_users: int, config: DemandConfig
    ) -> None:
        self.ties = TieLog(world, rng, strangers=0, most=MOST_TIES)
        self.rng, self.n_users = rng, n_users
        self.each = min(n_users, max(1, config.users // config.instants))
        within = np.arange(config.instants) + rng.random(config.instants)
        self.instants: npt.NDArray[np.int64] = (from_us + within * ((before_us - from_us) / config.instants)).astype(
            np.int64
        )

    def due(self) -> list[tuple[int, Callable[[], None]]]:
        """(instant, what to do when all facts before it are known), ascending."""
        return [(at, partial(self._log, at)) for at in self.instants.tolist()]

    def _log(self, at: int) -> None:
        for user in np.sort(self.rng.choice(self.n_users, self.each, replace=False)).tolist():
            self.ties.log(at, user)
