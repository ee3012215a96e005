"""Reasons in words a person recognises, from the state of the tie: «followed 214 days; bought 5 times …»."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.events.facts import NEVER, US_PER_DAY
from recsys.pipeline.request import SOURCES, Source
from recsys.pipeline.world import World
from recsys.ties.blocks import ORDERS_KEPT
from recsys.ties.gathering import GatheredTies
from recsys.ties.standing import relations

Positions = npt.NDArray[np.intp]

_SAID = {
    Source.NEAREST: "viewers with your ties come here",
    Source.TRANSITION: "viewers of your last rooms went on here",
    Source.POPULAR: "many viewers came in the last hour",
    Source.NEWCOMER: "a new host gets a chance",
    Source.REQUESTED: "no tie yet",
}
_WITHOUT_TIE = [_SAID.get(source, "you know this host") for source in SOURCES]
_WITHOUT_ANY = [
    "viewers come here at this time of day" if source == Source.NEAREST else words
    for source, words in zip(SOURCES, _WITHOUT_TIE, strict=True)
]
"""The same for a viewer without ties: rooms nearest to him are those of the hour."""


def reasons(
    world: World,
    ties: GatheredTies,
    tie_of: Positions,
    rooms: npt.NDArray[np.int64],
    hosts: npt.NDArray[np.int64],
    sources: npt.NDArray[np.int8],
    reserved: npt.NDArray[np.bool_],
    at: int,
    *,
    with_history: bool,
) -> list[list[str]]:
    """For every answer the reasons, strongest kind first; never empty.

    Args:
        ties: the viewer's ties with the candidates; `tie_of` (n,) positions in them, −1 for a host he has none with.
        hosts: (n,) the host each score came through (a co-host is named as such).
        at: instant, µs.
        with_history: whether the viewer has a tie with anybody.
    """
    without = _WITHOUT_TIE if with_history else _WITHOUT_ANY
    said: list[list[str]] = [[] for _ in range(len(rooms))]
    asked = np.flatnonzero(tie_of >= 0)
    if len(asked):
        _say_ties(world, ties, tie_of[asked], asked, said, at)
    own = world.rooms.host[rooms]
    for i in np.flatnonzero(own != hosts).tolist():
        said[i].insert(0, "a host you know is a guest")
    for words, held, source in zip(said, reserved.tolist(), sources.tolist(), strict=True):
        if held:
            words.append("place reserved for new hosts")
        elif not words:
            words.append(without[source])
    return said


def _say_ties(
    world: World, ties: GatheredTies, which: Positions, asked: Positions, said: list[list[str]], at: int
) -> None:
    """Say what is known of the ties `which` (m,), to the answers `asked` (m,). Most know nothing but that the room was
    shown: each part reads only those of which it has something to say."""
    blocks = world.blocks
    if "relation" in ties.present:
        stand = relations(blocks.relation, ties.rows["relation"])
        some = stand.follows[which].nonzero()[0]
        for i, since in zip(asked[some].tolist(), stand.since[which[some]].tolist(), strict=True):
            said[i].append(f"followed {_span(at - since)}")
    if "commerce" in ties.present:
        times = ties.rows["commerce"].latest[which, blocks.commerce.latest_slices["order_times"]]
        count = (times != NEVER).sum(axis=1)
        some = count.nonzero()[0]
        told = asked[some].tolist(), count[some].tolist(), times[some, 0].tolist()
        for i, n, last in zip(*told, strict=True):
            often = f"{n}+ times" if n == ORDERS_KEPT else "once" if n == 1 else f"{n} times"
            said[i].append(f"bought {often}, last {_span(at - last)} ago")
    if "depth" in ties.present:
        comments = ties.rows["depth"].ints[which, blocks.depth.int_column("n_comments")]
        some = comments.nonzero()[0]
        for i, n in zip(asked[some].tolist(), comments[some].tolist(), strict=True):
            said[i].append(f"commented {n} times" if n > 1 else "commented once")
    columns = [blocks.visits.int_column(name) for name in _VISIT_WORDS]
    visits = ties.rows["visits"].ints[which[:, None], columns]
    some = (visits[:, 0] | visits[:, 2]).nonzero()[0]  # entries or stays
    for i, (entries, last, stays, stay_ms) in zip(asked[some].tolist(), visits[some].tolist(), strict=True):
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
