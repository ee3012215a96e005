"""What `--as-of` may be: commands that have one say what is wrong, where, what was got and expected, what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.bundle import Bundle, resolve
from recsys.events import clean, last_fact_us, open_events
from recsys.instants import format_instant, from_datetime
from tests.conftest import NOW, SET
from tests.e2e.commands import commands_with, done, refused

COMMANDS = {
    "build": ("EVENTS", "--out", "OUT", *SET),
    "evaluate": ("EVENTS", "--out", "OUT", *SET),
    "tune": ("EVENTS", "--study", "STUDY", "--out", "OUT", "--trials", "1"),
    "bench-rebuy": ("ORDERS", "--out", "OUT"),
}


@pytest.fixture
def asked(small: Path, tmp_path: Path) -> Any:
    """The arguments of a command with an as-of; whatever it makes lies in `tmp_path / "made"`."""
    made = tmp_path / "made"
    orders = pl.DataFrame({"order_id": ["1", "2"], "user_id": [1, 2], "product": ["a", "b"]})
    orders.with_columns(at=datetime(2024, 6, 3, tzinfo=UTC)).write_parquet(tmp_path / "orders")
    named = {"EVENTS": small, "ORDERS": tmp_path / "orders", "OUT": made / "out", "STUDY": made / "study"}

    def arguments(command: str, as_of: str) -> tuple[object, ...]:
        return (command, *(named.get(word, word) for word in COMMANDS[command]), "--as-of", as_of)

    return arguments


def told(what: str, got: str, expected: str, hint: str) -> str:
    return f"laotie: {what}; where: --as-of; got: {got}; expected: {expected}; hint: {hint}"


def span(events: Path) -> str:
    cleaned = clean(open_events(events), now=NOW)
    first = cleaned.tables["rooms"].select(pl.col("started_at").min().cast(pl.Int64)).collect().item()
    last = last_fact_us(cleaned)
    assert last is not None
    return f"{format_instant(first)} … {format_instant(last)}"


def test_these_commands_have_one() -> None:
    assert commands_with("--as-of") == COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("text", ["tomorrow", "2024-13-01", "06/08/2024", ""])
def test_what_is_no_time(asked: Any, tmp_path: Path, command: str, text: str) -> None:
    hint = "write 2026-05-01 or 2026-05-01T20:30:00+08:00; without an offset it is UTC"
    line = told("not a time", repr(text), "an ISO 8601 date or instant", hint)
    assert refused(*asked(command, text), code=2) == line
    assert not list(tmp_path.rglob("out/*")) and not (tmp_path / "made" / "study").exists()


@pytest.mark.parametrize("command", ["build", "tune"])
def test_one_before_all_facts(asked: Any, tmp_path: Path, command: str) -> None:
    got, expected = "1999-01-01T00:00:00.000000Z", "an instant after the first facts"
    line = told("no fact lies before the as-of", got, expected, "choose a later --as-of")
    assert refused(*asked(command, "1999-01-01")) == line
    assert not (tmp_path / "made" / "out" / "CURRENT").exists() and not (tmp_path / "made" / "study").exists()


@pytest.mark.parametrize("year", [1999, 2025, 2999])
def test_one_that_leaves_an_evaluation_nothing_on_one_side(small: Path, asked: Any, tmp_path: Path, year: int) -> None:
    got, hint = f"{year}-01-01T00:00:00.000000Z", "choose an --as-of in between, or none: then the last part is judged"
    line = told("the cut lies outside the data", got, span(small), hint)
    assert refused(*asked("evaluate", f"{year}-01-01"), code=2) == line
    assert not (tmp_path / "made").exists()


def test_a_build_as_of_the_future_is_one_as_of_now(asked: Any, tmp_path: Path) -> None:
    """As of a later instant it would tell the service that all facts until then are in it."""
    begun = datetime.now(UTC)
    done(*asked("build", "2999-01-01"))
    as_of = Bundle.open(resolve(tmp_path / "made" / "out")).manifest.window.as_of_us
    assert from_datetime(begun) <= as_of <= from_datetime(datetime.now(UTC))


@pytest.mark.parametrize("as_of", ["2025-06-01", "2999-01-01"])
def test_one_long_after_the_data_leaves_nothing_to_tune_on(asked: Any, tmp_path: Path, as_of: str) -> None:
    expected = "some in the earlier part and some in the later"
    hint = "give an --as-of within the data or soon after its end, or more events"
    got = "0 of 0 lie in the earlier part of the stretch"
    assert refused(*asked("tune", as_of)) == told("no requests to train or to judge on", got, expected, hint)
    assert not (tmp_path / "made" / "study").exists()


def test_a_prediction_before_and_after_the_orders(asked: Any, tmp_path: Path) -> None:
    line = refused(*asked("bench-rebuy", "1999-01-01"))
    assert line == (
        f"laotie: no purchase before the instant of prediction; where: {tmp_path / 'orders'}; "
        "got: 2 rows, as-of 1999-01-01 00:00:00+00:00; expected: at least one order that was not cancelled; "
        "hint: check the year and the time zone of --as-of"
    )
    assert not (tmp_path / "made" / "out").exists()
    report = done(*asked("bench-rebuy", "2999-01-01"))
    assert (report["method"], report["reason"]) == ("nothing to score", "no customer bought within 90 days")
    assert pl.read_parquet(tmp_path / "made" / "out").is_empty()
