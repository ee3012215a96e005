"""What commands do with an `--out` that is there already, as their help says; nothing of others' is ever lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from serving.event_log import EventLog
from tests.conftest import SET, Built
from tests.e2e.commands import commands_with, done, laotie, refused

NEW = {"simulate", "import"}
"""Write a new folder: one with anything in it is refused."""
SHELVES = {"build", "demo", "evaluate", "export-log"}
"""Put something beside what is in the folder."""
FILES = {"replay", "bench-pairs", "bench-rebuy", "tune", "results"}
"""Write a file: a folder is refused, a file replaced once there is a whole new one."""
PRECIOUS = b"mine"


@pytest.fixture
def given(small: Path, tmp_path: Path) -> dict[str, tuple[object, ...]]:
    """Arguments by command, but for `--out`, with which it works or would."""
    twitch = tmp_path / "twitch"
    twitch.mkdir()
    (twitch / "100k_a.csv").write_text("1,100,ann,10,12\n2,101,bob,20,21\n")
    n = 60
    pl.DataFrame({"user_id": [i % 12 for i in range(n)], "item_id": [(i * 7) % 11 for i in range(n)]}).write_parquet(
        tmp_path / "pairs"
    )
    orders = pl.DataFrame({"order_id": ["1", "2"], "user_id": [1, 2], "product": ["a", "b"]})
    orders.with_columns(at=datetime(2024, 6, 3, tzinfo=UTC)).write_parquet(tmp_path / "orders")
    log = EventLog(tmp_path / "log.db")
    follow = {"user_id": 1, "host_id": 2, "at": 1_717_300_000_000_000, "action": "follow"}
    log.append([("one", "follows", orjson.dumps(follow).decode())], follow["at"], lambda: 0, lambda _: lambda _: False)
    log.close()
    return {
        "simulate": ("--users", 5, "--hosts", 5, "--days", 1),
        "import": ("twitch-100k", twitch),
        "build": (small, *SET),
        "evaluate": (small, *SET),
        "export-log": ("--log", tmp_path / "log.db"),
        "bench-pairs": (tmp_path / "pairs",),
        "bench-rebuy": (tmp_path / "orders", "--as-of", "2024-06-10"),
        "tune": (small, "--study", tmp_path / "study", "--as-of", "2024-06-10", "--trials", 1),
        "results": (tmp_path,),
    }


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A folder with something in it."""
    out = tmp_path / "full"
    (out / "within").mkdir(parents=True)
    (out / "precious").write_bytes(PRECIOUS)
    (out / "within" / "precious").write_bytes(PRECIOUS)
    return out


def left(out: Path) -> list[str]:
    """What is in a folder, what was there before as it was."""
    assert (out / "precious").read_bytes() == (out / "within" / "precious").read_bytes() == PRECIOUS
    return sorted(path.name for path in out.iterdir() if path.name not in ("precious", "within"))


def test_every_command_with_an_out_is_one_of_these() -> None:
    assert sorted(commands_with("--out")) == sorted([*NEW, *SHELVES, *FILES])


@pytest.mark.parametrize("command", sorted(NEW))
def test_a_folder_that_is_not_empty_is_refused(given: Any, full: Path, tmp_path: Path, command: str) -> None:
    line = refused(command, *given[command], "--out", full)
    assert " is not empty; where: " in line and str(full) in line
    assert left(full) == []
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "new"):
        assert laotie(command, *given[command], "--out", out).exit_code == 0
        assert (out / "watches").is_dir()


def test_a_bundle_comes_beside_what_is_in_the_folder(given: Any, full: Path) -> None:
    """Beside another bundle, too: `test_builds_end_to_end`; `demo`: `test_demo`."""
    made = done("build", *given["build"], "--out", full)["bundle"]
    assert [name for name in left(full) if not name.startswith(".")] == sorted([made, "CURRENT", "HISTORY"])


def test_a_report_is_renewed_and_nothing_else(given: Any, full: Path) -> None:
    (full / "evaluation.md").write_text("of yesterday")
    done("evaluate", *given["evaluate"], "--out", full)
    assert left(full) == ["evaluation.html", "evaluation.json", "evaluation.md"]
    assert "of yesterday" not in (full / "evaluation.md").read_text()


def test_what_was_exported_is_not_written_over(given: Any, full: Path, tmp_path: Path) -> None:
    done("export-log", *given["export-log"], "--out", full)
    (written,) = (full / "follows").iterdir()
    assert left(full) == ["follows"] and written.name == "log-1-1.parquet"
    before = written.read_bytes()
    assert str(written) in refused("export-log", *given["export-log"], "--out", full)
    assert written.read_bytes() == before
    with closing(sqlite3.connect(tmp_path / "log.db")) as log:
        log.execute("INSERT INTO events SELECT 2, 'two', tab, row, received_us FROM events")
        log.commit()
    done("export-log", *given["export-log"], "--out", full, "--after", 1)
    assert sorted(path.name for path in (full / "follows").iterdir()) == ["log-1-1.parquet", "log-2-2.parquet"]
    assert written.read_bytes() == before


@pytest.mark.parametrize("command", sorted(FILES - {"replay"}))
def test_a_folder_is_no_file_to_write(given: Any, full: Path, command: str) -> None:
    result = laotie(command, *given[command], "--out", full)
    assert result.exit_code == 2 and "'--out'" in result.stderr and "is a directory" in result.stderr
    assert left(full) == []


@pytest.mark.parametrize("command", ["bench-pairs", "bench-rebuy", "tune"])
def test_a_file_is_replaced_by_a_whole_one_or_stays(given: Any, full: Path, tmp_path: Path, command: str) -> None:
    out, arguments = full / "precious", given[command]
    bad = {"bench-pairs": (tmp_path / "orders",)}.get(command, (*arguments, "--as-of", "1999-01-01"))
    refused(command, *bad, "--out", out)
    assert left(full) == []
    folder = tmp_path / "made" / "for it"
    for file in (folder / "file",) if command == "tune" else (out, folder / "file"):  # it learns anew each time
        done(command, *arguments, "--out", file)
        assert file.read_bytes() != PRECIOUS and list(folder.glob("*.tmp")) == list(full.glob("*.tmp")) == []


def test_answers_go_to_a_file(built: Built, requests: pl.DataFrame, full: Path, tmp_path: Path) -> None:
    requests.head(3).write_parquet(tmp_path / "asked")
    arguments = ("replay", "--bundle", built.bundles, "--events", built.events, "--requests", tmp_path / "asked")
    assert "is a directory" in laotie(*arguments, "--out", full).stderr
    requests.head(3).drop("user_id").write_parquet(tmp_path / "bad")
    refused(*arguments[:-1], tmp_path / "bad", "--out", full / "precious")
    assert left(full) == []
    done(*arguments, "--out", full / "precious")
    assert pl.read_parquet(full / "precious")["request_id"].n_unique() == 3


def test_where_nothing_can_be_written_no_work_is_done(given: Any, full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("it has begun")

    monkeypatch.setattr("training.build.Stages", work)
    monkeypatch.setattr("training.evaluate.train", work)
    below = full / "precious" / "x"
    assert "Not a directory" in refused("evaluate", *given["evaluate"], "--out", below, code=1)
    assert "Not a directory" in refused("build", *given["build"], "--out", below)
    (full / "CURRENT").touch()
    line = refused("build", *given["build"], "--out", full)
    assert "CURRENT holds no bundle name" in line and "got: ''" in line and "hint: " in line
    assert left(full) == ["CURRENT"]
