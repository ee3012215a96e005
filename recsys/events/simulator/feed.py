"""The logging policy of the simulated app: what a viewer is shown, where, and with which propensity.

A slate is a follow rail (each live followed host with a fixed chance), then organic feed positions, then one explore
position (newcomer, venue or commercial, or left empty). The live list behind the feed is refreshed every few minutes,
so a broadcast appears on it at the next refresh and one that has ended is withheld.

Propensity of a shown row = the probability with which the policy drew that room for that position, given the
positions before it: rail_share on the rail; interest[category] · popularity / Σ popularity over live rooms of the
category in the feed; slot share · weight / Σ weight in the explore position. A draw that repeats a room shown
before, or is of a host the viewer blocked or of a room in its last minute, leaves its position empty, which does not
change the probability of the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.events.simulator.arrays import DAY_S, F8, I4, I8, MINUTE_S, NO_ROOM, Bools, repeat_rows
from recsys.events.simulator.config import Exposure, WorldConfig
from recsys.events.simulator.population import HostTraits
from recsys.events.simulator.schedule import Schedule, Window

SLOTS = ("follow", "organic", "newcomer", "venue", "commercial")
NEWCOMER_DAYS = 14.0


@dataclass(frozen=True)
class WeightedCells:
    """Rooms grouped into cells and drawn in proportion to weights; rooms (n,), `edges` (n + 1,) cumulated weights."""

    rooms: I4
    weights: F8
    edges: F8
    cell_rows: I8

    @staticmethod
    def group(rooms: I4, cells: I8, weights: F8, cell_count: int) -> WeightedCells:
        """Group (n,) rooms by their cell in [0, cell_count)."""
        order = np.argsort(cells, kind="stable")
        weights = weights[order]
        return WeightedCells(
            rooms=rooms[order],
            weights=weights,
            edges=np.r_[0.0, np.cumsum(weights)],
            cell_rows=np.searchsorted(cells[order], np.arange(cell_count + 1)),
        )

    def draw(self, cells: I8, uniform: F8) -> tuple[I4, F8]:
        """One room for each cell (any shape) and its probability in the cell; NO_ROOM and 0 where the cell is empty."""
        first, last = self.cell_rows[cells], self.cell_rows[cells + 1]
        low = self.edges[first]
        total = self.edges[last] - low
        empty = (last <= first) | ~(total > 0.0)
        if len(self.rooms) == 0:
            return np.full(cells.shape, NO_ROOM, dtype=np.int32), np.zeros(cells.shape)
        at = np.searchsorted(self.edges, low + uniform * total, side="right") - 1
        at = np.clip(at, first, np.maximum(last - 1, first))
        at = np.minimum(at, len(self.rooms) - 1)
        room = np.where(empty, NO_ROOM, self.rooms[at]).astype(np.int32)
        return room, np.where(empty, 0.0, self.weights[at] / np.where(empty, 1.0, total))


@dataclass(frozen=True)
class DayFeed:
    """Live lists of one broadcast day, by refresh."""

    start_s: float
    refresh_s: float
    refreshes: int
    categories: int
    organic: WeightedCells
    """Cells: refresh × category; weight: host popularity."""
    explore: WeightedCells
    """Cells: slot kind (newcomer, venue, commercial) × refresh."""

    def refresh_of(self, time_s: F8) -> I8:
        """Which live list is in force; `refreshes` (an empty one) after the day is over. Any shape."""
        number = np.floor((time_s - self.start_s) / self.refresh_s).astype(np.int64)
        return np.clip(number, 0, self.refreshes)


def day_feed(config: WorldConfig, hosts: HostTraits, schedule: Schedule, window: Window, day: int) -> DayFeed:
    """Live lists of one day. Cost follows the day's broadcasts × their length in refreshes."""
    refresh_s = config.exposure.feed_refresh_minutes * MINUTE_S
    start = window.day_start(day)
    refreshes = int(np.ceil(DAY_S / refresh_s))
    rows = np.arange(schedule.day_rows[day], schedule.day_rows[day + 1], dtype=np.int32)
    first = np.ceil((schedule.start_s[rows] - start) / refresh_s).astype(np.int64)
    last = np.minimum(np.ceil((schedule.end_s[rows] - start) / refresh_s).astype(np.int64), refreshes)
    listed = repeat_rows(np.maximum(last - first, 0))
    refresh = first[listed] + np.arange(len(listed)) - np.searchsorted(listed, listed, side="left")
    room = rows[listed]
    host = schedule.host[room]
    categories = len(config.categories)
    organic = WeightedCells.group(
        room, refresh * categories + hosts.category[host], hosts.popularity[host], (refreshes + 1) * categories
    )
    new = hosts.newcomer[host] & (start - hosts.registered_s[host] < NEWCOMER_DAYS * DAY_S)
    span = refreshes + 1
    explore = WeightedCells.group(
        np.concatenate([room[new], room, room]),
        np.concatenate([refresh[new], span + refresh, 2 * span + refresh]),
        np.concatenate([np.ones(int(new.sum())), np.ones(len(room)), hosts.ad_budget[host]]),
        3 * span,
    )
    return DayFeed(start, refresh_s, refreshes, categories, organic, explore)


@dataclass(frozen=True)
class Draws:
    """Feed positions drawn for S sessions, all (S, J): room or NO_ROOM, slot (index into SLOTS), propensity."""

    room: I4
    slot: I4
    propensity: F8


def draw_feed(feed: DayFeed, law: Exposure, interest: F8, time_s: F8, rng: np.random.Generator) -> Draws:
    """Draw organic positions and the explore position for sessions with `interest` (S, C) at `time_s` (S,)."""
    sessions = len(time_s)
    refresh = feed.refresh_of(time_s)
    uniform = rng.random((2, sessions, law.feed_positions))
    edges = np.cumsum(interest, axis=1)
    category = (uniform[0][:, :, None] * edges[:, -1:, None] > edges[:, None, :]).sum(axis=2)
    category = np.minimum(category, feed.categories - 1)
    cells = refresh[:, None] * feed.categories + category
    room, within = feed.organic.draw(cells, uniform[1])
    propensity = np.take_along_axis(interest, category, axis=1) * within

    shares = np.array([law.newcomer_slot_share, law.venue_slot_share, law.commercial_slot_share])
    kind = np.searchsorted(np.cumsum(shares), rng.random(sessions), side="right")
    used = kind < len(shares)
    kind = np.minimum(kind, len(shares) - 1)
    explore_room, explore_within = feed.explore.draw(kind * (feed.refreshes + 1) + refresh, rng.random(sessions))
    explore_room = np.where(used, explore_room, NO_ROOM).astype(np.int32)
    slot = np.concatenate([np.full(room.shape, 1), (2 + kind)[:, None]], axis=1).astype(np.int32)
    return Draws(
        np.concatenate([room, explore_room[:, None]], axis=1),
        slot,
        np.concatenate([propensity, (shares[kind] * explore_within)[:, None]], axis=1),
    )


def first_showings(room: I4, shown: Bools) -> Bools:
    """Which of the shown positions (S, J) hold a room not shown at an earlier position of the same slate."""
    fresh = shown.copy()
    for position in range(1, room.shape[1]):
        repeats = (room[:, :position] == room[:, position : position + 1]) & fresh[:, :position]
        fresh[:, position] &= ~repeats.any(axis=1)
    return fresh
