"""The training log: the learning window replayed, with the features of every candidate written down as they were.

A request is taken at every (sampled) entry into a room that was live already; its candidates are the rooms live at that
instant, or where there are many those the sources bring. The features come from the same state and the same function as
online, so nothing known only later can be in them, and a model trained on the log sees online what it saw here. An
entry whose room the sources do not bring makes no choice among candidates, as it could not be one online: put among
them it would stand out by that alone. It is counted (`missed`).

Shape letters: N rows (candidates of all requests), F features, R ties logged for strength (`training.tie_log`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.config import BuildConfig
from recsys.events.facts import FACT_SCHEMA, FactKind
from recsys.live.state import LiveState
from recsys.models.two_tower import TwoTower
from recsys.pipeline.features import FEATURES, feature_table
from recsys.pipeline.request import Request
from recsys.pipeline.sources import candidates
from recsys.pipeline.world import World
from recsys.progress import Progress, silent
from training.tie_log import STRANGERS_PER_REQUEST, TIES_PER_REQUEST, TieLog

SHOWN_BEFORE_US = 1_800_000_000
"""An entry within half an hour of the room being shown follows from it."""
TRIALS = 5_000
"""Entries at unknown hosts on which tower and factors are compared at most."""


@dataclass
class TrainingLog:
    """What was seen. `rows` (N, F) float32, `groups` candidates per request, `labels` (N,) 1 for the room entered.

    `hosts` (N,): whose rooms the candidates are.
    `requests`: user, at, known (an earlier tie with the entered host) per request. `ties`: user, host, at, tied, weight
    per logged tie; `tie_rows` (R, F_tie), NaN for strangers. `nearest`: user, factors, tower: of entries at hosts the
    user did not know the place of the room among all live ones by the host factors and by the tower on trial. `missed`
    (M,): instants of the sampled entries whose rooms the sources did not bring, which are no requests.
    """

    rows: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int8]
    hosts: npt.NDArray[np.int32]
    requests: pl.DataFrame
    tie_rows: npt.NDArray[np.float32]
    ties: pl.DataFrame
    nearest: pl.DataFrame = field(default_factory=pl.DataFrame)
    missed: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def candidates_of(self, requests: npt.NDArray[np.bool_]) -> slice | npt.NDArray[np.bool_]:
        """Where in `rows` the candidates of some requests (R,) lie: of a stretch a slice, so that nothing is copied."""
        asked = requests.nonzero()[0]
        if len(asked) and requests[asked[0] : asked[-1] + 1].all():
            stops = np.cumsum(self.groups)
            return slice(int(stops[asked[0]] - self.groups[asked[0]]), int(stops[asked[-1]]))
        return np.repeat(requests, self.groups)


def replay_and_log(
    live: LiveState,
    facts: pl.DataFrame,
    config: BuildConfig,
    seed: int,
    progress: Progress = silent,
    refits: Sequence[tuple[int, Callable[[], None]]] = (),
    tower: TwoTower | None = None,
) -> TrainingLog:
    """Move `live` through `facts` (sorted by time) and log the features of sampled requests and ties.

    Args:
        refits: (instant, what to do before the first fact at or after it), ascending.
        tower: on trial against the host factors.
    """
    due = list(refits)
    is_entry = (facts["kind"] == int(FactKind.ENTRY)).to_numpy()
    share = _share(facts, is_entry, live.world, config)
    rng = np.random.default_rng(seed)
    taken = is_entry & (rng.random(len(facts)) < share)
    tie_share = min(1.0, config.strength_rows / max(int(taken.sum()) * (TIES_PER_REQUEST + STRANGERS_PER_REQUEST), 1))
    log = _Log(live.world, config, rng, tie_share, tower)
    asked = requests_of(facts, taken)
    for i, fact in enumerate(moved_through(live, facts)):
        while due and due[0][0] <= fact[0]:
            due.pop(0)[1]()
        for user, room, host in asked.get(i, ()):
            if room in live.world.index:
                log.request(fact[0], user, room, host)
        if i % 2048 == 0:
            progress("training log", i / len(facts))
    progress("training log", 1.0)
    return log.finish()


def _share(facts: pl.DataFrame, is_entry: npt.NDArray[np.bool_], world: World, config: BuildConfig) -> float:
    """The share of entries to sample, so that neither requests nor their candidates are more than configured."""
    moved = pl.col("kind").replace_strict({int(FactKind.ROOM_START): 1, int(FactKind.ROOM_END): -1}, default=0)
    live = len(world.index) + facts.select(moved.cast(pl.Int64).cum_sum()).to_series().to_numpy()[is_entry]
    sizes = world.config.pipeline.sources
    brought = sizes.nearest + sizes.transition + sizes.popular + sizes.newcomers
    candidates = np.where(live > config.ranker_rooms, np.minimum(live, brought), live)
    requests, rows = max(len(live), 1), max(int(candidates.sum()), 1)
    return min(1.0, config.ranker_requests / requests, config.ranker_candidates / rows)


def requests_of(facts: pl.DataFrame, taken: npt.NDArray[np.bool_]) -> dict[int, list[tuple[int, int, int]]]:
    """Requests (user, room entered, host) by the position of the fact at whose instant each was made.

    An entry was asked for when its room was last shown to the user, at most `SHOWN_BEFORE_US` before, else when it
    happened.

    Args:
        facts: sorted by time; taken: (n,) which of them are entries that requests are made of.
    """
    placed = facts.select("at", "kind", "user", "room", "host").with_columns(i=pl.int_range(pl.len(), dtype=pl.Int64))
    shown = placed.filter(pl.col("kind") == int(FactKind.IMPRESSION)).select("at", "user", "room", shown="i")
    entered = placed.filter(pl.Series(taken)).join_asof(
        shown, on="at", by=["user", "room"], strategy="backward", tolerance=SHOWN_BEFORE_US, check_sortedness=False
    )
    found: dict[int, list[tuple[int, int, int]]] = {}
    for i, user, room, host in entered.select(pl.coalesce("shown", "i"), "user", "room", "host").iter_rows():
        found.setdefault(i, []).append((user, room, host))
    return found


def moved_through(live: LiveState, facts: pl.DataFrame) -> Iterator[tuple[int, ...]]:
    """Facts (sorted by time) one by one; at each, `live` knows all of earlier instants and none of its own.

    When there are no more, it knows them all.
    """
    waiting: list[tuple[int, ...]] = []
    now = None
    for fact in facts.select(FACT_SCHEMA.keys()).iter_rows():
        if fact[0] != now:
            for earlier in waiting:
                live.apply(*earlier)
            waiting, now = [], fact[0]
        yield fact
        waiting.append(fact)
    for last in waiting:
        live.apply(*last)


class _Log:
    def __init__(
        self, world: World, config: BuildConfig, rng: np.random.Generator, tie_share: float, tower: TwoTower | None
    ) -> None:
        self.world, self.config, self.rng, self.tie_share, self.tower = world, config, rng, tie_share, tower
        self.nearest: list[tuple[int, int, int]] = []
        self.rows = _Rows(len(FEATURES))
        self.groups: list[int] = []
        self.labels: list[npt.NDArray[np.int8]] = []
        self.hosts: list[npt.NDArray[np.int32]] = []
        self.requests: list[tuple[int, int, bool]] = []
        self.missed: list[int] = []
        self.ties = TieLog(world, rng)

    def request(self, at: int, user: int, room: int, host: int) -> None:
        """Log one request: the user entered `room` at `at`."""
        world = self.world
        epoch = world.index.publish()
        viewer = world.models.viewer(world.ties, world.blocks, user, len(world.standings), at)
        rooms = epoch.rooms
        if len(rooms) > self.config.ranker_rooms:
            rooms = candidates(world, epoch, Request(user, at, 1), viewer).rooms
        entered = rooms == room
        known = world.ties.row("visits", user, host) is not None
        if entered.any():
            hosts = world.rooms.host[rooms].astype(np.int64)
            self.rows.add(feature_table(world, user, viewer, rooms, hosts, at).values.T)
            self.groups.append(len(rooms))
            self.labels.append(entered.astype(np.int8))
            self.hosts.append(hosts.astype(np.int32))
            self.requests.append((user, at, known))
        else:
            self.missed.append(at)
        if self.rng.random() < self.tie_share:
            self.ties.log(at, user)
        if self.tower is not None and viewer.vector is not None and not known:
            self._try(self.tower, user, at, epoch.hosts, host, viewer.vector)

    def _try(
        self,
        tower: TwoTower,
        user: int,
        at: int,
        hosts: npt.NDArray[np.int64],
        host: int,
        vector: npt.NDArray[np.float32],
    ) -> None:
        """Note at which place factors and tower have the host entered among all hosts live."""
        world, factors = self.world, self.world.models.factors
        if factors is None or len(self.nearest) >= TRIALS or host not in hosts:
            return
        known = np.minimum(hosts, len(factors.vectors) - 1)
        by_factors = np.where(hosts < len(factors.vectors), factors.vectors[known] @ vector, 0.0)
        by_tower = tower.score(tower.viewer_of(world.ties, world.blocks, user, at), hosts)
        right = np.flatnonzero(hosts == host)[0]
        factors_place, tower_place = (int((scores > scores[right]).sum()) for scores in (by_factors, by_tower))
        self.nearest.append((user, factors_place, tower_place))

    def finish(self) -> TrainingLog:
        return TrainingLog(
            rows=self.rows.all(),
            groups=np.array(self.groups, dtype=np.int64),
            labels=np.concatenate([np.empty(0, dtype=np.int8), *self.labels]),
            hosts=np.concatenate([np.empty(0, dtype=np.int32), *self.hosts]),
            requests=pl.DataFrame(
                self.requests, schema={"user": pl.Int64, "at": pl.Int64, "known": pl.Boolean}, orient="row"
            ),
            tie_rows=self.ties.rows(),
            ties=self.ties.frame(),
            nearest=pl.DataFrame(
                self.nearest, schema={"user": pl.Int64, "factors": pl.Int64, "tower": pl.Int64}, orient="row"
            ),
            missed=np.array(self.missed, dtype=np.int64),
        )


class _Rows:
    """Rows added part by part in one array that grows where it lies, so that all are never held twice."""

    def __init__(self, width: int) -> None:
        self._held = np.empty((0, width), dtype=np.float32)
        self._filled = 0

    def add(self, rows: npt.NDArray[np.floating]) -> None:
        """Add rows (n, width)."""
        end = self._filled + len(rows)
        if end > len(self._held):
            self._held.resize((end + 100_000, self._held.shape[1]), refcheck=False)
        self._held[self._filled : end] = rows
        self._filled = end

    def all(self) -> npt.NDArray[np.float32]:
        """All rows (N, width)."""
        self._held.resize((self._filled, self._held.shape[1]), refcheck=False)
        return self._held
