"""Answers as documents: what leaves the service, in external ids and plain types."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.instants import format_instant
from recsys.pipeline.request import OUTCOMES, SOURCES, Outcome
from serving.asked import Asked, Served
from serving.engine import Engine

_SOURCE_NAMES = [str(source) for source in SOURCES]


def document(served: Served, *, breakdown: bool = False) -> dict[str, Any]:
    """One answer. With `breakdown` every room lists the terms that add up to its score, largest first."""
    answer, asked = served.answer, served.asked
    reasons = answer.reasons or [[]] * len(answer)
    rooms: list[dict[str, Any]] = [
        {
            "position": i,
            "room_id": room_id,
            "host_id": host_id,
            "score": score,
            "strength": strength,
            "source": _SOURCE_NAMES[source],
            "slot": "reserved" if reserved else "organic",
            "reasons": why,
        }
        for i, (room_id, host_id, score, strength, source, reserved, why) in enumerate(
            zip(
                served.room_ids,
                served.host_ids,
                answer.score.tolist(),
                answer.strengths(),
                answer.sources.tolist(),
                answer.reserved.tolist(),
                reasons,
                strict=True,
            ),
            start=1,
        )
    ]
    if asked.heads:
        for room, said in zip(rooms, answer.heads_by_room(), strict=True):
            room["heads"] = said
    if breakdown:
        for i, room in enumerate(rooms):
            room["breakdown"] = answer.breakdown.told(i)
    return {
        "user_id": asked.user_id,
        "known_user": served.user >= 0,
        "bundle": served.loaded.name,
        "epoch": served.epoch,
        "offset": served.loaded.applied,
        "at": format_instant(served.at_us),
        "requested": asked.k,
        "returned": len(rooms),
        "short_why": answer.short_why,
        "degraded": list(answer.degraded),
        "weights": answer.weights,
        "rooms": rooms,
    }


def explanation(engine: Engine, user_id: int | str, room_id: int | str, k: int) -> dict[str, Any]:
    """Why a user would be shown a room now, or why not: its place, its terms, or what removed it."""
    with engine.reading():  # one state for all that is said
        whole = engine.lookup(Asked(user_id, k, heads=True))
        rival = None if room_id in whole.room_ids else _among_rivals(engine, whole, room_id)
    found: dict[str, Any] = {
        "user_id": user_id,
        "room_id": room_id,
        "known_user": whole.user >= 0,
        "bundle": whole.loaded.name,
        "at": format_instant(whole.at_us),
        "shown": room_id in whole.room_ids,
        "position": None,
        "why": "",
        "room": None,
    }
    if room_id in whole.room_ids:
        i = whole.room_ids.index(room_id)
        found |= {"position": i + 1, "why": "; ".join(whole.answer.reasons[i]), "room": _room(whole, i)}
        return found
    row = whole.loaded.vocabularies.rooms.row(room_id)
    found["why"] = _why_not(whole, row)
    if rival is not None and room_id in rival.room_ids:
        found["room"] = _room(rival, rival.room_ids.index(room_id))
    return found


def _among_rivals(engine: Engine, whole: Served, room_id: int | str) -> Served:
    """The room ranked with all that `whole` ranked: what is said of a room depends on those beside it."""
    answer, rooms = whole.answer, whole.loaded.vocabularies.rooms
    ranked = np.isin(answer.outcomes, [OUTCOMES.index(Outcome.SHOWN), OUTCOMES.index(Outcome.NOT_SELECTED)])
    rivals = rooms.listed(answer.candidates[ranked])
    named = rivals if room_id in rivals else [*rivals, room_id]
    return engine.lookup(Asked(whole.asked.user_id, len(named), rooms=named, heads=True))


def _room(served: Served, i: int) -> dict[str, Any]:
    return {**document(served)["rooms"][i], "breakdown": served.answer.breakdown.take(np.array([i])).told(0)}


def _why_not(served: Served, row: int) -> str:
    intake = served.loaded.intake
    if row < 0:
        return "unknown room: not live when the bundle was built, and no event spoke of it since"
    if row in intake.rooms.ended:
        return f"ended at {format_instant(intake.rooms.ended[row])}"
    if row in intake.rooms.lapsed:
        return "its lease ran out: no sign of life in time"
    if row not in served.loaded.live.world.index:
        return "not live"
    where = np.flatnonzero(served.answer.candidates == row)
    if len(where):
        return str(OUTCOMES[served.answer.outcomes[where[0]]])
    return f"live, but no source brought it among {len(served.answer.candidates)} candidates ({Outcome.NOT_SELECTED})"


def live_rooms(engine: Engine, limit: int, after: int = 0) -> dict[str, Any]:
    """The rooms live now, in the order of their start; a page of at most `limit` from position `after`."""
    with engine.reading() as loaded:
        epoch = loaded.live.world.index.publish()
        rows, hosts = epoch.rooms[after : after + limit].tolist(), epoch.hosts[after : after + limit].tolist()
        table, ids = loaded.live.world.rooms, loaded.vocabularies
        rooms = [
            {
                "room_id": ids.rooms.id(room),
                "host_id": ids.hosts.id(host),
                "started_at": format_instant(int(table.started_at[room])),
                "category": table.category(room),
                "cohost_ids": [ids.hosts.id(guest) for guest in table.cohosts.get(room, ())],
            }
            for room, host in zip(rows, hosts, strict=True)
        ]
        return {"bundle": loaded.name, "epoch": epoch.number, "live": len(epoch), "after": after, "rooms": rooms}
