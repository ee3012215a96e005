"""What models read from ties: one vector of numbers per (user, host) pair, at one instant.

Everything here is derived when it is read: ages, decayed sums at the instant, missed broadcasts, dueness. A tie of
which nothing is known in a block has NaN in that block's features, so models can tell «never» from «none».

Shape letters: m pairs, F features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.events.facts import NEVER, US_PER_DAY
from recsys.ties.algebra import Block, Floats, Ints, Rows, decay_to, popcount
from recsys.ties.blocks import ATTENDED_KEPT, TIE_HOUR_SLOTS, Blocks
from recsys.ties.gathering import TiesOfUser
from recsys.ties.standing import blocked, followed, following_since

US_PER_HOUR = US_PER_DAY // 24
US_PER_MINUTE = US_PER_HOUR // 60

VISIT_FEATURES = (
    "tie_entries",
    "tie_entries_2h",
    "tie_entries_12h",
    "tie_entries_3d",
    "tie_entries_14d",
    "tie_share_of_user",
    "tie_share_3d",
    "tie_to_strongest_3d",
    "tie_rank_3d",
    "tie_hours_since_entry",
    "tie_hosts_since",
    "tie_days_since_first",
    "tie_active_days",
    "tie_active_days_7",
    "tie_broadcasts_attended",
    "tie_broadcasts_missed",
    "tie_attendance",
    "tie_visit_gap_hours",
    "tie_visit_due",
    "tie_hour_match",
    "tie_stay_mean_min",
    "tie_stay_7d_min",
    "tie_beyond_mean_min",
    "tie_beyond_30d_min",
)
DEPTH_FEATURES = (
    "tie_comments",
    "tie_comments_7d",
    "tie_comments_30d",
    "tie_likes_14d",
    "tie_comment_share",
    "tie_gift_minor_30d",
    "tie_days_since_comment",
)
COMMERCE_FEATURES = (
    "tie_order_lines",
    "tie_lines_30d",
    "tie_lines_120d",
    "tie_spend_minor_60d",
    "tie_days_since_order",
    "tie_order_gap_days",
    "tie_order_due",
    "tie_refund_share",
    "tie_disputes",
)
RELATION_FEATURES = (
    "tie_followed",
    "tie_follow_age_days",
    "tie_unfollowed",
    "tie_not_interested",
    "tie_days_since_negative",
    "tie_follow_missed",
)
EXPOSURE_FEATURES = ("tie_impressions_1d", "tie_impressions_7d", "tie_ignored_7d")
SCHEDULE_FEATURES = ("tie_broadcasts_offered",)
_PARTS = (VISIT_FEATURES, DEPTH_FEATURES, COMMERCE_FEATURES, RELATION_FEATURES, EXPOSURE_FEATURES, SCHEDULE_FEATURES)
TIE_FEATURES = tuple(name for part in _PARTS for name in part)
"""Names of the features, in the order of the rows of `tie_features`."""
_BORDERS = np.cumsum([len(part) for part in _PARTS])[:-1].tolist()


def tie_features(
    blocks: Blocks,
    ties: TiesOfUser,
    broadcasts: Ints,
    offered: Floats,
    live_started: Ints,
    paused_us: Ints | int,
    user_entries: float,
    at: int,
) -> Floats:
    """Features (F, m) of the m ties at instant `at`.

    Args:
        blocks: the declarations.
        ties: from `gather`.
        broadcasts: (m, K) starts of the hosts' latest broadcasts, µs, descending, padded with NEVER.
        offered: (m,) how many of the hosts' broadcasts the user could have come to.
        live_started: (m,) start of the room in question, NEVER when none: it counts neither as missed nor attended.
        paused_us: (m,) announced leave of the host since the last visit: the tie's clock stood still for so long, and
            neither ages nor decayed sums of visits, comments, gifts and orders count it.
        user_entries: entries of the user in all, for shares.
        at: instant, µs; every state must hold facts before it only.
    """
    values = np.empty((len(TIE_FEATURES), len(ties.asked)))
    parts = np.split(values, _BORDERS)
    _visits(parts[0], blocks.visits, ties, broadcasts, live_started, paused_us, user_entries, at)
    _depth(parts[1], blocks.depth, ties, at - paused_us)
    _commerce(parts[2], blocks.commerce, ties, at - paused_us)
    _relation(parts[3], blocks, ties, broadcasts, live_started, at)
    _exposure(parts[4], blocks, ties, at)
    parts[5][0] = offered
    return values


def _put(out: Floats, features: tuple[npt.NDArray[Any], ...], unknown: npt.NDArray[np.bool_]) -> None:
    """Write features (m,) into the rows of `out`, NaN where nothing is known."""
    for row, feature in zip(out, features, strict=True):
        row[:] = feature
    out[:, unknown] = np.nan


def _visits(
    out: Floats,
    block: Block,
    ties: TiesOfUser,
    broadcasts: Ints,
    live_started: Ints,
    paused_us: Ints | int,
    user_entries: float,
    at: int,
) -> None:
    rows, has = ties.rows["visits"], ties.has["visits"]
    column = {name: rows.ints[:, i] for i, name in enumerate(block.ints)}
    decayed = dict(zip(block.decays, decay_to(block, rows, at - paused_us).T, strict=True))
    entries = column["n_entries"].astype(np.float64)
    safe_entries = np.maximum(entries, 1.0)
    last, first = column["last_entry_at"], column["first_entry_at"]
    all_3d = _decayed_column(block, ties.all_visits, "entries_3d", at)
    all_last = ties.all_visits.ints[:, block.int_column("last_entry_at")]
    ours_3d = decayed["entries_3d"]
    total_3d, strongest_3d = float(all_3d.sum()), float(all_3d.max(initial=0.0))
    if np.any(paused_us):  # paused ties are in the sum as if they had cooled
        total_3d += float((ours_3d - _decayed_column(block, rows, "entries_3d", at)).sum())
        strongest_3d = max(strongest_3d, float(ours_3d.max(initial=0.0)))
    today = at // US_PER_DAY
    shift = np.clip(today - column["active_days_last"], 0, 62)
    week = np.where(shift < 7, np.left_shift(column["active_days_bits"], np.minimum(shift, 7)) & 127, 0)
    attended = rows.latest[:, block.latest_slices["attended"]]
    n_attended = (attended != NEVER).sum(axis=1).astype(np.float64)
    past = (broadcasts != NEVER) & (broadcasts != live_started[:, None])
    missed = (past & (broadcasts > last[:, None])).sum(axis=1).astype(np.float64)
    recent = past[:, :ATTENDED_KEPT]  # no further back than a tie remembers having attended
    came = (broadcasts[:, :ATTENDED_KEPT, None] == attended[:, None, :]).any(axis=2) & recent
    span = np.where(n_attended > 1, _oldest(attended)[0] - _oldest(attended)[1], 0) / US_PER_HOUR
    gap = np.where(n_attended > 1, span / np.maximum(n_attended - 1, 1), np.nan)
    since = (at - last - paused_us) / US_PER_HOUR
    hour = (at % US_PER_DAY) // (US_PER_DAY // TIE_HOUR_SLOTS)
    slots = rows.ints[:, block.int_column("hours_0") : block.int_column("hours_0") + TIE_HOUR_SLOTS]
    near = slots[:, hour] + 0.5 * (slots[:, (hour + 1) % TIE_HOUR_SLOTS] + slots[:, (hour - 1) % TIE_HOUR_SLOTS])
    stays = column["n_stays"].astype(np.float64)
    has_stay = np.where(stays > 0, stays, np.nan)
    minute_ms = 60_000.0
    features = (
        entries,
        decayed["entries_2h"],
        decayed["entries_12h"],
        ours_3d,
        decayed["entries_14d"],
        entries / max(user_entries, 1.0),
        ours_3d / max(total_3d, 1e-9),
        ours_3d / max(strongest_3d, 1e-9),
        _how_many_exceed(all_3d, ours_3d),
        since,
        _how_many_exceed(all_last, last),
        (at - first) / US_PER_DAY,
        popcount(column["active_days_bits"]),
        popcount(week),
        n_attended,
        missed,
        (came.sum(axis=1) + 0.5) / (recent.sum(axis=1) + 1.5),
        gap,
        since / np.maximum(gap, 0.25),
        (near + 0.5) / (2.0 * safe_entries + 0.5 * TIE_HOUR_SLOTS),
        column["stay_ms"] / minute_ms / has_stay,
        np.where(stays > 0, decayed["stay_ms_7d"] / minute_ms, np.nan),
        column["beyond_ms"] / minute_ms / has_stay,
        np.where(stays > 0, decayed["beyond_ms_30d"] / minute_ms, np.nan),
    )
    _put(out, features, ~has | (entries == 0))


def _decayed_column(block: Block, rows: Rows, name: str, at: int) -> Floats:
    """One column of `decay_to`, (n,)."""
    column = block.decay_column(name)
    age = np.maximum(np.float64(at) - rows.ints[:, 0].astype(np.float64), 0.0)
    return np.asarray(rows.decayed[:, column] * np.exp2(-age / block.half_lives_us[column]))


def _how_many_exceed(all_values: npt.NDArray[Any], values: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """For each of `values` how many of `all_values` are larger."""
    return len(all_values) - np.sort(all_values).searchsorted(values, side="right")


def _oldest(instants: Ints) -> tuple[Ints, Ints]:
    """The latest and the earliest known instant of each descending row."""
    known = (instants != NEVER).sum(axis=1)
    return instants[:, 0], instants[np.arange(len(instants)), np.maximum(known - 1, 0)]


def _depth(out: Floats, block: Block, ties: TiesOfUser, at: Ints | int) -> None:
    rows, has = ties.rows["depth"], ties.has["depth"]
    if not has.any():
        out[:] = np.nan
        return
    column = {name: rows.ints[:, i] for i, name in enumerate(block.ints)}
    decayed = dict(zip(block.decays, decay_to(block, rows, at).T, strict=True))
    comments = column["n_comments"].astype(np.float64)
    features = (
        comments,
        decayed["comments_7d"],
        decayed["comments_30d"],
        decayed["likes_14d"],
        (comments + 0.1) / (comments + column["n_likes"] + 0.9),
        decayed["gift_minor_30d"],
        _age(at, column["last_comment_at"], US_PER_DAY),
    )
    _put(out, features, ~has)


def _commerce(out: Floats, block: Block, ties: TiesOfUser, at: Ints | int) -> None:
    rows, has = ties.rows["commerce"], ties.has["commerce"]
    if not has.any():
        out[:] = np.nan
        return
    column = {name: rows.ints[:, i] for i, name in enumerate(block.ints)}
    decayed = dict(zip(block.decays, decay_to(block, rows, at).T, strict=True))
    times = rows.latest[:, block.latest_slices["order_times"]]
    n_times = (times != NEVER).sum(axis=1)
    newest, oldest = _oldest(times)
    gap = np.where(n_times > 1, (newest - oldest) / US_PER_DAY / np.maximum(n_times - 1, 1), np.nan)
    since = _age(at, column["last_order_at"], US_PER_DAY)
    lines = column["n_lines"].astype(np.float64)
    features = (
        lines,
        decayed["lines_30d"],
        decayed["lines_120d"],
        decayed["spend_minor_60d"],
        since,
        gap,
        since / np.maximum(gap, 0.5),
        (column["refunded_minor"] + 1.0) / (column["spend_minor"] + 20.0),
        column["n_disputes"].astype(np.float64),
    )
    _put(out, features, ~has)


def _relation(out: Floats, blocks: Blocks, ties: TiesOfUser, broadcasts: Ints, live_started: Ints, at: int) -> None:
    """Follows and negative feedback; `tie_follow_missed` counts the broadcasts a follower let pass since he followed or
    last came, which tells a follow that went cold before it was ever used from a fresh one."""
    block, rows, has = blocks.relation, ties.rows["relation"], ties.has["relation"]
    if not has.any():
        out[:] = np.nan
        return
    column = {name: rows.ints[:, i] for i, name in enumerate(block.ints)}
    follows, since = followed(block, rows), following_since(block, rows)
    came = ties.rows["visits"].ints[:, blocks.visits.int_column("last_entry_at")]
    past = (broadcasts != NEVER) & (broadcasts != live_started[:, None])
    missed = (past & (broadcasts > np.maximum(since, came)[:, None])).sum(axis=1)
    features = (
        follows.astype(np.float64),
        np.where(follows, _age(at, since, US_PER_DAY), np.nan),
        ((column["last_unfollow_at"] != NEVER) & ~follows).astype(np.float64),
        (column["n_not_interested"] + column["n_reports"] + blocked(block, rows)).astype(np.float64),
        _age(at, column["last_negative_at"], US_PER_DAY),
        np.where(follows, missed, np.nan),
    )
    _put(out, features, ~has)


def _exposure(out: Floats, blocks: Blocks, ties: TiesOfUser, at: int) -> None:
    rows, has = ties.rows["exposure"], ties.has["exposure"]
    if not has.any():
        out[:] = np.nan
        return
    day, week = decay_to(blocks.exposure, rows, at).T
    visits = _decayed_column(blocks.visits, ties.rows["visits"], "entries_3d", at)
    _put(out, (day, week, week - visits), ~has)


def _age(at: Ints | int, instant: Ints, unit: int) -> Floats:
    """Time since an instant in units of `unit` µs, NaN for NEVER."""
    known = instant != NEVER
    return np.where(known, (at - np.where(known, instant, at)) / unit, np.nan)
