"""What travels over HTTP: bodies as typed structs, decoded and checked in one pass; ids; the OpenAPI parts."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from recsys.errors import InputRefused
from recsys.events.vocabularies import Vocabularies
from recsys.id_kinds import id_in
from recsys.ids import Vocabulary
from serving.asked import Asked, refuse_other_kinds
from serving.config import ServingConfig
from serving.engine import Event
from serving.foreign_json import read
from serving.problems import STATUSES, Problem

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(max_length=256)]
_DIGITS: Final = re.compile("[0-9]{1,18}")
Sources = Literal["nearest", "transition", "popular", "newcomer"]


class LookupBody(Struct, forbid_unknown_fields=True):
    """A lookup for one user (`user_id`) or many (`user_ids`); without either, for a viewer nobody knows."""

    user_id: Id | None = None
    user_ids: list[Id] | None = None
    k: Annotated[int, Meta(ge=1)] | None = None
    exclude: Annotated[list[Id], Meta(max_length=10_000)] = []
    category: Annotated[str, Meta(max_length=256)] | None = None
    sources: list[Sources] | None = None
    explain: bool = True
    breakdown: bool = False

    def __post_init__(self) -> None:
        if self.user_id is not None and self.user_ids is not None:
            raise ValueError("user_id and user_ids are two ways to ask: give one of them")


class EventBody(Struct):
    """One event: `row` is a row of the contract's table `table`."""

    event_id: Annotated[str, Meta(min_length=1, max_length=256)]
    table: Annotated[str, Meta(min_length=1, max_length=64)]
    row: Raw


class EventsBody(Struct, forbid_unknown_fields=True):
    """A batch of events, applied in order."""

    events: list[EventBody]


LOOKUP: Final = msgspec.json.Decoder(LookupBody)
EVENTS: Final = msgspec.json.Decoder(EventsBody)


def decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """A body in its type.

    Raises:
        Problem: 400 not JSON or not UTF-8, 422 breaks the schema.
    """
    try:
        return read(decoder, body)
    except msgspec.ValidationError as error:
        raise Problem(422, "invalid", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "not_json", str(error)) from None


def lookup_of(given: dict[str, Any]) -> LookupBody:
    """A lookup given as plain data.

    Raises:
        Problem: 422, it breaks the schema.
    """
    try:
        return msgspec.convert(given, LookupBody)
    except msgspec.ValidationError as error:
        raise Problem(422, "invalid", str(error)) from None


def asked_in(body: LookupBody, config: ServingConfig, ids: Vocabularies) -> list[Asked]:
    """What a lookup asks, user by user.

    Raises:
        Problem: 422, for more rooms or users than one may ask; or an id is a string where ids are integers, or the
            other way round.
    """
    users = body.user_ids if body.user_ids is not None else [body.user_id]
    k = body.k or config.k
    if k > config.most_k or len(users) > config.most_users:
        raise Problem(422, "invalid", f"at most {config.most_k} rooms for {config.most_users} users")
    sources = None if body.sources is None else frozenset(body.sources)
    asked = [Asked(user, k, body.exclude, body.category, sources, None, body.explain) for user in users]
    try:
        for one in asked:
            refuse_other_kinds(one, ids)
    except InputRefused as error:
        raise Problem(422, "invalid", str(error)) from None
    return asked


def events_in(body: bytes, config: ServingConfig) -> list[Event]:
    """The events of a batch, their rows as they came.

    Raises:
        Problem: 400 not JSON or not UTF-8, 413 too many, 422 breaks the schema.
    """
    found: EventsBody = decoded(EVENTS, body)
    if len(found.events) > config.most_events:
        raise Problem(413, "too_large", f"a batch may have {config.most_events} events")
    return [(one.event_id, one.table, bytes(one.row)) for one in found.events]


def explanation_in(given: Any, config: ServingConfig, ids: Vocabularies) -> tuple[int | str, int | str, int]:
    """(user, room, k) of the query parameters of an explanation.

    Raises:
        Problem: 422, one is missing or wrong.
    """
    user_id = typed_id(required(given, "user_id"), ids.users, "user_id")
    room_id = typed_id(required(given, "room_id"), ids.rooms, "room_id")
    return user_id, room_id, whole(given.get("k"), "k", config.k, 1, config.most_k)


def page_in(given: Any) -> tuple[int, int]:
    """(limit, after) of the query parameters of a page of rooms.

    Raises:
        Problem: 422, one is wrong.
    """
    return whole(given.get("limit"), "limit", 1_000, 1, 10_000), whole(given.get("after"), "after", 0, 0, 2**31)


def typed_id(text: str, vocabulary: Vocabulary, name: str) -> int | str:
    """An id of a path or query in the kind the bundle knows.

    Raises:
        Problem: 422, ids are numbers and this is none.
    """
    found = id_in(text, vocabulary.kind)
    if found is None:
        raise Problem(422, "invalid", f"{name} is no 64-bit integer, and ids here are")
    return found


