"""The shelf of bundles: publishing, going back, gates, names and retention."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.bundle import (
    Bundle,
    StageResult,
    current_name,
    evaluate_gates,
    next_name,
    publish,
    resolve,
    retain,
    rollback,
)
from recsys.bundle import durable as durable_module
from recsys.config import GateRule
from recsys.errors import BundleRefused, ConfigError, GateFailed
from tests.unit.written_bundle import visible, write


def test_publish_resolve_rollback(tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match="neither a bundle nor"):
        resolve(tmp_path)
    with pytest.raises(BundleRefused, match="no such bundle"):
        resolve(tmp_path / "absent")
    for name in ("a", "b", "c"):
        publish(tmp_path, write(tmp_path, name).name)
        assert resolve(tmp_path) == tmp_path / name
    assert resolve(tmp_path / "a") == tmp_path / "a"
    assert rollback(tmp_path) == "b"
    assert rollback(tmp_path) == "a"
    with pytest.raises(BundleRefused, match="no bundle to go back to"):
        rollback(tmp_path)
    assert current_name(tmp_path) == "a"
    publish(tmp_path, "c")
    assert rollback(tmp_path) == "a"


def test_rollback_skips_what_is_broken_or_the_same(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        publish(tmp_path, write(tmp_path, name).name)
    publish(tmp_path, "c")
    (tmp_path / "b" / "a.npy").unlink()
    assert rollback(tmp_path) == "a"


@pytest.mark.parametrize("crash_after", [0, 1])
def test_a_crash_inside_publish_or_rollback_keeps_history_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_after: int
) -> None:
    from recsys.bundle import shelf

    for name in ("a", "b"):
        publish(tmp_path, write(tmp_path, name).name)
    write(tmp_path, "c")
    done = 0

    def crash(path: Path, text: str) -> None:
        nonlocal done
        if done == crash_after:
            raise OSError("power cut")
        done += 1
        durable_module.replace_text(path, text)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
        patch.setattr(shelf, "replace_text", crash)
        publish(tmp_path, "c")
    assert current_name(tmp_path) == "b"
    done = 0
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
        patch.setattr(shelf, "replace_text", crash)
        rollback(tmp_path)
    assert current_name(tmp_path) == ("b", "a")[crash_after]
    publish(tmp_path, "c")
    assert rollback(tmp_path) == ("b", "a")[crash_after]


@pytest.mark.parametrize("text", ["", "../a", "a/b", "x.tmp-1", "HISTORY", "\n\n"])
def test_a_broken_current_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "CURRENT").write_text(text)
    with pytest.raises(BundleRefused, match="CURRENT"):
        resolve(tmp_path)


def test_gates() -> None:
    rules = [
        GateRule(name="low", metric="x", maximum=1.0),
        GateRule(name="high", metric="x", minimum=1.0),
        GateRule(name="above", metric="x", maximum=0.9),
        GateRule(name="below", metric="x", minimum=1.1),
        GateRule(name="nan", metric="n", minimum=0.0),
        GateRule(name="absent", metric="y", minimum=0.0),
        GateRule(name="none", metric="z", minimum=0.0),
    ]
    results = evaluate_gates({"x": 1.0, "n": float("nan"), "z": None}, rules)
    statuses = ["passed", "passed", "failed", "failed", "failed", "skipped", "skipped"]
    assert [result.status for result in results] == statuses
    assert results[2].why == "x is 1, above 0.9"
    assert results[5].why == "y was not measured"


def test_a_refused_bundle_is_kept_and_never_served(tmp_path: Path) -> None:
    publish(tmp_path, write(tmp_path, "good").name)
    gates = evaluate_gates({"x": 2.0}, [GateRule(name="g", metric="x", maximum=1.0)])
    path = write(tmp_path, "bad", gates=gates, stages=(StageResult(name="als", status="failed", why="nan"),))
    assert path.name == "refused-bad"
    assert Bundle.open(path, verify="hashes").manifest.failed_gates[0].why == "x is 2, above 1"
    for name in ("refused-bad", "renamed"):
        if name == "renamed":
            path.rename(tmp_path / name)
        with pytest.raises(GateFailed, match="x is 2, above 1"):
            publish(tmp_path, name)
    assert resolve(tmp_path) == tmp_path / "good"


def test_next_name_sorts_by_as_of(tmp_path: Path) -> None:
    assert next_name(tmp_path, 1_777_593_600_000_001) == "20260501T000000Z-1"
    write(tmp_path, "20260501T000000Z-1")
    (tmp_path / "refused-20260501T000000Z-2").mkdir()
    assert next_name(tmp_path, 1_777_593_600_000_000) == "20260501T000000Z-3"


def test_retention_keeps_the_served_the_last_served_and_the_newest(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "c", "d", "e", "f"), start=1):
        write(tmp_path, name, created_at_us=number)
    for name in ("a", "b", "a"):
        publish(tmp_path, name)
    (tmp_path / "foreign").mkdir()
    held = Bundle.open(tmp_path / "c").array("a")
    assert retain(tmp_path, 2) == ["c", "d"]
    assert held.tolist() == [0, 1, 2, 3]
    assert visible(tmp_path) == {"a", "b", "e", "f", "foreign", "CURRENT", "HISTORY"}
    assert rollback(tmp_path) == "b"
    with pytest.raises(ConfigError):
        retain(tmp_path, 1)
