"""A bundle brought up to date with the log: what an engine serves, and how it comes to be.

The manifest says which records of the log the bundle contains (`offsets["log"]`). Those are only remembered, so that
repeats and completions are recognised; what lies above is applied, whatever its event time. A bundle that records no
offset was built from other sources: what the log received before the bundle was begun *and* happened before its as-of
is then taken to be in it, everything else is applied.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Final

import msgspec
import orjson

from recsys.bundle import Bundle
from recsys.erasure import pseudonym
from recsys.events.facts import NEVER
from recsys.events.log_tables import ANSWER, ERASE
from recsys.events.single_rows import Refused, instant_us
from recsys.events.vocabularies import Vocabularies
from recsys.id_kinds import is_of_kind
from recsys.live.erasing import erasures_of
from recsys.live.state import LiveState
from serving.event_log import Record
from serving.intake import QUARANTINED, TAKEN, Intake, Verdict

LOG_SOURCE: Final = "log"
"""Name of the service's own log among the sources of a manifest's offsets, where the builder knew no identity."""
ERASED: Final = "_erased"
"""Pseudo table of rows that were overwritten."""
_OWN_TABLES: Final = (ERASE, ERASED, ANSWER)


class _Entry(msgspec.Struct):
    user_id: int | str


_ENTRY: Final = msgspec.json.Decoder(_Entry)


@dataclass
class Loaded:
    """One bundle and all the log said since. Guarded by the engine's lock; `applied` is the last offset it knows."""

    bundle: Bundle
    live: LiveState
    vocabularies: Vocabularies
    intake: Intake
    offset: int | None
    erased: dict[str, int] = field(default_factory=dict)
    """Erased users: pseudonym → facts up to this instant, µs, are refused."""
    applied: int = 0
    scattered: bool = False
    """Whether viewers' states may have to be fetched from disk when they are read (`ServingConfig.read_ahead_mb`)."""
    last_received_us: int = NEVER

    def __post_init__(self) -> None:
        manifest = self.bundle.manifest
        self._as_of_us, self._created_at_us = manifest.window.as_of_us, manifest.created_at_us

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.bundle.manifest.name

    def vitals(self, now: int) -> dict[str, Any]:
        """How the state is at `now`, µs: ages in seconds, sizes, offsets."""
        ties, received = self.live.world.ties, self.last_received_us
        return {
            "bundle": self.name,
            "log_offset": self.applied,
            "live_rooms": len(self.live.world.index),
            "bundle_age_seconds": (now - self._as_of_us) / 1e6,
            "feed_age_seconds": (now - received) / 1e6 if received > NEVER else None,
            "fresh_users": ties.fresh_users,
            "fresh_ties_bytes": ties.space.in_memory,
            "fresh_ties_file_bytes": ties.space.in_file,
            "dedup_ids": len(self.intake.ids),
        }

    def fetch(self, user_ids: Iterable[int | str], *blocks: str) -> None:
        """The states of these users, of ties in these blocks (none named: all), will be read soon; nobody waits."""
        world, row = self.live.world, self.vocabularies.users.row
        for user in {row(one) for one in user_ids}:
            world.ties.fetch(user, *blocks)
            world.users.fetch(user)

    def fetch_entrants(self, records: Iterable[Record]) -> None:
        """What taking these records will read of the viewers who enter rooms, where it may have to come from disk."""
        if not self.scattered:
            return
        entrants = []
        for record in records:
            if record.table == "watches":
                with suppress(msgspec.DecodeError):  # what is wrong with a row is said when it is taken
                    entrants.append(_ENTRY.decode(record.row).user_id)
        self.fetch(entrants, "visits")

    def take(self, record: Record) -> Verdict:
        """Let the state know one record of the log; the same on arrival, on recovery and when bundles change."""
        self.applied, event_id, table, row, received_us = record
        if self.offset is None:
            facts_from = self._as_of_us if received_us < self._created_at_us else NEVER
        else:
            facts_from = self._as_of_us if self.applied <= self.offset else NEVER
        if table in _OWN_TABLES:
            if table == ERASE:
                self.obey(orjson.loads(row))
            elif table == ANSWER:
                self._impressions(orjson.loads(row), facts_from)
            return TAKEN
        if self.erased and self._is_of_erased(table, row):
            return QUARANTINED, "erased_user"
        if received_us > self.last_received_us:
            self.last_received_us = received_us
        return self.intake.feed(event_id, table, row, received_us, facts_from)

    def _impressions(self, answer: Any, facts_from: int) -> None:
        """A served answer: one impression per room, as the nightly batch will count them from the log; they may be the
        first that is known of a viewer."""
        at, ids, viewer = answer["at"], self.vocabularies, answer["user_id"]
        if viewer is None or (self.erased and at <= self.erased.get(pseudonym(viewer), NEVER)):
            return
        host_ids, room_ids = answer["host_ids"], answer["room_ids"]
        already = self.intake.shown_already(viewer, at, room_ids)
        if at < facts_from:
            return
        user = ids.users.add(viewer) if ids.users.kind and is_of_kind(viewer, ids.users.kind) else -1
        if already:
            new = [room not in already for room in room_ids]
            host_ids, room_ids = list(compress(host_ids, new)), list(compress(room_ids, new))
        hosts, rooms = ids.hosts.rows_listed(host_ids), ids.rooms.rows_listed(room_ids)
        self.live.apply_impressions(at, user, hosts, rooms)

    def obey(self, erasure: Any) -> None:
        """Nothing that is known of an erased user is read any more, and what is told of his past is refused."""
        user, at = erasure["user"], erasure["at"]
        if self.erased.get(user, NEVER) >= at:
            return
        self.erased[user] = at
        if erasures_of(self.bundle).get(user, NEVER) >= at:
            return  # built, or written again, without him: what it knows of this id is a newcomer's
        row = erasure["row"]
        if erasure["bundle"] != self.name or (row >= 0 and not self._is_at(row, user)):
            row = next((row for row in range(len(self.vocabularies.users)) if self._is_at(row, user)), -1)
        if row >= 0:
            self.live.forget_user(row)
            self.intake.orders.forgotten[row] = at
            self.vocabularies.users.forget(row)

    def _is_at(self, row: int, user: str) -> bool:
        users = self.vocabularies.users
        if row >= len(users):
            return False
        external = users.id(row)
        return pseudonym(external) == user and users.row(external) == row  # not a row he had before he was erased

    def _is_of_erased(self, table: str, text: str) -> bool:
        """Whether a row tells of an erased user's past."""
        try:
            row = orjson.loads(text)
        except orjson.JSONDecodeError:
            return False  # it is set aside for that
        if not isinstance(row, dict) or not isinstance(row.get("user_id"), int | str):
            return False
        until = self.erased.get(pseudonym(row["user_id"]))
        told = row.get("entered_at" if table == "watches" else "at")
        if until is None or told is None:
            return False
        try:
            return instant_us(told) <= until
        except Refused:
            return False  # the rules of the table say why
