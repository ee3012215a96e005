"""What models read from ties: one vector of numbers per (user, host) pair, at one instant.

Everything here is derived when it is read: ages, decayed sums at the instant, missed broadcasts, dueness. A tie of
which nothing is known in a block has NaN in that block's features, so models can tell «never» from «none».

The arithmetic is in `recsys.ties.feature_loops`.

Shape letters: m pairs, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from recsys.ties import feature_loops as loops
from recsys.ties.algebra import Block, Floats, Ints
from recsys.ties.blocks import TIE_HOUR_SLOTS, Blocks
from recsys.ties.blocks import blocks as declared_blocks
from recsys.ties.gathering import GatheredTies
from recsys.ties.standing import relations

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
_ENDS = np.cumsum([len(part) for part in _PARTS]).tolist()
_DEPTH, _COMMERCE, _RELATION, _EXPOSURE = (slice(*ends) for ends in pairwise(_ENDS[:-1]))


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
    m = len(ties.asked)
    values = np.full((len(TIE_FEATURES), m), np.nan)
    if not m:
        return values
    plan, rows, has = _plan(blocks.visits.slot_ms), ties.rows, ties.has
    now = np.full(m, at, dtype=np.int64) - paused_us
    entries = np.full(m, user_entries, dtype=np.float64)
    among, lives = np.empty((m, 4)), blocks.visits.half_lives_us
    seen = rows["visits"]
    for every, start, stop in zip(ties.all_visits, ties.bounds, ties.bounds[1:], strict=False):
        loops.among_all(
            seen.ints, seen.decayed, start, stop, every.ints, every.decayed, now, at, lives, plan.visits, among
        )  # fmt: skip
    attended = seen.latest[:, blocks.visits.latest_slices["attended"]]
    loops.visits(
        seen.ints, seen.decayed, attended, has["visits"], among, broadcasts, live_started, now, entries, at,
        TIE_HOUR_SLOTS, lives, plan.visits, values,
    )  # fmt: skip
    if "depth" in ties.present:
        held, out = rows["depth"], values[_DEPTH]
        loops.depth(held.ints, held.decayed, has["depth"], now, blocks.depth.half_lives_us, plan.depth, out)
    if "commerce" in ties.present:
        held, out = rows["commerce"], values[_COMMERCE]
        times = held.latest[:, blocks.commerce.latest_slices["order_times"]]
        loops.commerce(
            held.ints, held.decayed, times, has["commerce"], now, blocks.commerce.half_lives_us, plan.commerce, out
        )
    if "relation" in ties.present:
        held, block = rows["relation"], blocks.relation
        loops.relation(
            held.ints, has["relation"], *relations(block, held), seen.ints, plan.visits.last_entry_at, broadcasts,
            live_started, at, plan.relation, values[_RELATION],
        )  # fmt: skip
    if "exposure" in ties.present:
        held, out = rows["exposure"], values[_EXPOSURE]
        loops.exposure(
            held.ints, held.decayed, has["exposure"], seen.ints, seen.decayed, at, blocks.exposure.half_lives_us, lives,
            out,
        )  # fmt: skip
    values[-1] = offered
    return values


_DECAYS = {
    "visits": ("entries_2h", "entries_12h", "entries_3d", "entries_14d", "stay_ms_7d", "beyond_ms_30d"),
    "depth": ("comments_7d", "comments_30d", "likes_14d", "gift_minor_30d"),
    "commerce": ("lines_30d", "lines_120d", "spend_minor_60d"),
    "exposure": ("impressions_1d", "impressions_7d"),
}


class _Plan(NamedTuple):
    """Where the columns lie that are read."""

    visits: loops.OfVisits
    depth: loops.OfDepth
    commerce: loops.OfCommerce
    relation: loops.OfRelation


@cache
def _plan(slot_ms: int) -> _Plan:
    declared = declared_blocks(slot_ms // 1000)
    for block, columns in _DECAYS.items():  # the loops know them by their places
        assert getattr(declared, block).decays == columns, f"the loops over {block} read other decayed sums"

    def places(block: Block, names: Sequence[str]) -> list[int]:
        return [block.int_column(name) for name in names]

    return _Plan(
        loops.OfVisits(*places(declared.visits, loops.OfVisits._fields)),
        loops.OfDepth(*places(declared.depth, loops.OfDepth._fields)),
        loops.OfCommerce(*places(declared.commerce, loops.OfCommerce._fields)),
        loops.OfRelation(*places(declared.relation, loops.OfRelation._fields)),
    )
