"""One lookup against a bundle as it was published: `laotie lookup`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recsys.bundle import Bundle
from recsys.errors import ConfigError
from recsys.id_kinds import id_in
from recsys.ids import Vocabulary
from recsys.instants import format_instant
from recsys.live.artefact import load
from recsys.pipeline.lookup import lookup as answer_request
from recsys.pipeline.request import SOURCES, Answer, Request, seed_of


@dataclass(frozen=True)
class LookupResult:
    """An answer in external ids, as a JSON document or as text for a person."""

    body: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        return self.body

    def text(self) -> str:
        """A table for a terminal."""
        lines = [
            f"user {self.body['user_id']}{'' if self.body['known_user'] else ' (unknown: nobody we have ties of)'}"
        ]
        for room in self.body["rooms"]:
            strength = "–" if room["strength"] is None else f"{room['strength']:.2f}"
            lines.append(
                f"{room['rank']:>3}. room {room['room_id']}  host {room['host_id']}  strength {strength}  "
                f"score {room['score']:+.2f}  [{room['source']}]  {'; '.join(room['reasons'])}"
            )
        if weights := self.body["weights"]:
            lines.append(f"(chances: {weights['private']:.0%} hosts with a tie, {weights['public']:.0%} others)")
        if self.body["short_why"]:
            lines.append(f"({self.body['returned']} of {self.body['requested']}: {self.body['short_why']})")
        return "\n".join(lines)


def lookup(bundle: Bundle, user: str, *, at_us: int | None, k: int) -> LookupResult:
    """Ranked live rooms of one viewer.

    Args:
        bundle: an open bundle.
        user: external id as text; read as a number where the bundle's user ids are numbers.
        at_us: instant, µs; None: the bundle's as-of. Rooms are those live at the as-of: later facts are not known here.
        k: rooms wanted.

    Raises:
        ConfigError: the instant lies before the bundle's as-of, or the id is no number where ids are numbers.
    """
    live, vocabularies = load(bundle)
    as_of = bundle.manifest.window.as_of_us
    at = as_of if at_us is None else at_us
    if at < as_of:
        raise ConfigError(
            "the bundle knows facts that lie after the instant asked for",
            where="--at",
            got=format_instant(at),
            expected=f"{format_instant(as_of)} (the bundle's as-of) or later",
            hint="build a bundle with an earlier --as-of",
        )
    user_id = typed_id(user, vocabularies.users)
    row = vocabularies.users.row(user_id)
    answer = answer_request(live.world, Request(row, at, k, heads=True, seed=seed_of(user_id)))
    body = {
        "user_id": user,
        "known_user": row >= 0,
        "at_us": at,
        "bundle": bundle.manifest.name,
        "requested": k,
        "returned": len(answer),
        "short_why": answer.short_why,
        "degraded": list(answer.degraded),
        "weights": answer.weights,
        "stages": answer.stage_counts,
        "rooms": rooms_of(answer, vocabularies.rooms, vocabularies.hosts),
    }
    return LookupResult(body)


def typed_id(text: str, vocabulary: Vocabulary) -> int | str:
    """An id given as text in the kind of the vocabulary.

    Raises:
        ConfigError: the vocabulary's ids are numbers and this is none.
    """
    found = id_in(text, vocabulary.kind)
    if found is None:
        raise ConfigError("not a user id", where="--user", got=repr(text), expected="a 64-bit number: ids here are")
    return found


def rooms_of(answer: Answer, rooms: Vocabulary, hosts: Vocabulary) -> list[dict[str, Any]]:
    """The answers as documents; `breakdown` lists every term that adds to the score, largest first, and sums to it."""
    room_ids, host_ids = rooms.ids(answer.rooms).to_list(), hosts.ids(answer.hosts).to_list()
    found, heads, strengths = [], answer.heads_by_room(), answer.strengths()
    for i in range(len(answer)):
        found.append(
            {
                "rank": i + 1,
                "room_id": room_ids[i],
                "host_id": host_ids[i],
                "score": float(answer.score[i]),
                "strength": strengths[i],
                "heads": heads[i],
                "source": str(SOURCES[answer.sources[i]]),
                "reserved": bool(answer.reserved[i]),
                "reasons": answer.reasons[i],
                "breakdown": answer.breakdown.told(i),
            }
        )
    return found
