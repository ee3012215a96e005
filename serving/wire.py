"""What travels over HTTP: bodies as typed structs, decoded and checked in one pass; ids; query parameters."""

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
from serving.problems import Problem

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | str
"""As events may have them: any text, the empty one too; what a body may weigh is bounded as a whole."""
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
    heads: bool = False
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
    asked = [Asked(user, k, body.exclude, body.category, sources, None, body.explain, body.heads) for user in users]
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


def required(given: Any, name: str) -> str:
    """A query parameter, which may be empty: an id can be.

    Raises:
        Problem: 422, it is missing.
    """
    if given.get(name) is None:
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
