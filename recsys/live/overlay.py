"""The state that moved since a bundle was loaded, as plain arrays and numbers, and laid over the same bundle again.

A fold over days of facts need not be repeated: `overlay_of` says what it made of a bundle, `lay_over` makes the same of
a freshly loaded one. Nothing of it is rounded, so answers are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.live.state import LiveState
from recsys.models.audience import Audience
from recsys.ties.algebra import Block, Rows, latest_columns
from recsys.ties.row_store import RowStore, UserRows

Arrays = dict[str, npt.NDArray[Any]]


def layout(live: LiveState) -> dict[str, list[str]]:
    """Columns of every state, by block: overlays of another layout cannot be laid over."""
    return {block.name: [*block.ints, *block.decays, *latest_columns(block)] for block in live.world.blocks.all}


def overlay_of(live: LiveState) -> tuple[Arrays, dict[str, Any]]:
    """Arrays by name, and a document of plain numbers and texts. Costs what moved, not what the bundle holds."""
    world = live.world
    arrays: Arrays = {"standings": np.ascontiguousarray(world.standings), "heat": world.heat.of_host}
    for name in world.ties.blocks:
        arrays |= {f"{name}.{part}": array for part, array in world.ties.moved(name).items()}
    for store in _stores(live):
        rows, states = store.moved()
        arrays |= {f"{store.block.name}.moved": rows} | _parts(store.block.name, states)
    table, n = world.rooms, int(np.flatnonzero(world.rooms.host >= 0).max(initial=-1)) + 1
    arrays |= {"rooms.host": table.host[:n], "rooms.started_at": table.started_at[:n]}
    arrays["live"] = world.index.publish().rooms
    if world.models.transition is not None:
        arrays |= {f"transition.{name}": array for name, array in world.models.transition.changes().items()}
    if world.models.audience is not None:
        arrays |= {f"audience.{name}": array for name, array in world.models.audience.to_arrays().items()}
    document = {
        "cohosts": [[room, list(guests)] for room, guests in table.cohosts.items()],
        "categories": [table.category(room) for room in range(n)],
        "leaves": [[host, [list(span) for span in spans]] for host, spans in world.leaves.items()],
    }
    return arrays, document


def lay_over(live: LiveState, arrays: Mapping[str, npt.NDArray[Any]], document: Mapping[str, Any]) -> None:
    """Make of the state of a freshly loaded bundle what `overlay_of` told; ids have their rows already."""
    world = live.world
    standings = arrays["standings"]
    world.grow_hosts(len(standings))
    world.standings[: len(standings)] = standings
    for name in world.ties.blocks:
        world.ties.put(name, _of(f"{name}.", arrays))
    for store in _stores(live):
        store.put(arrays[f"{store.block.name}.moved"], _rows(store.block, arrays))
    world.heat.put(arrays["heat"])
    guests = {room: tuple(hosts) for room, hosts in document["cohosts"]}
    told = zip(arrays["rooms.host"].tolist(), arrays["rooms.started_at"].tolist(), document["categories"], strict=True)
    for room, (host, started_at, category) in enumerate(told):
        if host >= 0:
            world.announce(room, host, guests.get(room, ()), started_at, category)
    for room in world.index.publish().rooms.tolist():
        world.index.end(room)
    for room in arrays["live"].tolist():
        world.index.start(room, int(world.rooms.host[room]), guests.get(room, ()))
    world.leaves = {host: [(since, until) for since, until in spans] for host, spans in document["leaves"]}
    if world.models.transition is not None:
        world.models.transition.take_over(_of("transition.", arrays))
    if world.models.audience is not None:
        world.models.audience = Audience.from_arrays(_of("audience.", arrays))


def _stores(live: LiveState) -> tuple[RowStore | UserRows, ...]:
    world = live.world
    return world.hosts, world.schedule, world.arrivals, world.users, world.moments


def _of(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _parts(name: str, rows: Rows) -> Arrays:
    return {f"{name}.ints": rows.ints, f"{name}.decayed": rows.decayed, f"{name}.latest": rows.latest}


def _rows(block: Block, arrays: Mapping[str, npt.NDArray[Any]]) -> Rows:
    return Rows(*(arrays[f"{block.name}.{part}"] for part in ("ints", "decayed", "latest")))
