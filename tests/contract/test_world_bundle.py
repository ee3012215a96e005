"""A world and the bundle it lies in: nothing is lost on the way, and a bundle published once loads for ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from recsys.bundle import Bundle, BundleWriter, DataWindow, ManifestFields
from recsys.errors import BundleRefused
from recsys.events import (
    Events,
    Vocabularies,
    build_vocabularies,
    clean,
    fact_stream,
    last_fact_us,
    open_events,
    room_table,
)
from recsys.live.artefact import WorldParts, assemble, load, save
from recsys.live.state import LiveState
from recsys.models.transition import TransitionModel
from recsys.models.transition_counts import TransitionConfig
from recsys.models.trust import HostTrust
from recsys.models.two_tower import HALF_LIVES_DAYS, TwoTower
from recsys.pipeline.lookup import lookup
from recsys.pipeline.request import Answer, Request
from recsys.ties.algebra import Rows
from tests.conftest import NOW, Built
from tests.fixtures.bundles.write_world_v1 import ANSWERS, BUNDLE, answers_of
from tests.small_world import DAY, empty_parts
from training.states import snapshot


def write(folder: Path, name: str, parts: WorldParts, vocabularies: Vocabularies, as_of_us: int) -> Path:
    fields = ManifestFields(
        created_at_us=as_of_us,
        config=parts.config.model_dump(mode="json"),
        window=DataWindow(from_us=None, to_us=as_of_us - 1, as_of_us=as_of_us),
    )
    with BundleWriter(folder, name) as writer:
        save(writer, parts, vocabularies)
        return writer.finish(fields)


@pytest.fixture(scope="module")
def events(market: Path) -> Events:
    return clean(open_events(market), now=NOW)


@pytest.fixture(scope="module")
def at(events: Events) -> int:
    last = last_fact_us(events)
    assert last is not None
    return last - DAY


@pytest.fixture(scope="module")
def vocabularies(events: Events, at: int) -> Vocabularies:
    return build_vocabularies(events, as_of_us=at + DAY + 1)


@pytest.fixture
def parts(built: Built, events: Events, vocabularies: Vocabularies, at: int) -> WorldParts:
    """A snapshot in memory with the models of a build."""
    models = load(Bundle.open(built.bundle))[0].world.models
    config = Bundle.open(built.bundle).config
    shot = snapshot(events, vocabularies, config, at)
    told = empty_parts(len(vocabularies.hosts), config, models)
    return replace(
        told, states=shot.states, standings=shot.standings, rooms=shot.rooms, leaves=shot.leaves, priors=shot.priors
    )


def asked(live: LiveState, n_users: int, at: int) -> list[Answer]:
    return [lookup(live.world, Request(user, at, 20)) for user in [-1, *range(0, n_users, 9)]]


def assert_same(a: list[Answer], b: list[Answer]) -> None:
    assert sum(len(one) for one in a) > 100
    for one, other in zip(a, b, strict=True):
        for name in ("rooms", "hosts", "score", "strength", "sources", "contributions", "candidates", "outcomes"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        assert (one.reasons, one.feature_names, one.bias) == (other.reasons, other.feature_names, other.bias)


def test_a_loaded_world_answers_like_the_one_saved_and_moves_on_alike(
    tmp_path: Path, parts: WorldParts, events: Events, vocabularies: Vocabularies, at: int
) -> None:
    path = write(tmp_path, "saved", parts, vocabularies, at)
    loaded, ids = load(Bundle.open(path, verify="hashes"))
    memory = assemble(parts)
    n = len(vocabularies.users)
    assert_same(asked(memory, n, at), asked(loaded, n, at))
    assert ids.users.ids(np.arange(n)).to_list() == vocabularies.users.ids(np.arange(n)).to_list()
    facts = fact_stream(events, vocabularies, from_us=at, before_us=at + DAY)
    for live in (memory, loaded):
        live.register_rooms(room_table(events, vocabularies))
        for fact in facts.iter_rows():
            live.apply(*fact)
    assert_same(asked(memory, n, at + DAY), asked(loaded, n, at + DAY))


def test_ties_with_a_host_that_there_is_not_are_refused(
    tmp_path: Path, parts: WorldParts, vocabularies: Vocabularies, at: int
) -> None:
    path = write(tmp_path, "few", replace(parts, n_hosts=2, standings=parts.standings[:2]), vocabularies, at)
    with pytest.raises(BundleRefused, match="a host that there is not"):
        load(Bundle.open(path))


@pytest.mark.parametrize("part", ["ints", "decayed", "latest"])
def test_ties_with_fewer_states_than_keys_are_refused(
    tmp_path: Path, parts: WorldParts, vocabularies: Vocabularies, at: int, part: str
) -> None:
    held = parts.states["visits"].flat()
    fewer = replace(held.rows, **{part: getattr(held.rows, part)[:-1]})
    states = {**parts.states, "visits": replace(held, rows=fewer)}
    path = write(tmp_path, "fewer", replace(parts, states=states), vocabularies, at)
    with pytest.raises(BundleRefused, match=f"do not fit.*visits_{part}"):
        load(Bundle.open(path))


def test_standings_of_other_columns_are_refused(
    tmp_path: Path, parts: WorldParts, vocabularies: Vocabularies, at: int
) -> None:
    path = write(tmp_path, "narrow", replace(parts, standings=parts.standings[:, :-1]), vocabularies, at)
    with pytest.raises(BundleRefused, match="standings"):
        load(Bundle.open(path))


def test_a_negative_host_of_a_tie_is_none_that_there_is(
    tmp_path: Path, parts: WorldParts, vocabularies: Vocabularies, at: int
) -> None:
    held = parts.states["visits"].flat()
    keys = held.keys.copy()
    keys[-1] |= 0x80000000
    states = {**parts.states, "visits": replace(held, keys=keys)}
    path = write(tmp_path, "negative", replace(parts, states=states), vocabularies, at)
    with pytest.raises(BundleRefused, match="a host that there is not"):
        load(Bundle.open(path))


def test_transitions_keep_the_settings_they_were_fitted_with(
    tmp_path: Path, parts: WorldParts, vocabularies: Vocabularies, at: int
) -> None:
    fitted = TransitionConfig(lag_weights=(1.0, 0.5), half_life_days=9.0, prior=1.0)
    parts.models.transition = TransitionModel.fit(
        pl.DataFrame({"user": [0, 0], "host": [0, 1], "at": [0, DAY]}), fitted
    )
    live, _ = load(Bundle.open(write(tmp_path, "settings", parts, vocabularies, at)))
    assert live.world.models.transition is not None and live.world.models.transition.config == fitted


def test_an_empty_world_goes_through_a_bundle(tmp_path: Path) -> None:
    from recsys.ids import Vocabulary

    nobody = Vocabularies(*(Vocabulary() for _ in range(4)))
    path = write(tmp_path, "empty", empty_parts(0), nobody, DAY)
    live, ids = load(Bundle.open(path))
    assert len(lookup(live.world, Request(-1, DAY, 5))) == 0 and len(ids.users) == 0


def test_tower_and_trust_go_through_a_bundle(tmp_path: Path) -> None:
    from recsys.ids import Vocabulary

    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    parts = empty_parts(5)
    tower = TwoTower(
        drawn(5, 3), drawn(5, 4), np.abs(drawn(2, 5)), drawn(2, 3, 3), drawn(8, 3), drawn(2, 3), drawn(1, 4),
        np.array(HALF_LIVES_DAYS, dtype=np.float32), np.array([0, 1], dtype=np.int8),
    )  # fmt: skip
    trust = HostTrust(
        np.arange(5.0),
        np.ones(5),
        np.arange(5),
        np.zeros(5, np.int64),
        np.arange(5) - 1,
        ("a", "b", "c", "d"),
        0.8,
        9.0,
    )
    models = replace(parts.models, tower=tower, trust=trust)
    path = write(tmp_path, "both", replace(parts, models=models), Vocabularies(*(Vocabulary() for _ in range(4))), DAY)
    live, _ = load(Bundle.open(path))
    again = live.world.models
    assert again.tower is not None and again.trust is not None
    for held, read in ((tower, again.tower), (trust, again.trust)):
        for name, array in held.arrays().items():
            np.testing.assert_array_equal(array, read.arrays()[name], err_msg=name)
    assert live.world.index.publish().dimension == 4


def test_columns_declared_since_then_know_nothing_yet(
    tmp_path: Path, parts: WorldParts, vocabularies: Vocabularies, at: int
) -> None:
    """A bundle written before `n_reports` existed loads; of reports it knows nothing."""
    path = write(tmp_path, "older", parts, vocabularies, at)
    relation = parts.states["relation"]
    column = relation.block.int_column("n_reports")
    world = orjson.loads((path / "world.json").read_bytes())
    world["columns"]["relation"]["ints"].remove("n_reports")
    (path / "world.json").write_bytes(orjson.dumps(world))
    older = np.delete(relation.rows.ints, column, axis=1)
    np.save(path / "state" / "relation_ints.npy", older)
    manifest = orjson.loads((path / "manifest.json").read_bytes())
    for name in ("world.json", "state/relation_ints.npy"):
        manifest["files"][name]["bytes"] = (path / name).stat().st_size
    (path / "manifest.json").write_bytes(orjson.dumps(manifest))
    live, _ = load(Bundle.open(path))
    user = int(relation.keys[0] >> 32)
    rows: Rows = live.world.ties.of("relation", user).rows
    np.testing.assert_array_equal(np.delete(rows.ints, column, axis=1), older[relation.keys >> 32 == user])
    assert not rows.ints[:, column].any()


def test_columns_of_a_later_version_are_refused(
    tmp_path: Path, parts: WorldParts, vocabularies: Vocabularies, at: int
) -> None:
    path = write(tmp_path, "later", parts, vocabularies, at)
    text = (path / "world.json").read_text().replace('"n_reports"', '"n_rumours"')
    (path / "world.json").write_text(text)
    with pytest.raises(BundleRefused, match="later version"):
        load(Bundle.open(path))


def test_the_frozen_world_loads_and_answers_as_it_did() -> None:
    bundle = Bundle.open(BUNDLE, verify="hashes")
    assert {stage.name for stage in bundle.manifest.stages if stage.status == "passed"} == {
        "factors", "graph", "transition", "ranker", "strength",
    }  # fmt: skip
    frozen = orjson.loads(ANSWERS.read_bytes())
    now = answers_of(BUNDLE)
    assert len(frozen) == len(now) and sum(len(answer["rooms"]) for answer in frozen) > 20
    for then, again in zip(frozen, now, strict=True):
        assert again["rooms"] == then["rooms"]
        assert again["reasons"] == then["reasons"]
        np.testing.assert_allclose(again["score"], then["score"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(again["strength"], then["strength"], rtol=1e-6, atol=1e-9)


def test_the_frozen_world_is_small() -> None:
    assert sum(path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file()) < 300_000
    assert pl.read_json(ANSWERS).height > 5
