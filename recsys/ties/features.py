"""What models read from ties: one vector of numbers per (user, host) pair, at one instant.

Everything here is derived when it is read: ages, decayed sums at the instant, missed broadcasts, dueness. A tie of
which nothing is known in a block has NaN in that block's features, so models can tell «never» from «none».

A request reads some twenty ties, so what counts is the number of array operations, not their size: a block's columns
are turned into rows once, and what belongs together (decayed sums, hours, bitmaps) is one operation.

Shape letters: m pairs, F features, I integer columns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from recsys.events.facts import NEVER, US_PER_DAY
from recsys.ties.algebra import Block, Floats, Ints, Rows
from recsys.ties.blocks import ATTENDED_KEPT, TIE_HOUR_SLOTS, Blocks
from recsys.ties.gathering import GatheredTies
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
    "tie_followed", "tie_follow_age_days", "tie_unfollowed", "tie_not_interested", "tie_days_since_negative",
    "tie_follow_missed",
)  # fmt: skip
EXPOSURE_FEATURES = ("tie_impressions_1d", "tie_impressions_7d", "tie_ignored_7d")
SCHEDULE_FEATURES = ("tie_broadcasts_offered",)
_PARTS = (VISIT_FEATURES, DEPTH_FEATURES, COMMERCE_FEATURES, RELATION_FEATURES, EXPOSURE_FEATURES, SCHEDULE_FEATURES)
TIE_FEATURES = tuple(name for part in _PARTS for name in part)
"""Names of the features, in the order of the rows of `tie_features`."""
_MS_PER_MINUTE = 60_000.0
_N_VISIT, _N_DEPTH, _N_COMMERCE, _N_RELATION = (len(part) for part in _PARTS[:4])


def tie_features(
    blocks: Blocks,
    ties: GatheredTies,
    broadcasts: Ints,
    offered: Floats,
    live_started: Ints,
    paused_us: Ints | int,
    user_entries: Floats | float,
    at: int,
) -> Floats:
    """Features (F, m) of the m ties at instant `at`.

    Args:
        blocks: the declarations.
        ties: from `gather`, of one user or of several.
        broadcasts: (m, K) starts of the hosts' latest broadcasts, µs, descending, padded with NEVER.
        offered: (m,) how many of the hosts' broadcasts the user could have come to.
        live_started: (m,) start of the room in question, NEVER when none: it counts neither as missed nor attended.
        paused_us: (m,) announced leave of the host since the last visit: the tie's clock stood still for so long, and
            neither ages nor decayed sums of visits, comments, gifts and orders count it.
        user_entries: entries of the tie's user in all, for shares; (m,), or one number.
        at: instant, µs; every state must hold facts before it only.
    """
    values = np.empty((len(TIE_FEATURES), len(ties.asked)))
    if not len(ties.asked):
        return values
    elsewhen = broadcasts != live_started[:, None]
    now = at - paused_us
    _visits(values[:_N_VISIT], blocks.visits, ties, broadcasts, elsewhen, now, user_entries, at)
    row = _N_VISIT
    writers: tuple[tuple[str, int, Callable[[Floats], None]], ...] = (
        ("depth", _N_DEPTH, lambda out: _depth(out, blocks.depth, ties, now)),
        ("commerce", _N_COMMERCE, lambda out: _commerce(out, blocks.commerce, ties, now)),
        ("relation", _N_RELATION, lambda out: _relation(out, blocks, ties, broadcasts, elsewhen, at)),
        ("exposure", len(EXPOSURE_FEATURES), lambda out: _exposure(out, blocks, ties, at)),
    )
    for name, n, write in writers:
        out = values[row : row + n]
        if ties.has[name].any():
            write(out)
        else:
            out[:] = np.nan
        row += n
    values[row] = offered
    return values


def _sums_at(block: Block, rows: Rows, ref: Floats, at: Ints | int) -> Floats:
    """Decayed sums (D, m) at an instant: `decay_to`, a column after the other; `ref` (m,) as floats."""
    age = np.maximum(at - ref, 0.0)
    factor = np.exp2(-age / block.half_lives_us[:, None])
    factor *= rows.decayed.T
    return factor


def _unknown(out: Floats, known: npt.NDArray[np.bool_]) -> None:
    """NaN where nothing is known."""
    if not known.all():
        out[:, ~known] = np.nan


def _visits(
    out: Floats,
    block: Block,
    ties: GatheredTies,
    broadcasts: Ints,
    elsewhen: npt.NDArray[np.bool_],
    now: Ints | int,
    user_entries: Floats | float,
    at: int,
) -> None:
    rows, place = ties.rows["visits"], block.int_column
    column = rows.ints.T.astype(np.float64)  # (I, m): instants in µs are exact
    entries, last, stays = column[place("n_entries")], column[place("last_entry_at")], column[place("n_stays")]
    sums = _sums_at(block, rows, column[0], now)
    ours_3d = sums[block.decay_column("entries_3d")]
    total_3d, strongest_3d, stronger, later = _among_all(block, ties, ours_3d, now, at)
    bits = np.empty((2, len(entries)), dtype=np.int64)
    bits[0] = rows.ints[:, place("active_days_bits")]
    since_active = at // US_PER_DAY - column[place("active_days_last")]
    bits[1] = np.left_shift(bits[0], np.minimum(np.maximum(since_active, 0.0), 7.0).astype(np.int64)) & 127
    attended = rows.latest[:, block.latest_slices["attended"]]
    n_attended = (attended != NEVER).sum(axis=1)
    first_attended = attended[np.arange(len(attended)), np.maximum(n_attended - 1, 0)]
    several = n_attended > 1
    gap = np.where(
        several, (attended[:, 0] - first_attended) / US_PER_HOUR / np.maximum(n_attended - 1, 1), np.nan
    )  # the difference is 0 or right wherever it is read
    recent = broadcasts[:, :ATTENDED_KEPT]  # no further back than a tie remembers having attended
    past = elsewhen[:, :ATTENDED_KEPT] & (recent != NEVER)
    came = (recent[:, :, None] == attended[:, None, :]).any(axis=2) & past
    since = (now - last) / US_PER_HOUR
    hour = (at % US_PER_DAY) // (US_PER_DAY // TIE_HOUR_SLOTS)
    slots = place("hours_0")
    beside = column[slots + (hour + 1) % TIE_HOUR_SLOTS] + column[slots + (hour - 1) % TIE_HOUR_SLOTS]
    has_stay = np.where(stays > 0, stays, np.nan)
    out[0] = entries
    out[1:5] = sums[:4]  # entries of 2 h, 12 h, 3 and 14 days
    np.divide(entries, np.maximum(user_entries, 1.0), out=out[5])
    np.divide(ours_3d, np.maximum(total_3d, 1e-9), out=out[6])
    np.divide(ours_3d, np.maximum(strongest_3d, 1e-9), out=out[7])
    out[8], out[9], out[10] = stronger, since, later
    np.divide(at - column[place("first_entry_at")], US_PER_DAY, out=out[11])
    out[12:14] = np.bitwise_count(bits)
    out[14] = n_attended
    out[15] = (elsewhen & (broadcasts > last[:, None])).sum(axis=1)
    np.divide(came.sum(axis=1) + 0.5, past.sum(axis=1) + 1.5, out=out[16])
    out[17] = gap
    np.divide(since, np.maximum(gap, 0.25), out=out[18])
    near = column[slots + hour] + 0.5 * beside + 0.5
    np.divide(near, 2.0 * np.maximum(entries, 1.0) + 0.5 * TIE_HOUR_SLOTS, out=out[19])
    whole = column[[place("stay_ms"), place("beyond_ms")]] / _MS_PER_MINUTE
    out[20:23:2] = whole / has_stay
    lately = sums[4:6] / _MS_PER_MINUTE  # stay_ms of 7 days, beyond_ms of 30
    out[21:24:2] = np.where(stays > 0, lately, np.nan)
    _unknown(out, ties.has["visits"] & (entries > 0))


def _among_all(
    block: Block, ties: GatheredTies, ours_3d: Floats, now: Ints | int, at: int
) -> tuple[Floats, Floats, Ints, Ints]:
    """Over all ties of a tie's user: sum and largest of `entries_3d`, how many have a larger one, how many were visited
    later; (m,) each."""
    m = len(ours_3d)
    total, strongest = np.empty(m), np.empty(m)
    stronger, later = np.empty(m, dtype=np.int64), np.empty(m, dtype=np.int64)
    column, visited = block.decay_column("entries_3d"), block.int_column("last_entry_at")
    half_life = block.half_lives_us[column]
    paused = isinstance(now, np.ndarray) and bool((now != at).any())
    plain = ours_3d
    if paused:
        mine = ties.rows["visits"]
        plain = mine.decayed[:, column] * np.exp2(-np.maximum(at - mine.ints[:, 0].astype(np.float64), 0.0) / half_life)
    last = ties.rows["visits"].ints[:, visited]
    for rows, start, stop in zip(ties.all_visits, ties.bounds, ties.bounds[1:], strict=False):
        if start == stop:
            continue
        part = slice(start, stop)
        all_3d = np.exp2(-np.maximum(at - rows.ints[:, 0].astype(np.float64), 0.0) / half_life)
        all_3d *= rows.decayed[:, column]
        sum_3d, most = float(all_3d.sum()), float(all_3d.max(initial=0.0))
        if paused:  # paused ties are in the sum as if they had cooled
            sum_3d += float((ours_3d[part] - plain[part]).sum())
            most = max(most, float(ours_3d[part].max(initial=0.0)))
        total[part], strongest[part] = sum_3d, most
        stronger[part] = len(all_3d) - np.sort(all_3d).searchsorted(ours_3d[part], side="right")
        later[part] = len(all_3d) - np.sort(rows.ints[:, visited]).searchsorted(last[part], side="right")
    return total, strongest, stronger, later


def _depth(out: Floats, block: Block, ties: GatheredTies, now: Ints | int) -> None:
    rows = ties.rows["depth"]
    column = rows.ints.T.astype(np.float64)
    comments = out[0] = column[block.int_column("n_comments")]
    sums = _sums_at(block, rows, column[0], now)
    out[1:4] = sums[:3]  # comments of 7 and 30 days, likes of 14
    np.divide(comments + 0.1, comments + column[block.int_column("n_likes")] + 0.9, out=out[4])
    out[5] = sums[3]  # gifts of 30 days
    _age(now, column[block.int_column("last_comment_at")], out[6])
    _unknown(out, ties.has["depth"])


def _commerce(out: Floats, block: Block, ties: GatheredTies, now: Ints | int) -> None:
    rows = ties.rows["commerce"]
    column = rows.ints.T.astype(np.float64)
    times = rows.latest[:, block.latest_slices["order_times"]]
    n_times = (times != NEVER).sum(axis=1)
    span = times[:, 0] - times[np.arange(len(times)), np.maximum(n_times - 1, 0)]
    out[0] = column[block.int_column("n_lines")]
    out[1:4] = _sums_at(block, rows, column[0], now)  # lines of 30 and 120 days, spend of 60
    _age(now, column[block.int_column("last_order_at")], out[4])
    out[5] = np.where(n_times > 1, span / US_PER_DAY / np.maximum(n_times - 1, 1), np.nan)
    np.divide(out[4], np.maximum(out[5], 0.5), out=out[6])
    refunded, spent = column[block.int_column("refunded_minor")], column[block.int_column("spend_minor")]
    np.divide(refunded + 1.0, spent + 20.0, out=out[7])
    out[8] = column[block.int_column("n_disputes")]
    _unknown(out, ties.has["commerce"])


def _relation(
    out: Floats, blocks: Blocks, ties: GatheredTies, broadcasts: Ints, elsewhen: npt.NDArray[np.bool_], at: int
) -> None:
    """Follows and negative feedback; `tie_follow_missed` counts the broadcasts a follower let pass since he followed or
    last came, which tells a follow that went cold before it was ever used from a fresh one."""
    block, rows = blocks.relation, ties.rows["relation"]
    column = {name: rows.ints[:, i] for i, name in enumerate(block.ints)}
    follows, since = followed(block, rows), following_since(block, rows)
    came = ties.rows["visits"].ints[:, blocks.visits.int_column("last_entry_at")]
    out[0] = follows
    _age(at, since.astype(np.float64), out[1])
    out[2] = (column["last_unfollow_at"] != NEVER) & ~follows
    out[3] = column["n_not_interested"] + column["n_reports"] + blocked(block, rows)
    _age(at, column["last_negative_at"].astype(np.float64), out[4])
    out[5] = (elsewhen & (broadcasts > np.maximum(since, came)[:, None])).sum(axis=1)
    if not follows.all():
        out[1:6:4, ~follows] = np.nan
    _unknown(out, ties.has["relation"])


def _exposure(out: Floats, blocks: Blocks, ties: GatheredTies, at: int) -> None:
    rows, visits = ties.rows["exposure"], ties.rows["visits"]
    out[:2] = _sums_at(blocks.exposure, rows, rows.ints[:, 0].astype(np.float64), at)
    column = blocks.visits.decay_column("entries_3d")
    age = np.maximum(at - visits.ints[:, 0].astype(np.float64), 0.0)
    came = visits.decayed[:, column] * np.exp2(-age / blocks.visits.half_lives_us[column])
    np.subtract(out[1], came, out=out[2])
    _unknown(out, ties.has["exposure"])


def _age(at: Ints | int, instant: Floats, out: Floats) -> None:
    """Days since an instant (m,), µs, NaN for NEVER."""
    np.divide(at - instant, US_PER_DAY, out=out)
    out[instant == NEVER] = np.nan
