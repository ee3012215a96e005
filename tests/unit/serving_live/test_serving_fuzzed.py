"""Whatever is sent, the answer is one that OpenAPI names: no 5xx, no undocumented status, type or shape.

More of it before a release: LAOTIE_FUZZ=500 pytest tests/unit/serving_live/test_serving_fuzzed.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from recsys.events.schemas import TABLES, role
from serving.config import ServingConfig
from serving.engine import Engine

from .running_service import serving
from .served_world import AS_OF, Clock
from .test_serving_http import room

CONFIG = ServingConfig(most_body_bytes=20_000, most_events=50, most_k=50, deadline_ms=10_000)
BOUNDED = settings(
    max_examples=int(os.environ.get("LAOTIE_FUZZ", "20")),
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
)
JSONS = st.recursive(
    SCALARS, lambda of: st.lists(of, max_size=4) | st.dictionaries(st.text(max_size=6), of, max_size=4)
)
INSTANTS = st.integers(AS_OF - 10**12, AS_OF + 10**12) | st.sampled_from(
    ["2024-06-04T12:00:01Z", "2024-06-04T12:00:01", "2024-13-40T00:00:00Z", "0001-01-01T00:00:00Z", ""]
)
BY_ROLE = {"time": INSTANTS, "plan": INSTANTS, "number": st.integers(-3, 2**65), "real": st.floats(0, 2)}
WORDS = st.sampled_from(["follow", "unfollow", "like", "comment", "block", "leave", "return", "tea", ""])


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """An event of some table whose columns mostly hold what they might hold."""
    table = draw(st.sampled_from(sorted(TABLES)))
    row = {}
    for name, column in TABLES[table].columns().items():
        of = role(column)
        likely = BY_ROLE.get(of, WORDS if of == "text" else st.integers(-2, 40) | st.just(2_000_000_001))
        if name == "cohost_ids":
            likely = st.lists(st.integers(0, 40), max_size=3)
        value = draw(st.one_of(likely, likely, likely, SCALARS) if draw(st.integers(0, 4)) else JSONS)
        if value is not None or draw(st.booleans()):
            row[name] = value
    return {"event_id": draw(st.text(min_size=1, max_size=8)), "table": table, "row": row}


@pytest.fixture(scope="module")
def service(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Engine]]:
    log = tmp_path_factory.mktemp("fuzzed") / "log.db"
    # the bundle by its own path: erasing somebody does not rewrite the market of the other tests
    engine = Engine.open(market / "bundles" / "b1", log, CONFIG, Clock(AS_OF + 100_000_000))
    engine.apply([(f"r{i}", "rooms", room(i + 1)) for i in range(5)])
    with serving(engine, CONFIG) as made:
        yield made, engine


def test_every_answer_is_as_openapi_says(service: tuple[str, Engine]) -> None:
    schema = schemathesis.openapi.from_url(service[0] + "/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 9
    for operation in operations:

        @BOUNDED
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            # 1.0 is an integer to JSON Schema, but no id of ours; limits are the config's: valid data may be refused
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        ask()


def test_the_examples_of_openapi_are_answers_as_given(service: tuple[str, Engine]) -> None:
    """Shape by shape: what the document shows is what comes back."""
    url, _ = service
    paths = httpx.get(url + "/openapi.json", trust_env=False).json()["paths"]
    for path, method, query in (
        ("/v1/lookup", "post", ""),
        ("/v1/events", "post", ""),
        ("/v1/rooms", "get", ""),
        ("/v1/explain", "get", "?user_id=4&room_id=1"),
        ("/readyz", "get", ""),
        ("/livez", "get", ""),
    ):
        said = paths[path][method]
        body = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        answer = httpx.request(method, url + path + query, json=body, trust_env=False)
        shown = said["responses"]["200"]["content"]["application/json"]["example"]
        assert answer.status_code == 200, answer.text
        assert _keys(shown) <= _keys(answer.json()), path


def _keys(document: Any, at: str = "") -> set[str]:
    """Paths of all keys; of a list those of its first element, and none if it is empty on either side."""
    if at.endswith(("weights", "heads")):
        return set()
    if isinstance(document, dict):
        return {f"{at}/{name}" for name in document if name != "heads"}.union(
            *(_keys(v, f"{at}/{k}") for k, v in document.items())
        )
    if isinstance(document, list) and document:
        return _keys(document[0], at)
    return set()


def _documented(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in (200, *statuses), answer.text
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"code", "message", "request_id"}
        assert "Traceback" not in answer.text and 'File "' not in answer.text


def test_bodies_of_any_bytes_and_headers_of_any_text(service: tuple[str, Engine]) -> None:
    with httpx.Client(base_url=service[0], trust_env=False) as client:

        @BOUNDED
        @given(
            path=st.sampled_from(["/v1/lookup", "/v1/events"]),
            body=st.binary(max_size=300) | JSONS.map(orjson_or_text),
            ident=st.text(
                st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=80
            ).map(str.strip),
        )
        def send(path: str, body: bytes, ident: str) -> None:
            headers = {"x-request-id": ident.encode("latin-1"), "x-api-key": ident.encode("latin-1")}
            _documented(client.post(path, content=body, headers=headers), 400, 413, 422)

        send()


def orjson_or_text(document: Any) -> bytes:
    try:
        return orjson.dumps(document)
    except (TypeError, orjson.JSONEncodeError):
        return str(document).encode("utf-8", "surrogatepass")


def test_any_event_gets_its_own_result_and_the_state_stays_sound(service: tuple[str, Engine]) -> None:
    url, engine = service
    with httpx.Client(base_url=url, trust_env=False, timeout=30.0) as client:

        @BOUNDED
        @given(batch=st.lists(events(), min_size=1, max_size=12))
        def send(batch: list[dict[str, Any]]) -> None:
            answer = client.post("/v1/events", content=orjson_or_text({"events": batch}))
            _documented(answer, 400, 413, 422)
            if answer.status_code == 200:
                results = answer.json()["results"]
                assert [one["event_id"] for one in results] == [one["event_id"] for one in batch]
                assert {one["status"] for one in results} <= {"accepted", "duplicate", "quarantined"}
            found = client.post("/v1/lookup", json={"user_ids": [4, 39], "k": 30})
            assert found.status_code == 200
            live = set(engine.loaded.live.world.index.publish().rooms.tolist())
            ids = engine.loaded.vocabularies.rooms
            for one in found.json()["answers"]:
                rooms = [room["room_id"] for room in one["rooms"]]
                assert len(set(rooms)) == len(rooms) and {ids.row(shown) for shown in rooms} <= live

        send()


def test_any_path_and_query_is_answered_in_words(service: tuple[str, Engine]) -> None:
    with httpx.Client(base_url=service[0], trust_env=False) as client:

        @BOUNDED
        @given(text=st.text(max_size=20), method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "PATCH"]))
        def call(text: str, method: str) -> None:
            part = quote(text.encode("utf-8", "surrogatepass"), safe="")
            for path in (f"/v1/users/{part}", f"/v1/explain?user_id={part}&room_id={part}&k={part}", f"/{part}",
                         f"/v1/rooms?limit={part}&after={part}"):  # fmt: skip
                answer = client.request(method, path)
                if method == "HEAD":
                    assert answer.status_code in (200, 404, 405, 422)
                else:
                    _documented(answer, 400, 404, 405, 409, 422)
                assert answer.status_code != 405 or "allow" in answer.headers

        call()
