"""States put together on the disk are those put together in memory, to the last bit, whatever the parts and pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import training.gathered
import training.states
from recsys.bundle import Bundle, BundleWriter
from recsys.config import EngineConfig
from recsys.events import Events, Vocabularies, build_vocabularies, clean, fact_stream, open_events, tie_facts
from recsys.events.facts import FactKind
from recsys.events.lake.ingest import ingest
from recsys.events.simulator import WorldConfig, simulate
from recsys.models.affinity import confidence_matrix
from recsys.ties.batch import states_of
from recsys.ties.blocks import blocks
from recsys.ties.layers import State
from training.gathered import Gathered
from training.states import load_shot, save_shot, snapshot, ties_after

CONFIG = EngineConfig()
AS_OF = 2_000_000_000_000_000


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> tuple[Events, Vocabularies]:
    folder = tmp_path_factory.mktemp("gathered")
    simulate(WorldConfig(), users=120, hosts=9, days=4, seed=5, out=folder / "events")
    ingest(folder / "events", folder / "lake", buckets=4)
    events = clean(open_events(folder / "lake"))
    return events, build_vocabularies(events, as_of_us=AS_OF)


def assert_same(ours: dict[str, State], theirs: dict[str, State], tolerance: float = 0.0) -> None:
    assert set(ours) == set(theirs)
    for name, state in theirs.items():
        for part, array in state.flat().arrays().items():
            got = ours[name].flat().arrays()[part]
            np.testing.assert_allclose(got, array, rtol=tolerance, err_msg=f"{name} {part}")


@pytest.mark.parametrize("n_parts", [4, 16])  # as many as the lake has buckets, and more
def test_parts_on_the_disk_become_the_states_in_memory(
    market: tuple[Events, Vocabularies], n_parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.states, "user_parts", lambda *_: n_parts)
    monkeypatch.setattr(training.gathered, "PIECE_BYTES", 4_000)
    in_memory = snapshot(*market, CONFIG, AS_OF)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    on_disk = snapshot(*market, CONFIG, AS_OF, scratch=scratch)
    assert len(on_disk.states["visits"]) > 100
    assert sorted(path.name for path in scratch.glob("visits*")) == [
        f"visits_{part}.npy" for part in ("decayed", "ints", "keys", "latest")
    ]
    assert_same(on_disk.states, in_memory.states)
    np.testing.assert_array_equal(on_disk.standings, in_memory.standings)
    with BundleWriter(tmp_path, "kept") as writer:
        bundle = Bundle.open(writer.finish(save_shot(writer, on_disk)), verify="hashes")
    assert bundle.file("state/visits_ints.npy").samefile(scratch / "visits_ints.npy")  # not copied
    assert_same(load_shot(CONFIG, bundle).states, in_memory.states)
    monkeypatch.setattr(training.states, "user_parts", lambda *_: 1)
    assert_same(in_memory.states, snapshot(*market, CONFIG, AS_OF).states, 1e-9)


def test_one_part_stays_in_memory(market: tuple[Events, Vocabularies], tmp_path: Path) -> None:
    shot = snapshot(*market, CONFIG, AS_OF, scratch=tmp_path)
    assert shot.lying is None and not list(tmp_path.iterdir())


def test_parts_that_share_a_user_are_a_bug_that_shows(market: tuple[Events, Vocabularies], tmp_path: Path) -> None:
    facts = tie_facts(*market, before_us=AS_OF, bucket=(0, 4))
    gathered = Gathered(tmp_path)
    for _ in range(2):
        gathered.add(states_of([blocks().visits], facts))
    with pytest.raises(ValueError, match="parts share keys"):
        gathered.take(blocks().visits)


def test_a_block_nobody_has_anything_in(tmp_path: Path) -> None:
    declared, gathered = blocks(), Gathered(tmp_path)
    for _ in range(2):
        gathered.add({"commerce": training.gathered.empty_state(declared.commerce)})
    assert len(gathered.take(declared.commerce)) == 0


def test_confidences_after_more_facts_are_those_of_the_whole_history(market: tuple[Events, Vocabularies]) -> None:
    events, vocabularies = market
    facts = fact_stream(events, vocabularies, from_us=None, before_us=AS_OF)
    middle, late = (int(facts["at"].quantile(share)) for share in (0.5, 0.8))  # type: ignore[arg-type]
    shot = snapshot(events, vocabularies, CONFIG, middle)
    between = facts.filter(pl.col("at").is_between(middle, late, closed="left"))
    shape = len(vocabularies.users), len(vocabularies.hosts)
    ours = confidence_matrix(ties_after(shot, between, CONFIG), CONFIG.affinity, *shape)
    theirs, before = (
        confidence_matrix(snapshot(events, vocabularies, CONFIG, at).states, CONFIG.affinity, *shape)
        for at in (late, middle)
    )
    assert ours.nnz > before.nnz
    np.testing.assert_array_equal(ours.toarray(), theirs.toarray())


def test_only_the_tables_asked_for_are_read(market: tuple[Events, Vocabularies]) -> None:
    facts = tie_facts(*market, before_us=AS_OF, bucket=(0, 1))
    entries = tie_facts(*market, before_us=AS_OF, bucket=(0, 1), only=("watches",))
    assert set(entries["kind"]) == {int(FactKind.ENTRY), int(FactKind.STAY)} < set(facts["kind"])
    kind = pl.col("kind") == int(FactKind.ENTRY)
    columns = list(entries.columns)
    assert entries.filter(kind).sort(columns).equals(facts.filter(kind).sort(columns))
