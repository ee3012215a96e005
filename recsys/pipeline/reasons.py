"""Reasons in words a person recognises, from the state of the tie: «followed 214 days; bought 5 times …»."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.events.facts import NEVER, US_PER_DAY
from recsys.pipeline.request import SOURCES, Source
from recsys.pipeline.world import World
from recsys.ties.blocks import ORDERS_KEPT
from recsys.ties.gathering import TiesOfUser, gather
from recsys.ties.standing import followed, following_since

_WITHOUT_TIE = {
    Source.NEAREST: "viewers with your ties come here",
    Source.TRANSITION: "viewers of your last rooms went on here",
    Source.POPULAR: "many viewers came in the last hour",
    Source.NEWCOMER: "a new host gets a chance",
    Source.REQUESTED: "no tie yet",
}


def reasons(
    world: World,
    user: int,
    rooms: npt.NDArray[np.int64],
    hosts: npt.NDArray[np.int64],
    sources: npt.NDArray[np.int8],
    reserved: npt.NDArray[np.bool_],
    at: int,
) -> list[list[str]]:
    """For every answer the reasons, strongest kind first; never empty.

    Args:
        hosts: (n,) the host each score came through (a co-host is named as such).
        at: instant, µs.
    """
    ties = gather(world.ties, user, hosts, len(world.standings))
    said: list[list[str]] = [[] for _ in range(len(rooms))]
    if len(ties.asked):
        _say_ties(world, ties, said, at)
    own = world.rooms.host[rooms]
    for i in np.flatnonzero(own != hosts).tolist():
        said[i].insert(0, "a host you know is a guest")
    for i, words in enumerate(said):
        if reserved[i]:
            words.append("place reserved for new hosts")
        elif not words:
            words.append(_WITHOUT_TIE.get(SOURCES[sources[i]], "you know this host"))
    return said


def _say_ties(world: World, ties: TiesOfUser, said: list[list[str]], at: int) -> None:
    asked, rows, has = ties.asked.tolist(), ties.rows, ties.has
    relation, commerce = rows["relation"], rows["commerce"]
    blocks = world.blocks
    if has["relation"].any():
        since = following_since(blocks.relation, relation)
        follows = followed(blocks.relation, relation)
        for i, holds, instant in zip(asked, follows.tolist(), since.tolist(), strict=True):
            if holds:
                said[i].append(f"followed {_span(at - instant)}")
    if has["commerce"].any():
        times = commerce.latest[:, blocks.commerce.latest_slices["order_times"]]
        count = (times != NEVER).sum(axis=1).tolist()
        for i, n, instant in zip(asked, count, times[:, 0].tolist(), strict=True):
            if n:
                often = f"{n}+ times" if n == ORDERS_KEPT else "once" if n == 1 else f"{n} times"
                said[i].append(f"bought {often}, last {_span(at - instant)} ago")
    if has["depth"].any():
        comments = rows["depth"].ints[:, blocks.depth.int_column("n_comments")].tolist()
        for i, n in zip(asked, comments, strict=True):
            if n:
                said[i].append(f"commented {n} times" if n > 1 else "commented once")
    visits = rows["visits"].ints
    column = {name: visits[:, blocks.visits.int_column(name)].tolist() for name in _VISIT_WORDS}
    for i, entries, last, stays, stay_ms in zip(asked, *column.values(), strict=True):
        if entries:
            often = "came once" if entries == 1 else f"came {entries} times"
            said[i].append(f"{often}, last {_span(at - last)} ago")
        if stays:
            said[i].append(f"stays {max(1, round(stay_ms / stays / 60_000))} min")


_VISIT_WORDS = ("n_entries", "last_entry_at", "n_stays", "stay_ms")


def _span(us: int) -> str:
    """A length of time in the largest unit that gives at least 1: «214 days», «3 hours», «5 minutes»."""
    minutes = us // 60_000_000
    for unit, length in (("day", 1440), ("hour", 60), ("minute", 1)):
        if minutes >= length:
            n = minutes // length
            return f"{n} {unit}{'s' if n > 1 else ''}"
    return "less than a minute"


assert US_PER_DAY == 1440 * 60_000_000
