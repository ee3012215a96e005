"""A Python client: the same calls in process and over HTTP, answers as plain documents, and the same refusals.

with HttpClient("http://127.0.0.1:8080", api_key="…") as laotie:
    laotie.send([("e1", "rooms", {...})])
    laotie.lookup(42, k=20)["rooms"]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import quote

import httpx
import orjson

from recsys.errors import LaotieError
from serving import wire
from serving.answers import document, explanation, live_rooms
from serving.config import ServingConfig
from serving.engine import Engine, Event
from serving.erasing import erase_everywhere
from serving.problems import Problem

Document = dict[str, Any]


class CallFailed(LaotieError):
    """The call was refused, or the service not reached; `status` is that over HTTP, 0 without an answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message or code, got=f"{status} {code}")
        self.status, self.code = status, code


class Client(Protocol):
    """What both clients offer."""

    def lookup(self, user_id: int | str | None, k: int = 20, **more: Any) -> Document:
        """One answer; `more`: exclude, category, sources, explain, heads, breakdown."""

    def send(self, events: Sequence[Event]) -> list[Document]:
        """Apply events, rows as mappings or JSON text; one result per event: event_id, status, reason."""

    def explain(self, user_id: int | str, room_id: int | str, k: int = 20) -> Document:
        """Why a room is shown, or why not."""

    def rooms(self, limit: int = 1_000, after: int = 0) -> Document:
        """The rooms live now."""

    def erase(self, user_id: int | str) -> Document:
        """Forget a user; a receipt."""


class LocalClient:
    """The service in this process. Threading: as `Engine`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, bundle: Path, log: Path | None = None, config: ServingConfig | None = None) -> Self:
        """Load a bundle (or the `CURRENT` of a folder)."""
        return cls(Engine.open(bundle, log, config))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def lookup(self, user_id: int | str | None, k: int = 20, **more: Any) -> Document:
        """See `Client`."""
        engine = self.engine
        with _refusals():
            body = wire.lookup_of({"user_id": user_id, "k": k, **more})
            asked = wire.asked_in(body, engine.config, engine.loaded.vocabularies)
        return document(engine.lookup(asked[0]), breakdown=body.breakdown)

    def send(self, events: Sequence[Event]) -> list[Document]:
        """See `Client`."""
        with _refusals():
            rows = wire.events_in(_told(events), self.engine.config)
        verdicts = self.engine.apply(rows)
        return [
            {"event_id": name, "status": status, "reason": reason}
            for (name, _, _), (status, reason) in zip(rows, verdicts, strict=True)
        ]

    def explain(self, user_id: int | str, room_id: int | str, k: int = 20) -> Document:
        """See `Client`."""
        engine, given = self.engine, _texts(user_id=user_id, room_id=room_id, k=k)
        with _refusals():
            asked = wire.explanation_in(given, engine.config, engine.loaded.vocabularies)
        return explanation(engine, *asked)

    def rooms(self, limit: int = 1_000, after: int = 0) -> Document:
        """See `Client`."""
        with _refusals():
            page = wire.page_in(_texts(limit=limit, after=after))
        return live_rooms(self.engine, *page)

    def erase(self, user_id: int | str) -> Document:
        """See `Client`."""
        with _refusals():
            user_id = wire.typed_id(str(user_id), self.engine.loaded.vocabularies.users, "user_id")
        return erase_everywhere(self.engine, user_id, self.engine.config.lake)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the service would refuse is refused here in the same words."""
    try:
        yield
    except Problem as problem:
        raise CallFailed(problem.status, problem.code, problem.message) from None


def _texts(**given: Any) -> dict[str, str]:
    """Query parameters as they travel."""
    return {name: "" if value is None else str(value) for name, value in given.items()}


def _told(events: Sequence[Event]) -> bytes:
    """The body of a batch of events."""
    rows = [
        {"event_id": name, "table": table, "row": orjson.Fragment(row) if isinstance(row, str | bytes) else row}
        for name, table, row in events
    ]
    return orjson.dumps({"events": rows})


class HttpClient:
    """The service over HTTP. Threading: any thread.

    Args:
        url: without a path.
        api_key: sent as X-API-Key.
        timeout_s: per call.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout_s: float = 10.0) -> None:
        headers = {} if api_key is None else {"x-api-key": api_key}
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout_s, trust_env=False, verify=url.startswith("https")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def lookup(self, user_id: int | str | None, k: int = 20, **more: Any) -> Document:
        """See `Client`."""
        found: Document = self._call("POST", "/v1/lookup", json={"user_id": user_id, "k": k, **more})["answers"][0]
        return found

    def send(self, events: Sequence[Event]) -> list[Document]:
        """See `Client`."""
        results: list[Document] = self._call("POST", "/v1/events", content=_told(events))["results"]
        return results

    def explain(self, user_id: int | str, room_id: int | str, k: int = 20) -> Document:
        """See `Client`."""
        return self._call("GET", "/v1/explain", params=_texts(user_id=user_id, room_id=room_id, k=k))

    def rooms(self, limit: int = 1_000, after: int = 0) -> Document:
        """See `Client`."""
        return self._call("GET", "/v1/rooms", params=_texts(limit=limit, after=after))

    def erase(self, user_id: int | str) -> Document:
        """See `Client`."""
        name = quote(str(user_id), safe="").replace(".", "%2E")  # "." alone would be a step in the path
        return self._call("DELETE", f"/v1/users/{name}")

    def ready(self) -> Document:
        """The service's /readyz."""
        return self._call("GET", "/readyz")

    def _call(self, method: str, path: str, **more: Any) -> Document:
        try:
            answer = self._http.request(method, path, **more)
        except httpx.InvalidURL as error:  # an id of some 64 KB
            raise CallFailed(0, "too_large", f"no address holds this: {error}") from error
        except httpx.HTTPError as error:
            raise CallFailed(0, "unreachable", str(error)) from error
        try:
            body: Document = answer.json() if answer.content else {}
        except ValueError as error:  # somebody between us and the service spoke
            raise CallFailed(
                answer.status_code, "not_json", f"no answer of the service: {answer.text[:200]}"
            ) from error
        if answer.status_code != 200:
            said = body.get("error", {})
            raise CallFailed(answer.status_code, said.get("code", ""), said.get("message", ""))
        return body
