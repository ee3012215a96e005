"""The tables that come from the programme alone: rooms, hosts, notices."""

from __future__ import annotations

import numpy as np
import polars as pl

from recsys.events.simulator.arrays import DAY_S, NO_HOST, Bools
from recsys.events.simulator.population import HostTraits
from recsys.events.simulator.schedule import Schedule, Window
from recsys.events.simulator.tables import FIRST_HOST_ID, FIRST_ROOM_ID, SCHEMAS, Column, PartWriter

ROOMS_AT_ONCE = 500_000


def write_programme(writer: PartWriter, hosts: HostTraits, schedule: Schedule, window: Window) -> None:
    """Write rooms, hosts and notices of the whole window."""
    for first in range(0, len(schedule), ROOMS_AT_ONCE):
        writer.write("rooms", _rooms(writer, hosts, schedule, first, min(first + ROOMS_AT_ONCE, len(schedule))))
    writer.add(
        "hosts",
        host_id=np.arange(len(hosts)),
        category=hosts.category,
        city_tier=hosts.tier,
        registered_at=hosts.registered_s,
    )
    leaves = schedule.leaves
    told: Bools = np.isfinite(leaves.announced_s)
    starts = window.first_day_s + leaves.first_day[told] * DAY_S
    notices: dict[str, Column] = {
        "host_id": leaves.host[told],
        "at": leaves.announced_s[told],
        "from": starts,
        "to": window.first_day_s + (leaves.last_day[told] + 1) * DAY_S,
        "kind": np.zeros(int(told.sum()), dtype=np.int32),
    }
    writer.add("notices", **notices)
    writer.close()


def _rooms(writer: PartWriter, hosts: HostTraits, schedule: Schedule, first: int, last: int) -> pl.DataFrame:
    rows = slice(first, last)
    host, guests = schedule.host[rows], schedule.guests[rows]
    guest_id = np.where(guests == NO_HOST, -1, guests + np.int64(FIRST_HOST_ID))
    clock = writer.clock
    category = pl.Series("category", writer.categories).gather(pl.Series(hosts.category[host].astype(np.uint32)))
    frame = pl.DataFrame(
        [
            pl.Series("room_id", np.arange(first, last, dtype=np.int64) + FIRST_ROOM_ID),
            pl.Series("host_id", host.astype(np.int64) + FIRST_HOST_ID),
            clock.series("started_at", schedule.start_s[rows]),
            clock.series("ended_at", schedule.end_s[rows], open_end=True),
            category,
            *(pl.Series(f"guest_{column}", guest_id[:, column]) for column in range(guests.shape[1])),
        ]
    )
    guest_list = pl.concat_list("guest_0", "guest_1").list.filter(pl.element() >= 0)
    joint = pl.when(pl.col("guest_0") >= 0).then(pl.lit(" with guests")).otherwise(pl.lit(""))
    return frame.with_columns(
        title=pl.format("{} live{}", pl.col("category").str.replace_all("_", " "), joint),
        cohost_ids=guest_list,
    ).select(list(SCHEMAS["rooms"]))