ROOM_EXAMPLE: Final = {
    "position": 1,
    "room_id": 501,
    "host_id": 7,
    "score": 2.31,
    "strength": 0.31,
    "heads": {"returns": 0.42, "stays": 0.37, "buys": 0.06, "rebuys": 0.55},
    "source": "private_domain",
    "slot": "organic",
    "reasons": ["followed 214 days", "bought 5 times, last 6 days ago"],
}
LOOKUP_EXAMPLE: Final = {"user_id": 42, "k": 20, "exclude": [501], "category": "tea"}
ANSWER_EXAMPLE: Final = {
    "request_id": "6f0c",
    "answers": [
        {
            "user_id": 42,
            "known_user": True,
            "bundle": "20260501T000000Z-1",
            "epoch": 12,
            "offset": 345,
            "at": "2026-05-01T20:30:00.000000Z",
            "requested": 20,
            "returned": 1,
            "short_why": "only 1 candidates are eligible",
            "degraded": [],
            "weights": {"private": 0.83, "public": 0.17},
            "rooms": [ROOM_EXAMPLE],
        }
    ],
}
EVENTS_EXAMPLE: Final = {
    "events": [
        {
            "event_id": "room-501-start",
            "table": "rooms",
            "row": {"room_id": 501, "host_id": 7, "started_at": "2026-05-01T20:30:00Z", "category": "tea"},
        }
    ]
}
RESULTS_EXAMPLE: Final = {
    "request_id": "6f0d",
    "offset": 346,
    "results": [{"event_id": "room-501-start", "status": "accepted", "reason": None}],
}

WHY_EXAMPLE: Final = {
    "request_id": "6f0e",
    "user_id": 42,
    "room_id": 501,
    "known_user": True,
    "bundle": "20260501T000000Z-1",
    "at": "2026-05-01T20:30:00.000000Z",
    "shown": False,
    "position": None,
    "why": "viewer blocked the host",
    "room": None,
}
RECEIPT_EXAMPLE: Final = {
    "request_id": "6f0f",
    "user_id": 42,
    "erased_at": "2026-05-01T20:30:00.000000Z",
    "offset": 347,
    "log_rows": 17,
    "bundles": [{"bundle": "b1", "now": "b1-e1", "rows": {"visits": 12, "user": 1}, "files": ["users.ids"]}],
    "lake": None,
    "later_builds": "no lake was named: a build from old exports would bring him back",
    "not_covered": "exports and brokers outside; backups",
}


def request_body(kind: type[Struct], example: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI part of a body."""
    schema = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    components = schema[1]
    inlined = _inline(components[kind.__name__], components)
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": inlined, "example": example}}},
    }


def _inline(part: Any, components: dict[str, Any]) -> Any:
    if isinstance(part, dict):
        if "$ref" in part:
            return _inline(components[part["$ref"].rpartition("/")[2]], components)
        return {name: _inline(value, components) for name, value in part.items()}
    return [_inline(value, components) for value in part] if isinstance(part, list) else part


def responses(example: Any, *problems: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI part of the answers: 200 and the problems one may meet, each with an example and its schema."""
    body = Problem(0, "code", "what is wrong").document("6f0c")
    said: dict[int | str, dict[str, Any]] = {200: {"description": "done", "content": _content(example)}}
    for status in problems:
        said[status] = {"description": STATUSES[status], "content": _content(body)}
    return said


_SOME_KEYS: Final = frozenset({"heads", "rows", "weights"})
"""Members by the names of models, blocks or tables: those that the bundle has."""


def _content(example: Any) -> dict[str, Any]:
    return {"application/json": {"schema": _shape("", example), "example": example}}


def _shape(name: str, example: Any) -> dict[str, Any]:
    """The schema an example stands for: its keys are always there, ids are of either kind, scalars may be null."""
    if name.endswith("_id") and name != "request_id":
        return {"type": ["integer", "string", "null"]}
    match example:
        case dict() if name in _SOME_KEYS:
            return {"type": "object", "additionalProperties": {"type": ["number", "null"]}}
        case dict():
            members = {key: _shape(key, value) for key, value in example.items()}
            return {"type": "object", "properties": members, "required": sorted(members.keys() - _SOME_KEYS)}
        case list():
            of = {"items": _shape(name.removesuffix("s"), example[0])} if example else {}
            return {"type": "array", **of}
        case bool():
            return {"type": "boolean"}
        case int() | float():
            return {"type": ["number", "null"]}
        case str():
            return {"type": ["string", "null"]}
    return {}


def required(given: Any, name: str) -> str:
    """A query parameter.

    Raises:
        Problem: 422, it is missing or empty.
    """
    if not given.get(name):
        raise Problem(422, "invalid", f"{name} is missing")
    return str(given[name])


def whole(text: str | None, name: str, default: int, least: int, most: int) -> int:
    """A whole number given as text, in digits, `least` being none below zero; None: the default.

    Raises:
        Problem: 422, it is none, or not from `least` to `most`.
    """
    digits = default if text is None else int(text) if _DIGITS.fullmatch(text) else None
    if digits is None or not least <= digits <= most:
        raise Problem(422, "invalid", f"{name} is a whole number from {least} to {most}")
    return digits
