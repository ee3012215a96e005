"""The numbers of `recsys.ties.features`, tie by tie: compiled loops over the states of m ties.

Every loop writes the rows of its part into `out` (F, m), where NaN stands already, and leaves the ties alone of which
its block knows nothing. Instants are µs; `of` says where columns lie.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.events.facts import NEVER, US_PER_DAY

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

US_PER_HOUR = US_PER_DAY // 24
_MS_PER_MINUTE = 60_000.0
_GONE = 1_000.0
"""What has halved so often is nothing; a number as small as that takes many times as long to work out."""


class OfVisits(NamedTuple):
    """Columns of the block `visits`; its decayed sums are entries of 2 h, 12 h, 3 and 14 days, stays of 7, and what of
    them lay beyond two product slots of 30 days."""

    n_entries: int
    first_entry_at: int
    last_entry_at: int
    n_stays: int
    stay_ms: int
    beyond_ms: int
    active_days_last: int
    active_days_bits: int
    hours_0: int


class OfDepth(NamedTuple):
    """Columns of the block `depth`; its decayed sums are comments of 7 and 30 days, likes of 14, gifts of 30."""

    n_comments: int
    n_likes: int
    last_comment_at: int


class OfCommerce(NamedTuple):
    """Columns of the block `commerce`; its decayed sums are lines of 30 and 120 days, spend of 60."""

    n_lines: int
    n_disputes: int
    refunded_minor: int
    spend_minor: int
    last_order_at: int


class OfRelation(NamedTuple):
    """Columns of the block `relation`."""

    last_unfollow_at: int
    n_not_interested: int
    n_reports: int
    last_negative_at: int


_ENTRIES_3D = 2


@compiled
def _decayed(sums: Floats, ref: float, at: float, half_life: float) -> float:
    halvings = max(at - ref, 0.0) / half_life
    return float(sums * np.exp2(-halvings)) if halvings < _GONE else 0.0


@compiled
def _days_since(instant: int, at: int) -> float:
    return np.nan if instant == NEVER else (float(at) - float(instant)) / US_PER_DAY


@compiled
def _bits_set(bits: int) -> int:
    n = 0
    while bits:
        bits &= bits - 1
        n += 1
    return n


@compiled
def _known(instants: Ints) -> int:
    """How many instants, the latest first, are not padding."""
    n = 0
    while n < len(instants) and instants[n] != NEVER:
        n += 1
    return n


@compiled
def _missed(broadcasts: Ints, live_started: int, since: int) -> int:
    """Broadcasts after an instant, but for the one on air."""
    n = 0
    for started in broadcasts:
        n += started > since and started != live_started
    return n


@compiled
def among_all(
    ints: Ints, decayed: Floats, start: int, stop: int, all_ints: Ints, all_decayed: Floats, now: Ints, at: int,
    half_lives: Floats, of: OfVisits, out: Floats,
) -> None:  # fmt: skip
    """Of the ties from `start` to `stop`, of one user who has `all_…` ties in all, into the columns of `out` (m, 4):
    sum and largest of his recent entries anywhere, how many hosts have more of them than this one, and how many were
    visited later. Ties whose clock stood still (`now` < `at`) are in the sum as if they had not cooled."""
    half_life = half_lives[_ENTRIES_3D]
    total, strongest = 0.0, 0.0
    recent, last = np.empty(len(all_ints)), np.empty(len(all_ints), dtype=np.int64)
    for i in range(len(all_ints)):
        recent[i] = _decayed(all_decayed[i, _ENTRIES_3D], float(all_ints[i, 0]), float(at), half_life)
        last[i] = all_ints[i, of.last_entry_at]
        total += recent[i]
        strongest = max(strongest, recent[i])
    for i in range(start, stop):
        if now[i] != at:
            ours = _decayed(decayed[i, _ENTRIES_3D], float(ints[i, 0]), float(now[i]), half_life)
            total += ours - _decayed(decayed[i, _ENTRIES_3D], float(ints[i, 0]), float(at), half_life)
            strongest = max(strongest, ours)
    recent.sort()
    last.sort()
    for i in range(start, stop):
        ours = _decayed(decayed[i, _ENTRIES_3D], float(ints[i, 0]), float(now[i]), half_life)
        out[i, 0], out[i, 1] = total, strongest
        out[i, 2] = len(recent) - np.searchsorted(recent, ours, side="right")
        out[i, 3] = len(last) - np.searchsorted(last, ints[i, of.last_entry_at], side="right")


@compiled
def visits(
    ints: Ints, decayed: Floats, attended: Ints, has: Flags, among: Floats, broadcasts: Ints, live_started: Ints,
    now: Ints, user_entries: Floats, at: int, hour_slots: int, half_lives: Floats, of: OfVisits, out: Floats,
) -> None:  # fmt: skip
    """`VISIT_FEATURES`; `among` (m, 4) is what `among_all` found."""
    slot = at % US_PER_DAY // (US_PER_DAY // hour_slots)
    before, after = of.hours_0 + (slot - 1) % hour_slots, of.hours_0 + (slot + 1) % hour_slots
    for i in range(len(ints)):
        entries, last = ints[i, of.n_entries], ints[i, of.last_entry_at]
        if not has[i] or entries <= 0:
            continue
        out[0, i] = entries
        for d in range(4):
            out[1 + d, i] = _decayed(decayed[i, d], float(ints[i, 0]), float(now[i]), half_lives[d])
        ours_3d = out[1 + _ENTRIES_3D, i]
        out[5, i] = entries / max(user_entries[i], 1.0)
        out[6, i], out[7, i] = ours_3d / max(among[i, 0], 1e-9), ours_3d / max(among[i, 1], 1e-9)
        out[8, i], out[10, i] = among[i, 2], among[i, 3]
        since = out[9, i] = (float(now[i]) - float(last)) / US_PER_HOUR
        out[11, i] = (at - ints[i, of.first_entry_at]) / US_PER_DAY
        bits, days = ints[i, of.active_days_bits], at // US_PER_DAY - ints[i, of.active_days_last]
        out[12, i], out[13, i] = _bits_set(bits), _bits_set(bits << min(max(days, 0), 7) & 127)
        n_attended = _known(attended[i])
        out[14, i] = n_attended
        out[15, i] = _missed(broadcasts[i], live_started[i], last)
        past = came = 0
        for started in broadcasts[i, : attended.shape[1]]:  # no further back than a tie remembers having attended
            if started not in (NEVER, live_started[i]):
                past += 1
                for one in attended[i]:
                    if one == started:
                        came += 1
                        break
        out[16, i] = (came + 0.5) / (past + 1.5)
        if n_attended > 1:
            gap = out[17, i] = (attended[i, 0] - attended[i, n_attended - 1]) / US_PER_HOUR / (n_attended - 1)
            out[18, i] = since / max(gap, 0.25)
        near = ints[i, of.hours_0 + slot] + 0.5 * (ints[i, before] + ints[i, after]) + 0.5
        out[19, i] = near / (2.0 * entries + 0.5 * hour_slots)
        stays = ints[i, of.n_stays]
        if stays > 0:
            for d, total in enumerate((ints[i, of.stay_ms], ints[i, of.beyond_ms])):
                lately = _decayed(decayed[i, 4 + d], float(ints[i, 0]), float(now[i]), half_lives[4 + d])
                out[20 + 2 * d, i], out[21 + 2 * d, i] = total / _MS_PER_MINUTE / stays, lately / _MS_PER_MINUTE


@compiled
def depth(ints: Ints, decayed: Floats, has: Flags, now: Ints, half_lives: Floats, of: OfDepth, out: Floats) -> None:
    """`DEPTH_FEATURES`."""
    for i in range(len(ints)):
        if not has[i]:
            continue
        comments = out[0, i] = ints[i, of.n_comments]
        for d in range(4):
            row = 5 if d == 3 else 1 + d
            out[row, i] = _decayed(decayed[i, d], float(ints[i, 0]), float(now[i]), half_lives[d])
        out[4, i] = (comments + 0.1) / (comments + ints[i, of.n_likes] + 0.9)
        out[6, i] = _days_since(ints[i, of.last_comment_at], now[i])


@compiled
def commerce(
    ints: Ints,
    decayed: Floats,
    order_times: Ints,
    has: Flags,
    now: Ints,
    half_lives: Floats,
    of: OfCommerce,
    out: Floats,
) -> None:
    """`COMMERCE_FEATURES`."""
    for i in range(len(ints)):
        if not has[i]:
            continue
        out[0, i], out[8, i] = ints[i, of.n_lines], ints[i, of.n_disputes]
        for d in range(3):
            out[1 + d, i] = _decayed(decayed[i, d], float(ints[i, 0]), float(now[i]), half_lives[d])
        out[4, i] = _days_since(ints[i, of.last_order_at], now[i])
        n = _known(order_times[i])
        if n > 1:
            out[5, i] = (order_times[i, 0] - order_times[i, n - 1]) / US_PER_DAY / (n - 1)
            out[6, i] = out[4, i] / max(out[5, i], 0.5)
        out[7, i] = (ints[i, of.refunded_minor] + 1.0) / (ints[i, of.spend_minor] + 20.0)


@compiled
def relation(
    ints: Ints, has: Flags, follows: Flags, since: Ints, blocks: Flags, visit_ints: Ints, last_entry_at: int,
    broadcasts: Ints, live_started: Ints, at: int, of: OfRelation, out: Floats,
) -> None:  # fmt: skip
    """`RELATION_FEATURES`; `follows`, `since`, `blocks` (m,) are how things stand now; `last_entry_at` is a column of
    `visit_ints`.

    `tie_follow_missed` counts the broadcasts a follower let pass since he followed or last came, which tells a follow
    that went cold before it was ever used from a fresh one.
    """
    for i in range(len(ints)):
        if not has[i]:
            continue
        out[0, i] = follows[i]
        out[2, i] = not follows[i] and ints[i, of.last_unfollow_at] != NEVER
        out[3, i] = ints[i, of.n_not_interested] + ints[i, of.n_reports] + blocks[i]
        out[4, i] = _days_since(ints[i, of.last_negative_at], at)
        if follows[i]:
            out[1, i] = _days_since(since[i], at)
            out[5, i] = _missed(broadcasts[i], live_started[i], max(since[i], visit_ints[i, last_entry_at]))


@compiled
def exposure(
    ints: Ints, decayed: Floats, has: Flags, visit_ints: Ints, visit_decayed: Floats, at: int, half_lives: Floats,
    visit_half_lives: Floats, out: Floats,
) -> None:  # fmt: skip
    """`EXPOSURE_FEATURES`: impressions of 1 and 7 days, and those of 7 days less recent entries."""
    for i in range(len(ints)):
        if has[i]:
            for d in range(2):
                out[d, i] = _decayed(decayed[i, d], float(ints[i, 0]), float(at), half_lives[d])
            entries, ref = visit_decayed[i, _ENTRIES_3D], float(visit_ints[i, 0])
            out[2, i] = out[1, i] - _decayed(entries, ref, float(at), visit_half_lives[_ENTRIES_3D])
