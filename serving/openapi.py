"""The OpenAPI document's parts: examples, and the schemas they stand for."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from serving.problems import STATUSES, Problem

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
LOOKUP_EXAMPLE: Final = {"user_id": 42, "k": 20, "exclude": [501], "category": "tea", "heads": True}
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
