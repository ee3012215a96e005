"""What a request reads: the states, the rooms live now, and the models.

A `World` is filled from a bundle and moved by `recsys.live`, one fact at a time; the pipeline only reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recsys.config import EngineConfig
from recsys.events.facts import NEVER
from recsys.ids import Vocabulary
from recsys.index.epoch import Epoch
from recsys.index.live_rooms import LiveRoomIndex
from recsys.models.suite import Models
from recsys.pipeline.heat import Heat
from recsys.ties.blocks import Blocks
from recsys.ties.row_store import RowStore, UserRows
from recsys.ties.standing import STANDINGS
from recsys.ties.store import TieStore


class RoomTable:
    """What is known of every room by room row: host, co-hosts, start. Grows; rows are never reused."""

    def __init__(self) -> None:
        self.host: npt.NDArray[np.int32] = np.full(1024, -1, dtype=np.int32)
        self.started_at: npt.NDArray[np.int64] = np.full(1024, NEVER, dtype=np.int64)
        self.cohosts: dict[int, tuple[int, ...]] = {}
        self.n_cohosts: npt.NDArray[np.int32] = np.zeros(1024, dtype=np.int32)
        self.category_code: npt.NDArray[np.int32] = np.full(1024, -1, dtype=np.int32)
        self._categories: list[str] = []
        self._codes: dict[str, int] = {}

    def put(self, room: int, host: int, cohosts: tuple[int, ...], started_at: int, category: str | None) -> None:
        """Remember a room; its instants are not yet facts."""
        if room >= len(self.host):
            extra = max(room + 1 - len(self.host), len(self.host))
            self.host = np.concatenate([self.host, np.full(extra, -1, dtype=np.int32)])
            self.started_at = np.concatenate([self.started_at, np.full(extra, NEVER, dtype=np.int64)])
            self.n_cohosts = np.concatenate([self.n_cohosts, np.zeros(extra, dtype=np.int32)])
            self.category_code = np.concatenate([self.category_code, np.full(extra, -1, dtype=np.int32)])
        self.host[room], self.started_at[room], self.n_cohosts[room] = host, started_at, len(cohosts)
        if cohosts:
            self.cohosts[room] = cohosts
        else:
            self.cohosts.pop(room, None)
        self.category_code[room] = -1
        if category is not None:
            code = self._codes.setdefault(category, len(self._categories))
            if code == len(self._categories):
                self._categories.append(category)
            self.category_code[room] = code

    def category(self, room: int) -> str | None:
        """The category of a room, if it was told."""
        code = int(self.category_code[room])
        return self._categories[code] if code >= 0 else None

    def of_category(self, rooms: npt.NDArray[np.int64], category: str) -> npt.NDArray[np.bool_]:
        """Which rooms (r,) are of a category."""
        code = self._codes.get(category)
        if code is None:
            return np.zeros(len(rooms), dtype=np.bool_)
        return np.asarray(self.category_code[rooms] == code)


@dataclass(frozen=True)
class Priors:
    """Rates over all hosts together, to which the rates of small hosts are shrunk; fixed when a bundle is built."""

    returning_share: float = 0.3
    repeat_buyer_share: float = 0.3
    refund_share: float = 0.05


@dataclass
class World:
    """All a request reads.

    `standings` (n_hosts, len(STANDINGS)) counts users per host and relation, column by column in memory; `leaves` holds
    announced absences per host as (from, to), µs; `heat` orders hosts by recent entries.
    """

    config: EngineConfig
    blocks: Blocks
    ties: TieStore
    hosts: RowStore
    schedule: RowStore
    arrivals: RowStore
    users: UserRows
    moments: RowStore
    rooms: RoomTable
    index: LiveRoomIndex
    models: Models
    standings: npt.NDArray[np.int64]
    heat: Heat
    room_ids: Vocabulary | None = None
    priors: Priors = field(default_factory=Priors)
    leaves: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    newcomers_live: tuple[tuple[Epoch, int], int] | None = field(default=None, repr=False)
    """What `recsys.pipeline.sources` counted last, and of which epoch after how many entries."""

    def announce(self, room: int, host: int, cohosts: tuple[int, ...], started_at: int, category: str | None) -> None:
        """Remember a room, so that facts and requests can name it; nothing becomes live by this."""
        self.rooms.put(room, host, cohosts, started_at, category)
        self.moments.grow(room + 1)

    def grow_hosts(self, n: int) -> None:
        """Make room for `n` hosts in everything kept per host; nothing of it is shorter than `standings` afterwards."""
        if n > len(self.standings):
            grown = np.zeros((max(n, len(self.standings) * 3 // 2), len(STANDINGS)), dtype=np.int64, order="F")
            grown[: len(self.standings)] = self.standings
            self.standings = grown
        for kept in (self.hosts, self.schedule, self.arrivals, self.heat):
            kept.grow(len(self.standings))
