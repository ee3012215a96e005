"""An erased user is nowhere: not in an answer from the first moment, and not as bytes in any file that is ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle, publish, rollback
from recsys.bundle.rewriting import replace_files
from recsys.config import EngineConfig
from recsys.erasure import Erasure, erased_until, pseudonym
from recsys.events import clean, open_events
from recsys.events.lake.erasing import erase_from_lake
from recsys.ids import Vocabulary
from recsys.live.artefact import load_states_of
from recsys.live.erasing import erase_from_bundle, erasures_of, holds_erased
from recsys.progress import silent
from recsys.ties.layers import LayeredState, added, layered
from serving.answers import document
from serving.asked import Asked
from serving.client import HttpClient
from serving.config import ServingConfig
from serving.engine import Engine
from serving.erasing import erase_everywhere
from serving.snapshotting import make as make_snapshot
from training.build import _states

from .running_service import serving
from .served_world import AS_OF, Clock, events_after

S = 1_000_000
CONFIG = ServingConfig(lease_s=0.0)


def files_with(root: Path, text: str) -> list[str]:
    """Every file that holds these bytes, plain or inside a compressed Parquet column."""
    found = []
    for path in sorted(one for one in root.rglob("*") if one.is_file()):
        if text.encode() in path.read_bytes():
            found.append(str(path.relative_to(root)))
        elif path.suffix == ".parquet":
            columns = pl.read_parquet(path, hive_partitioning=False).select(pl.col(pl.String)).get_columns()
            if any(column.str.contains(text, literal=True).any() for column in columns):
                found.append(str(path.relative_to(root)))
    return found


def answers(engine: Engine, users: list[str]) -> list[tuple[list[int | str], list[float]]]:
    return [(one.room_ids, one.answer.score.tolist()) for one in (engine.lookup(Asked(user, 20)) for user in users)]


def test_the_bytes_are_gone_everywhere_and_nobody_else_notices(texts: Path, world: Path, buyer: str) -> None:
    told = [event for _, event in events_after(texts / "events", AS_OF)][:400]
    mine = [event for event in told if event[2].get("user_id") == buyer]
    rows = {path.stem: pl.read_parquet(path) for path in (texts / "events").glob("*.parquet")}
    others = sorted(set(rows["watches"]["user_id"].unique()) - {buyer})[:25]
    clock = Clock(AS_OF + 10 * 86_400 * S)
    log = world / "log.db"
    with Engine.open(world / "bundles", log, CONFIG, clock) as engine:
        engine.apply(told)
        engine.apply([], [engine.lookup(Asked(buyer, 5)).impressions("r1")])
        before, stranger = answers(engine, others), answers(engine, ["nobody"])
        assert answers(engine, [buyer]) != stranger
        assert make_snapshot(world / "bundles", log, CONFIG)["made"]
        assert {name.split("/")[0] for name in files_with(world, buyer)} >= {"lake", "bundles"}
        assert (world / "log.db.overlay").is_file()
        kept = world / "bundles" / ".stages" / "states-1"
        kept.mkdir(parents=True)
        (kept / "state").write_bytes(b"kept for the next build")
        receipt = erase_everywhere(engine, buyer, world / "lake")
        assert not kept.parent.exists()
        assert not (world / "log.db.overlay").exists()  # it held what he did, under his row
        assert answers(engine, [buyer]) == stranger
        assert answers(engine, others) == before
    assert make_snapshot(world / "bundles", log, CONFIG)["made"]
    assert files_with(world, buyer) == []
    his_orders = rows["purchases"].filter(pl.col("user_id") == buyer)["order_id"].unique().to_list()
    assert his_orders and [files_with(world / "lake", order) for order in his_orders] == [[]] * len(his_orders)
    assert receipt["log_rows"] == len(mine) + 1
    counts = {
        name: int((table["user_id"] == buyer).sum()) for name, table in rows.items() if "user_id" in table.columns
    }
    refunds = int(rows["refunds"]["order_id"].is_in(his_orders).sum()) if "refunds" in rows else 0
    expected = {name: n for name, n in (counts | {"refunds": refunds}).items() if n}
    assert receipt["lake"]["rows"] == expected
    assert [(one["bundle"], one["now"]) for one in receipt["bundles"]] == [("b1", "b1-e1"), ("b2", "b2-e1")]
    assert receipt["bundles"][0]["rows"]["visits"] > 0 and receipt["bundles"][0]["rows"]["user"] == 1
    assert receipt["bundles"][0]["rows"]["known_lines"] > 0
    for name in ("b1-e1", "b2-e1"):
        bundle = Bundle.open(world / "bundles" / name, verify="hashes")
        assert pseudonym(buyer) in erasures_of(bundle) and bundle.manifest.name == name
    with Engine.open(world / "bundles", log, CONFIG, clock) as engine:
        assert engine.loaded.name == "b2-e1"
        assert engine.loaded.vocabularies.users.row(buyer) == -1
        assert answers(engine, others) == before and answers(engine, [buyer]) == stranger
    assert rollback(world / "bundles") == "b1-e1"
    again = Clock(clock.now)
    with Engine.open(world / "bundles", log, CONFIG, again) as engine:
        assert answers(engine, [buyer]) == stranger
        repeated = erase_everywhere(engine, buyer, world / "lake")
        assert (repeated["bundles"], repeated["lake"]["rows"], repeated["log_rows"]) == ([], {}, 0)


def test_another_worker_and_an_older_bundle_obey_at_once(texts: Path, world: Path, buyer: str) -> None:
    clock, log = Clock(AS_OF + S), world / "log.db"
    older = shutil.copytree(world / "bundles" / "b1", world / "elsewhere" / "b0")
    with (
        Engine.open(world / "bundles", log, CONFIG, clock) as one,
        Engine.open(world / "bundles", log, CONFIG, clock) as two,
    ):
        stranger = answers(two, ["nobody"])
        one.erase(buyer)
        assert answers(two, [buyer]) == stranger
        two.swap(older)  # of another name: he is found there by his pseudonym
        assert answers(two, [buyer]) == answers(two, ["nobody"])


def test_his_past_is_refused_and_a_newcomer_of_the_same_id_is_welcome(texts: Path, world: Path, buyer: str) -> None:
    clock, log = Clock(AS_OF + 10 * S), world / "log.db"
    follow = {"user_id": buyer, "host_id": 1, "at": AS_OF + 5 * S, "action": "follow"}
    with Engine.open(world / "bundles", log, CONFIG, clock) as engine:
        erase_everywhere(engine, buyer, world / "lake")
        clock.now += 10 * S
        assert engine.apply([("late", "follows", follow)]) == [("quarantined", "erased_user")]
        assert engine.apply([("new", "follows", follow | {"at": AS_OF + 15 * S})]) == [("accepted", None)]
        user = engine.loaded.vocabularies.users.row(buyer)
        assert len(engine.loaded.live.world.ties.of("relation", user)) == 1
    with Engine.open(world / "bundles", log, CONFIG, clock) as engine:
        user = engine.loaded.vocabularies.users.row(buyer)
        assert len(engine.loaded.live.world.ties.of("relation", user)) == 1


@pytest.mark.parametrize("by_name", [True, False])
def test_an_erased_user_is_unknown_running_and_restarted(
    texts: Path, world: Path, buyer: str, tmp_path: Path, by_name: bool
) -> None:
    """Whether he was in the bundle or came after it, whether the bundle is written again or served by its own path."""
    log, clock = tmp_path / "log.db", Clock(AS_OF + 10 * S)
    where = world / "bundles" / "b2" if by_name else world / "bundles"
    new = {"user_id": "new/one?", "host_id": 1, "at": AS_OF + 5 * S, "action": "follow"}
    with Engine.open(where, log, CONFIG, clock) as engine:
        engine.apply([("n", "follows", new)])
        for user in (buyer, "new/one?"):
            shown = engine.lookup(Asked(user, 5))
            assert document(shown)["known_user"]
            erase_everywhere(engine, user, None)
            clock.now += S
            engine.apply([], [shown.impressions("later")])  # shown before he was erased, logged after
            assert not document(engine.lookup(Asked(user, 5)))["known_user"]
        running = answers(engine, [buyer, "new/one?"])
        assert running == answers(engine, ["nobody"] * 2)
        with Engine.open(where, log, CONFIG, clock) as restarted:
            assert answers(restarted, [buyer, "new/one?"]) == running
            clock.now += 10 * S
            again = [(f"a{user}", "follows", new | {"user_id": user, "at": clock.now - S}) for user in (buyer, "other")]
            assert engine.apply(again) == [("accepted", None)] * 2
            assert len(set(map(str, answers(engine, [buyer, "other"])))) == 1  # a newcomer as any other
            assert answers(restarted, [buyer, "other"]) == answers(engine, [buyer, "other"])
    assert make_snapshot(where, log, CONFIG)["made"]
    with Engine.open(where, log, CONFIG, clock) as engine:
        assert len(set(map(str, answers(engine, [buyer, "other"])))) == 1
        erase_everywhere(engine, buyer, None)
        assert not document(engine.lookup(Asked(buyer, 5)))["known_user"]
        assert document(engine.lookup(Asked("other", 5)))["known_user"]


def test_any_id_can_be_erased_over_http(world: Path, tmp_path: Path) -> None:
    follow = {"host_id": 1, "at": AS_OF + 5 * S, "action": "follow"}
    names = ["a/b?c#d", "a", "ü %2F"]
    engine = Engine.open(world / "bundles", tmp_path / "log.db", CONFIG, Clock(AS_OF + 10 * S))
    with serving(engine, CONFIG) as url, HttpClient(url) as client:
        client.send([(name, "follows", follow | {"user_id": name}) for name in names])
        for done, name in enumerate(names, start=1):
            assert client.erase(name)["user_id"] == name
            assert [client.lookup(one)["known_user"] for one in names] == [i >= done for i in range(len(names))]


def test_a_state_in_two_layers_loses_him_in_both_and_nobody_else(world: Path, buyer: str) -> None:
    path = world / "bundles" / "b1"
    bundle = Bundle.open(path)
    user = Vocabulary.load(bundle.file("users.ids")).row(buyer)
    held = load_states_of(bundle)["visits"].flat()
    some = (np.arange(len(held)) % 7 == 0) | (np.cumsum(held.keys >> 32 == user) == 1)
    state, _, _ = added(layered(held), held.select(some))
    arrays = state.over.arrays() | {"at": state.at}
    layers = {f"state/visits_over_{part}.npy": saving(array) for part, array in arrays.items()}
    path = replace_files(path, layers)
    before = load_states_of(Bundle.open(path))["visits"]
    assert isinstance(before, LayeredState) and 0 < len(before.over) < len(before.base)
    receipt = erase_from_bundle(path, buyer, AS_OF)
    assert receipt is not None
    after = load_states_of(Bundle.open(world / "bundles" / receipt["now"], verify="hashes"))["visits"]
    was, now = before.flat(), after.flat()
    others = was.keys >> 32 != user
    assert (~others).sum() > 0 and np.array_equal(now.keys, was.keys[others])
    for part in ("ints", "decayed", "latest"):
        assert np.array_equal(getattr(now.rows, part), getattr(was.rows, part)[others])


def test_a_base_that_holds_an_erased_user_is_not_continued(
    texts: Path, world: Path, buyer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = AS_OF + 10 * 86_400 * S
    erased = dict([Erasure.of(buyer, now), Erasure.of("nobody here knows", now)])
    held = Bundle.open(world / "bundles" / "b1")
    assert not holds_erased(held, {}) and holds_erased(held, erased)
    monkeypatch.setattr("training.build.known_states", lambda *_: None)
    monkeypatch.setattr("training.build.advance", lambda *_: SimpleNamespace(shot=None, vocabularies=None))
    monkeypatch.setattr("training.build.snapshot", lambda *_, **__: None)

    def build_on(base: Bundle) -> str:
        (stage,) = _states(clean(open_events(world / "lake")), EngineConfig(), now, base, now, silent, None).stages
        return stage.status

    assert build_on(held) == "passed"
    erase_from_lake(world / "lake", [Erasure.of(buyer, now)], buyer)
    assert build_on(held) == "skipped"
    receipt = erase_from_bundle(held.path, buyer, now)
    assert receipt is not None
    without = Bundle.open(world / "bundles" / receipt["now"])
    assert not holds_erased(without, erased) and build_on(without) == "passed"
    assert not holds_erased(without, dict([Erasure.of(buyer, now + 1)]))  # erased again: it knows nobody of this id


def saving(array: np.ndarray[Any, Any]) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, allow_pickle=False)


def test_an_interrupted_rewrite_leaves_the_bundle_served_and_is_finished_by_the_next(
    world: Path, buyer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine.open(world / "bundles", world / "log.db", CONFIG, Clock()) as engine:
        with monkeypatch.context() as patched:

            def stop(*_: Any) -> None:
                raise KeyboardInterrupt

            patched.setattr("recsys.bundle.rewriting.put_in_place_of", stop)
            with pytest.raises(KeyboardInterrupt):
                erase_everywhere(engine, buyer, None)
        assert answers(engine, [buyer]) == answers(engine, ["nobody"])
    assert Bundle.open(world / "bundles" / "b2", verify="hashes")
    with Engine.open(world / "bundles", world / "log.db", CONFIG, Clock()) as engine:
        receipt = erase_everywhere(engine, buyer, None)
        assert "no lake" in receipt["later_builds"] and engine.loaded.name == "b2-e1"
    assert files_with(world / "bundles", buyer) == []
    publish(world / "bundles", "b1-e2")


def test_integer_ids_stay_compact_and_everybody_keeps_his_row(market: Path, tmp_path: Path) -> None:
    shutil.copytree(market / "bundles", tmp_path / "bundles")
    with Engine.open(tmp_path / "bundles", None, CONFIG, Clock()) as engine:
        users = engine.loaded.vocabularies.users
        held = {users.id(row): row for row in range(len(users))}
        erase_everywhere(engine, 3, None)
        erase_everywhere(engine, 5, None)
        now = engine.loaded.vocabularies.users
        assert engine.loaded.name == "b1-e2" and len(now) == len(held)
        assert {now.id(row): row for row in range(len(now)) if now.id(row) >= 0} == {
            one: row for one, row in held.items() if one not in (3, 5)
        }
        assert sorted(now.id(held[one]) for one in (3, 5)) == [-2, -1]


@pytest.mark.parametrize("lowest", [-(2**63), -(2**63) + 1, -7])
def test_integer_ids_end_somewhere_and_nobody_gets_one_that_somebody_has(
    market: Path, tmp_path: Path, lowest: int
) -> None:
    shutil.copytree(market / "bundles", tmp_path / "bundles")
    path = tmp_path / "bundles" / "b1"
    users = Vocabulary.load(path / "users.ids")
    made = Vocabulary()
    made.extend(pl.Series([lowest, lowest + 1, *users.ids(np.arange(2, len(users))).to_list()]))
    path = replace_files(path, {"users.ids": made.save})
    for gone in (made.id(5), lowest):
        receipt = erase_from_bundle(path, gone, AS_OF)
        assert receipt is not None
        path = path.with_name(receipt["now"])
    now = Vocabulary.load(path / "users.ids")
    kept = np.setdiff1d(np.arange(len(made)), [0, 5])
    assert now.ids(kept).equals(made.ids(kept)) and now.ids(np.arange(len(now))).n_unique() == len(made)
    assert now.row(lowest) == now.row(made.id(5)) == -1


def test_a_pseudonym_tells_ids_of_both_kinds_apart() -> None:
    assert pseudonym(7) != pseudonym("7") and len(pseudonym(7)) == 32
    erased = dict([Erasure.of("b", 5)])
    assert erased_until(pl.Series(["a", "b", None, "b"]), erased).to_list() == [None, 5, None, 5]
    assert erased_until(pl.Series([1]), erased).to_list() == [None]
