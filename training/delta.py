"""The nightly delta: states of yesterday ⊕ facts since, instead of the whole history again.

A state is known as of (A, S): it has the facts with time < A among the rows of the lake's ingestions up to S. Wanted is
(A', S'). The facts it lacks are those of (A', S') that are not among those of (A, S), and they can be found without the
history, because a row changes what other rows say only

- within its key, and rows of one key share a partition of the lake (purchases and refunds, whose keys have no time, are
  read whole: they are few);
- through its room, from the moment at which what is known of the room has changed.

So both sets of facts are made from the partitions that hold new rows, rows later than A, or rows of rooms that have
changed, and compared. If the old facts are all among the new, the difference is merged into the states (integers
exactly, decayed sums to rounding). If a row has taken a fact back (a smaller row of the same key arrived late, a room
became known to rows before it) nothing is merged: states do not forget, and the caller rebuilds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.bundle import Bundle
from recsys.config import EngineConfig
from recsys.errors import InputRefused
from recsys.events import Events, Vocabularies, clean, extend_vocabularies, tie_facts, user_parts
from recsys.events.facts import FACT_SCHEMA
from recsys.events.lake.manifest import ALL_DATES, LakeManifest
from recsys.events.lake.partition import day_of
from recsys.events.lake.view import LakeView
from recsys.events.reading import from_lake, load_view
from recsys.live.artefact import load_states_of
from recsys.progress import Progress, silent
from recsys.ties.algebra import Block, BlockState, Rows
from recsys.ties.blocks import blocks
from recsys.ties.layers import State, added, layered
from recsys.ties.merging import merge, merge_all
from recsys.ties.standing import arrivals_after, moved_standings
from training.executor import Executor, this_machine
from training.states import Snapshot, finished, good_rows, rooms_live_at, states_of_facts

PARTED = ("watches", "engagements", "impressions", "follows", "feedback")
"""Tables of which only some partitions are read; rows of one key lie in one partition of these."""
HELD_ROWS = 5_000_000
"""Tables of which so many rows are to be read at most are read once, into memory (some 60 bytes a row)."""
_WITH_ROOM = ("watches", "engagements", "impressions")
_ROOM = ["room_id", "host_id", "started_at", "cohost_ids"]


@dataclass(frozen=True)
class KnownStates:
    """States as of (`as_of_us`, `seq`), in the rows of `vocabularies` (its rooms: those live then).

    `now_us`: the clock of the build that made them, by which it set rows aside as later than now.
    """

    states: dict[str, State]
    standings: npt.NDArray[np.int64]
    vocabularies: Vocabularies
    as_of_us: int
    seq: int
    now_us: int


@dataclass(frozen=True)
class Advanced:
    """The states brought forward, in the rows of `vocabularies`; `facts`: how many were merged."""

    shot: Snapshot
    vocabularies: Vocabularies
    facts: int


def lake_of(events: Events) -> LakeView:
    """The lake the events were read from.

    Raises:
        InputRefused: they were read from elsewhere.
    """
    if events.lake is None:
        raise InputRefused(
            "a base needs a lake", got="a folder of event tables", hint="laotie ingest, then build the lake"
        )
    return events.lake


def known_states(bundle: Bundle, manifest: LakeManifest, config: EngineConfig) -> KnownStates:
    """The states of a bundle that was built from this lake.

    Raises:
        InputRefused: it was built from something else, or with other tie settings.
    """
    seq = bundle.manifest.offsets.get(manifest.source_name)
    if seq is None:
        raise InputRefused(
            "the base was not built from this lake", where=bundle.path,
            got=sorted(bundle.manifest.offsets) or "no offset", expected=manifest.source_name,
            hint="build once without --base",
        )  # fmt: skip
    if bundle.config.ties.product_slot_s != config.ties.product_slot_s:
        raise InputRefused("the base counts with another product slot", where="ties.product_slot_s",
                           got=config.ties.product_slot_s, expected=bundle.config.ties.product_slot_s)  # fmt: skip
    vocabularies = Vocabularies.load(bundle.file("users.ids").parent)
    window = bundle.manifest.window
    states, standings = load_states_of(bundle), np.array(bundle.array("standings"))
    return KnownStates(states, standings, vocabularies, window.as_of_us, seq, bundle.manifest.created_at_us)


def advance(
    known: KnownStates,
    view: LakeView,
    config: EngineConfig,
    as_of_us: int,
    now_us: int,
    progress: Progress = silent,
    executor: Executor | None = None,
    vocabularies: Vocabularies | None = None,
) -> Advanced | None:
    """The states as of `as_of_us` and of everything seen of the lake, or None: only a rebuild gives them.

    Memory: the facts of one bucket of users of the partitions read, and the states.

    Args:
        executor: where the parts are worked on; None: threads of this machine.
        vocabularies: those of `known`, extended by every id there is; None: they are extended here.
    """
    view = load_view(view, only=("rooms",), most_rows=HELD_ROWS)
    if as_of_us < known.as_of_us and _room_facts_between(known, view, as_of_us, now_us):
        return None  # rooms that began or ended there would have to be forgotten; ties are compared fact by fact
    partitions = frozenset(_partitions(known, view, as_of_us, now_us))
    seen = load_view(replace(view, partitions=partitions, narrowed=frozenset(PARTED)), most_rows=HELD_ROWS)
    old, new = _events(replace(seen, seq=known.seq), known.now_us), _events(seen, now_us)
    if vocabularies is None:
        of = known.vocabularies
        vocabularies = Vocabularies(of.users, of.hosts, orders=of.orders)
        extend_vocabularies(vocabularies, new, as_of_us=as_of_us)
    declared = blocks(round(config.ties.product_slot_s))
    rooms = rooms_live_at(new, vocabularies, as_of_us)
    n_parts = user_parts(new, config.ties.user_buckets if good_rows(new) > 500_000 else 1)

    def work(part: int) -> tuple[int, dict[str, BlockState]] | None:
        had = tie_facts(old, vocabularies, before_us=known.as_of_us, bucket=(part, n_parts))
        has = tie_facts(new, vocabularies, before_us=as_of_us, bucket=(part, n_parts))
        added = added_facts(had, has)
        return None if added is None else (len(added), states_of_facts(declared, added, rooms))

    facts = 0
    found: dict[str, list[BlockState]] = {}
    executor = executor or this_machine(config.build.threads, 2 * good_rows(new) // n_parts)
    for part, done in enumerate(executor.run(work, n_parts)):
        if done is None:
            return None
        facts += done[0]
        for name, state in done[1].items():
            found.setdefault(name, []).append(state)
        progress("delta", (part + 1) / n_parts)
    states = dict(known.states)
    states["room"] = _of_rooms(states["room"].flat(), known.vocabularies, vocabularies, rooms)
    standings = np.zeros((len(vocabularies.hosts), known.standings.shape[1]), dtype=np.int64)
    standings[: len(known.standings)] = known.standings
    for name in list(found):
        block: Block = getattr(declared, name)
        fresh = merge_all(block, found.pop(name))
        if block.level != "tie":
            states[name] = merge(states[name].flat(), fresh)
            continue
        both, before, after = added(layered(states[name]), fresh)
        full = len(both.over) > config.ties.layer_share * len(both.base)
        states[name] = both.flat() if full else both
        moved_standings(standings, block, fresh.keys, before, after)
        if name == "visits":
            states["arrivals"] = arrivals_after(states["arrivals"].flat(), both, fresh.keys, before, after)
    return Advanced(finished(declared, states, standings, new, vocabularies, as_of_us), vocabularies, facts)


def added_facts(had: pl.DataFrame, has: pl.DataFrame) -> pl.DataFrame | None:
    """`has` less `had`, both with repetitions; None if `had` holds a fact that `has` does not."""
    if not had.height:
        return has
    both = pl.concat([has.with_columns(n=pl.lit(1)), had.with_columns(n=pl.lit(-1))])
    left = both.group_by(list(FACT_SCHEMA)).agg(pl.col("n").sum()).filter(pl.col("n") != 0)
    if left.height and int(left["n"].min()) < 0:  # type: ignore[arg-type]
        return None
    return left.select(pl.exclude("n").repeat_by("n").explode()) if (left["n"] > 1).any() else left.drop("n")


def _room_facts_between(known: KnownStates, view: LakeView, as_of_us: int, now_us: int) -> bool:
    """Whether a room began or ended at or after an earlier as-of, but before that of the base."""
    if "rooms" not in view.tables():
        return False
    views = (replace(view, seq=known.seq), known.now_us), (view, now_us)
    found = (_rooms(seen, now).select("started_at", "ended_at") for seen, now in views)
    inside = pl.all().is_between(as_of_us, known.as_of_us, closed="left")
    return any(bool(rooms.select(pl.any_horizontal(inside.any())).item()) for rooms in found)


def _partitions(known: KnownStates, view: LakeView, as_of_us: int, now_us: int) -> Iterator[tuple[str, str, int]]:
    """The partitions in which facts may have been added, changed or taken back.

    Not those in which all begins later than both as-ofs: rows of a key begin at one instant, and no such row is a fact
    yet.
    """
    yet_to_come = max(known.as_of_us, as_of_us)
    changed_from = _rooms_changed_from(known, view, now_us)
    day = None if changed_from is None else day_of(changed_from)
    for file in view.manifest.files:
        if file.table not in PARTED or (file.first_us is not None and file.first_us >= yet_to_come):
            continue
        is_new = file.last_seq > known.seq or file.date == ALL_DATES
        later = file.last_us is not None and file.last_us >= min(known.as_of_us, as_of_us, known.now_us)
        touched = file.table in _WITH_ROOM and day is not None and file.date >= day
        if is_new or later or touched:
            yield file.partition


def _rooms_changed_from(known: KnownStates, view: LakeView, now_us: int) -> int | None:
    """The earliest instant, µs, from which what is known of a room has changed; None: of no room."""
    if "rooms" not in view.tables():
        return None
    old, new = _rooms(replace(view, seq=known.seq), known.now_us), _rooms(view, now_us)
    both = [*_ROOM, "ended_at"]
    rooms = new.select(both).join(old.select(both), on="room_id", how="full", suffix="_old", coalesce=True)
    same = [pl.col(name).eq_missing(pl.col(f"{name}_old")) for name in _ROOM if name != "room_id"]
    start = pl.min_horizontal("started_at", "started_at_old")
    ends = pl.min_horizontal("ended_at", "ended_at_old")
    end = pl.when(pl.col("ended_at").ne_missing(pl.col("ended_at_old"))).then(ends)
    since = pl.when(pl.all_horizontal(same)).then(end).otherwise(start)
    found = rooms.select(since.min()).item()
    return None if found is None else int(found)


def _rooms(view: LakeView, now_us: int) -> pl.DataFrame:
    return clean(from_lake(view, only=("rooms",)), now=_instant(now_us)).rooms


def _events(view: LakeView, now_us: int) -> Events:
    return clean(from_lake(view), now=_instant(now_us))


def _instant(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)


def _of_rooms(state: BlockState, known: Vocabularies, vocabularies: Vocabularies, rooms: pl.DataFrame) -> BlockState:
    """The states of the rooms that are still live, in today's rows."""
    now = vocabularies.rooms.rows(known.rooms.ids(state.keys)) if len(state) else np.empty(0, dtype=np.int64)
    live = np.flatnonzero(np.isin(now, rooms["room"].to_numpy()) & (now >= 0))
    order = live[np.argsort(now[live], kind="stable")]
    rows: Rows = state.rows.take(order)
    return BlockState(state.block, now[order], rows)
