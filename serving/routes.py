"""The routes: path, who may, and what OpenAPI says of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from serving import http_app, openapi, wire
from serving.config import Role
from serving.http_app import Handler

_EVERY = (401, 403, 405, 429, 500)


class Route(NamedTuple):
    """One route; `role` None: open to all."""

    method: str
    path: str
    handler: Handler
    role: Role | None
    openapi: dict[str, Any]
    responses: dict[int | str, dict[str, Any]]


def _asked(name: str, where: str, kind: str, example: Any, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "schema": {"type": kind}, "example": example}


_EXPLAIN = {
    "parameters": [
        _asked("user_id", "query", "string", "42", required=True),
        _asked("room_id", "query", "string", "501", required=True),
        {**_asked("k", "query", "integer", 20), "schema": {"type": "integer", "minimum": 1}},
    ]
}
_ROOMS = {
    "parameters": [
        {**_asked("limit", "query", "integer", 100), "schema": {"type": "integer", "minimum": 1, "maximum": 10_000}},
        {**_asked("after", "query", "integer", 0), "schema": {"type": "integer", "minimum": 0}},
    ]
}
_USER = {"parameters": [_asked("user_id", "path", "string", "42", required=True)]}
_ROOM = {"room_id": 501, "host_id": 7, "started_at": "2026-05-01T20:30:00.000000Z", "category": "tea", "cohost_ids": []}
_VITALS = {"ready": True, "bundle": "20260501T000000Z-1", "bundle_age_seconds": 3600.0, "feed_age_seconds": 0.4}

ROUTES = (
    Route("POST", "/v1/lookup", http_app.lookup, "lookup",
          openapi.request_body(wire.LookupBody, openapi.LOOKUP_EXAMPLE),
          openapi.responses(openapi.ANSWER_EXAMPLE, 400, 408, 413, 415, 422, 503, *_EVERY)),
    Route("GET", "/v1/explain", http_app.explain, "lookup", _EXPLAIN,
          openapi.responses(openapi.WHY_EXAMPLE, 422, 503, *_EVERY)),
    Route("POST", "/v1/events", http_app.events, "events",
          openapi.request_body(wire.EventsBody, openapi.EVENTS_EXAMPLE),
          openapi.responses(openapi.RESULTS_EXAMPLE, 400, 408, 413, 415, 422, 503, *_EVERY)),
    Route("GET", "/v1/rooms", http_app.rooms, "lookup", _ROOMS,
          openapi.responses({"live": 1, "rooms": [_ROOM]}, 422, 503, *_EVERY)),
    Route("DELETE", "/v1/users/{user_id:path}", http_app.erase, "admin", _USER,
          openapi.responses(openapi.RECEIPT_EXAMPLE, 404, 409, 422, 503, *_EVERY)),
    Route("POST", "/v1/bundle/reload", http_app.reload, "admin", {},
          openapi.responses({"bundle": "20260501T000000Z-1"}, 409, 503, *_EVERY)),
    Route("GET", "/livez", http_app.livez, None, {}, openapi.responses({"live": True}, 405, 500)),
    Route("GET", "/readyz", http_app.readyz, None, {}, openapi.responses(_VITALS, 405, 500, 503)),
    Route("GET", "/metrics", http_app.metrics, None, {},
          {200: {"description": "Prometheus text", "content": {"text/plain": {}}}}),
)  # fmt: skip
