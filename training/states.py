"""The batch: all states as of one instant, one user bucket in memory at a time."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.bundle import Bundle, BundleWriter, ManifestFields
from recsys.config import EngineConfig
from recsys.errors import InputRefused
from recsys.events import Events, Vocabularies, build_vocabularies, room_table, tie_facts, user_parts
from recsys.events.facts import FACT_SCHEMA, FactKind
from recsys.instants import format_instant
from recsys.models.affinity import AFFINITY_BLOCKS
from recsys.pipeline.world import Priors
from recsys.progress import Progress, silent
from recsys.ties.algebra import BlockState
from recsys.ties.batch import READ_COLUMNS, state_of, states_of
from recsys.ties.blocks import Blocks, blocks
from recsys.ties.layers import State, added, layered
from recsys.ties.standing import STANDINGS, count_standings, first_entries, first_entry_facts
from recsys.ties.stored import load_states, save_states
from training.executor import Executor, this_machine
from training.gathered import Gathered
from training.stages import fields_of

DERIVED = ("schedule", "arrivals")
"""Blocks that follow from the rooms and from other blocks."""


@dataclass
class Snapshot:
    """Everything the tables say as of one instant, as states.

    `rooms` are the rooms live then (`room_table` columns), `leaves` the absences announced by then. `lying`: a folder
    in which the large states lie as files already.
    """

    as_of_us: int
    states: dict[str, State]
    standings: npt.NDArray[np.int64]
    rooms: pl.DataFrame
    leaves: pl.DataFrame
    priors: Priors
    lying: Path | None = None


def vocabularies_before(events: Events, as_of_us: int) -> Vocabularies:
    """What the facts before an instant speak of.

    Raises:
        InputRefused: there is none.
    """
    found = build_vocabularies(events, as_of_us=as_of_us)
    if not len(found.hosts):
        raise InputRefused(
            "no fact lies before the as-of",
            where="--as-of",
            got=format_instant(as_of_us),
            expected="an instant after the first facts",
            hint="choose a later --as-of",
        )
    return found


def snapshot(
    events: Events,
    vocabularies: Vocabularies,
    config: EngineConfig,
    as_of_us: int,
    progress: Progress = silent,
    executor: Executor | None = None,
    scratch: Path | None = None,
) -> Snapshot:
    """States of all ties, hosts and users, and of the rooms live at `as_of_us`, from facts before it.

    Memory: the facts of the parts of users in work, and the states, unless they are kept on the disk.

    Args:
        executor: where the parts are worked on; None: this machine.
        scratch: an empty folder that outlives the snapshot, for the states if there are several parts; None: memory.
    """
    declared = blocks(round(config.ties.product_slot_s))
    rooms = rooms_live_at(events, vocabularies, as_of_us)
    n_parts = user_parts(events, config.ties.user_buckets if len(vocabularies.users) > 20_000 else 1)

    n_hosts = len(vocabularies.hosts)

    def work(part: int) -> tuple[dict[str, BlockState], npt.NDArray[np.int64]]:
        facts = tie_facts(events, vocabularies, before_us=as_of_us, bucket=(part, n_parts))
        facts = facts.select(READ_COLUMNS).rechunk()  # here, so that they are not held twice while states are made
        found = states_of_facts(declared, facts, rooms)
        found["arrivals"] = state_of(declared.arrivals, first_entry_facts(*first_entries(found["visits"])))
        return found, count_standings(found, n_hosts)

    executor = executor or this_machine(config.build.threads, 2 * good_rows(events) // n_parts)
    lying = scratch if n_parts > 1 else None
    gathered, standings = Gathered(lying), np.zeros((n_hosts, len(STANDINGS)), dtype=np.int64)
    parts_done = count(1)
    for found, counts in executor.run(work, n_parts):
        gathered.add(found)
        standings += counts
        del found  # not held while the next part is in work, as the tuples of `enumerate` would
        progress("ties", next(parts_done) / n_parts)
    states: dict[str, State] = {name: gathered.take(getattr(declared, name)) for name in gathered.names()}
    return replace(finished(declared, states, standings, events, vocabularies, as_of_us), lying=lying)


def states_of_facts(declared: Blocks, facts: pl.DataFrame, rooms: pl.DataFrame) -> dict[str, BlockState]:
    """The states that facts with a user make, by block name; those of rooms only for `rooms`."""
    of_rooms = facts.filter(pl.col("room").is_in(rooms["room"].implode()))
    wanted = [block for block in declared.all if block.name not in DERIVED and block.level != "room"]
    return states_of(wanted, facts) | states_of(declared.of("room"), of_rooms)


def ties_after(shot: Snapshot, facts: pl.DataFrame, config: EngineConfig) -> dict[str, State]:
    """The ties that confidences are made of, after more facts: a layer over those of the snapshot."""
    declared = blocks(round(config.ties.product_slot_s))
    fresh = states_of([getattr(declared, name) for name in AFFINITY_BLOCKS], facts)
    return {name: added(layered(shot.states[name]), state)[0] for name, state in fresh.items()}


def finished(
    declared: Blocks,
    states: dict[str, State],
    standings: npt.NDArray[np.int64],
    events: Events,
    vocabularies: Vocabularies,
    as_of_us: int,
) -> Snapshot:
    """A snapshot from the states of all facts with a user and their standings; what rooms and notices say is added."""
    states["schedule"] = state_of(declared.schedule, room_starts(events, vocabularies, as_of_us))
    rooms, leaves = rooms_live_at(events, vocabularies, as_of_us), announced_leaves(events, vocabularies, as_of_us)
    return Snapshot(as_of_us, states, standings, rooms, leaves, priors_of(standings, states["host"].flat()))


def rooms_live_at(events: Events, vocabularies: Vocabularies, at_us: int) -> pl.DataFrame:
    """The rooms live for a state that knows facts before `at_us` (`room_table` columns); none without a rooms table."""
    return live_rooms(room_table(events, vocabularies), at_us) if "rooms" in events.tables else no_rooms()


def good_rows(events: Events) -> int:
    """Good rows of all tables together."""
    return sum(table.good for table in events.quality.tables.values())


def live_rooms(rooms: pl.DataFrame, at_us: int) -> pl.DataFrame:
    """The rooms of a `room_table` live for a state that knows facts before `at_us`; later ends are not known."""
    ended = pl.col("ended_at").is_not_null() & (pl.col("ended_at") < at_us)
    return rooms.filter((pl.col("started_at") < at_us) & ~ended)


def no_rooms() -> pl.DataFrame:
    """An empty `room_table`."""
    return pl.DataFrame(
        schema={
            "room": pl.Int64,
            "host": pl.Int64,
            "cohosts": pl.List(pl.Int64),
            "started_at": pl.Int64,
            "ended_at": pl.Int64,
            "category": pl.String,
            "title": pl.String,
        }
    )


def room_starts(events: Events, vocabularies: Vocabularies, before_us: int) -> pl.DataFrame:
    """The starts of all broadcasts before an instant, as facts."""
    if "rooms" not in events.tables:
        return pl.DataFrame(schema=FACT_SCHEMA)
    rooms = room_table(events, vocabularies).filter(pl.col("started_at") < before_us)
    return rooms.select(
        pl.col("started_at").alias("at"),
        pl.lit(int(FactKind.ROOM_START)).alias("kind"),
        pl.lit(-1).alias("user"),
        "host",
        "room",
        *(pl.lit(0).alias(name) for name in ("count", "value", "aux")),
    ).cast(pl.Schema(FACT_SCHEMA))


def announced_leaves(events: Events, vocabularies: Vocabularies, as_of_us: int) -> pl.DataFrame:
    """Absences announced before an instant: host row, since, until (µs)."""
    schema = {"host": pl.Int64, "since": pl.Int64, "until": pl.Int64}
    if "notices" not in events.tables:
        return pl.DataFrame(schema=schema)
    rows = events.tables["notices"].filter(pl.col("at") < as_of_us).collect()
    hosts = pl.Series("host", vocabularies.hosts.rows(rows["host_id"]), dtype=pl.Int64)
    return rows.select(hosts, pl.col("from").alias("since"), pl.col("to").alias("until")).sort("host", "since", "until")


def priors_of(standings: npt.NDArray[np.int64], host: BlockState) -> Priors:
    """Rates over all hosts together; a rate nobody gave occasion to measure keeps its default."""
    total = dict(zip(STANDINGS, standings.sum(axis=0).tolist(), strict=True))
    default = Priors()
    spend = float(host.rows.ints[:, host.block.int_column("spend_minor")].sum())
    refunded = float(host.rows.ints[:, host.block.int_column("refunded_minor")].sum())
    return Priors(
        returning_share=total["returning"] / total["visitors"] if total["visitors"] else default.returning_share,
        repeat_buyer_share=total["repeat_buyers"] / total["buyers"] if total["buyers"] else default.repeat_buyer_share,
        refund_share=refunded / spend if spend else default.refund_share,
    )


def save_shot(writer: BundleWriter, shot: Snapshot, base: Bundle | None = None) -> ManifestFields:
    """Write a snapshot; what `base` holds of its states is linked."""
    columns = save_states(writer, shot.states, base, shot.lying)
    writer.array("standings", shot.standings)
    for name in ("rooms", "leaves"):
        getattr(shot, name).write_ipc(writer.path(f"{name}.arrow"), compression="uncompressed")
    writer.json("world", {"columns": columns, "priors": asdict(shot.priors)})
    return fields_of(shot.as_of_us)


def load_shot(config: EngineConfig, bundle: Bundle) -> Snapshot:
    """Read what `save_shot` wrote; states stay memory-mapped."""
    world = bundle.json("world")
    states = load_states(bundle, blocks(round(config.ties.product_slot_s)), world["columns"])
    rooms, leaves = (pl.read_ipc(bundle.file(f"{name}.arrow")) for name in ("rooms", "leaves"))
    standings, priors = np.array(bundle.array("standings")), Priors(**world["priors"])
    return Snapshot(bundle.manifest.window.as_of_us, states, standings, rooms, leaves, priors)
