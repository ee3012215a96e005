"""Trust in hosts: votes worked out on paper, brushing in simulated markets, disputes that count at once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from recsys.config import EngineConfig
from recsys.errors import BundleRefused
from recsys.events import build_vocabularies, clean, last_fact_us, open_events, tie_facts
from recsys.events.facts import FACT_SCHEMA, US_PER_DAY, FactKind
from recsys.models.baselines import PriorRanker
from recsys.models.suite import Models
from recsys.models.trust import TRUST_FEATURES, HostTrust
from recsys.pipeline.features import FEATURES, feature_table
from recsys.ties.algebra import BlockState, Floats, identity
from recsys.ties.batch import state_of
from recsys.ties.blocks import blocks
from tests.small_world import T0, Scene

MINUTE_MS = 60_000
HOUR = US_PER_DAY // 24


def states(facts: list[tuple[int, FactKind, int, int, int]] | pl.DataFrame) -> dict[str, BlockState]:
    """States of facts (at, kind, user, host, value)."""
    if not isinstance(facts, pl.DataFrame):
        rows = [(at, int(kind), user, host, -1, 1, value, 0) for at, kind, user, host, value in facts]
        facts = pl.DataFrame(rows, schema=FACT_SCHEMA, orient="row")
    return {name: state_of(getattr(blocks(), name), facts) for name in ("commerce", "visits", "host")}


def said_of(trust: HostTrust, hosts: npt.NDArray[np.int64]) -> Floats:
    """Features of hosts nobody sent anything back to."""
    found, block = np.empty((len(TRUST_FEATURES), len(hosts))), blocks().host
    trust.features(hosts, block, identity(block, 100), found)
    return found


def buyer(user: int, host: int, days: list[int], stay_min: float) -> list[tuple[int, FactKind, int, int, int]]:
    facts = []
    for day in days:
        at = day * US_PER_DAY
        facts += [
            (at, FactKind.ENTRY, user, host, 0),
            (at + HOUR, FactKind.STAY, user, host, int(stay_min * MINUTE_MS)),
        ]
        facts += [(at + i, FactKind.ORDER_LINE, user, host, 900) for i in (1, 2, 3)]
    return facts


def test_votes_worked_out_on_paper() -> None:
    told = [
        *buyer(0, 0, [1, 2, 3], stay_min=10),
        *buyer(1, 0, [1], stay_min=1.5),
        (5 * US_PER_DAY, FactKind.REFUND, 0, 0, 900),
        (5 * US_PER_DAY, FactKind.DISPUTE, 1, 0, 900),
        (5 * US_PER_DAY, FactKind.ORDER_LINE, 2, 1, 900),  # nobody knows of a stay
    ]
    trust = HostTrust.fit(states(told), [None, None, None])
    assert trust is not None
    assert trust.votes_for.tolist() == pytest.approx([2 + 0.25, 1, 0])
    assert trust.votes_against.tolist() == pytest.approx([np.log2(2) + np.log2(4) + 0.25 * 0.75, 0, 0])
    assert trust.prior_strength == 10.0 and trust.refunds.tolist() == [2, 0, 0] and trust.disputes.tolist() == [1, 0, 0]
    said, votes = trust.of(np.array([0, 2, 7]), np.array([2, 0, 0]), np.array([1, 0, 0]))
    assert said[1] == said[2] == trust.prior_mean and votes.tolist() == pytest.approx([5.4375, 0, 0])
    assert said[0] == pytest.approx((2.25 + 10 * trust.prior_mean) / 15.4375)


def test_a_dispute_counts_at_once_and_more_than_a_refund() -> None:
    trust = HostTrust.fit(states(buyer(0, 0, [1, 2], 10)), [None])
    assert trust is not None
    (none, refund, dispute), _ = trust.of(np.zeros(3, dtype=np.int64), np.array([0, 1, 1]), np.array([0, 0, 1]))
    assert none > refund > dispute


def test_more_orders_count_ever_less_and_a_day_counts_once() -> None:
    def votes(days: list[int]) -> float:
        trust = HostTrust.fit(states(buyer(0, 0, days, 10)), [None])
        assert trust is not None
        return float(trust.votes_for[0])

    assert votes([1]) == 1.0  # three orders on one day
    assert votes([1, 2, 3, 4]) - votes([1, 2, 3]) < votes([1, 2]) - votes([1])


def test_brushing_does_not_raise_trust() -> None:
    honest = [fact for user in range(30) for fact in buyer(user, user % 3, [1, 4 + user % 3], 12)]
    honest += [(9 * US_PER_DAY, FactKind.REFUND, user, user % 3, 900) for user in range(0, 30, 7)]
    fakes = [fact for user in range(30, 60) for fact in buyer(user, 0, list(range(1, 20)), 1.0)]
    alone, brushed = (HostTrust.fit(states(told), [None] * 3) for told in (honest, honest + fakes))
    assert alone is not None and brushed is not None
    (before, *_), _ = alone.of(np.arange(3), alone.refunds, alone.disputes)
    (after, *others), _ = brushed.of(np.arange(3), brushed.refunds, brushed.disputes)
    assert after < before and after < min(others)


def test_nobody_bought_and_a_host_nobody_told_of() -> None:
    assert HostTrust.fit(states([(1, FactKind.ENTRY, 0, 0, 0)]), [None]) is None


def test_categories_are_numbered_by_what_went_wrong_and_keep_their_numbers() -> None:
    told = [*buyer(0, 0, [1], 10), *buyer(1, 1, [1], 10), (9 * US_PER_DAY, FactKind.DISPUTE, 1, 1, 900)]
    trust = HostTrust.fit(states(told), ["tea", "jade", None, "tea"])
    assert trust is not None and trust.categories == ("tea", "jade")
    assert trust.category.tolist() == [0, 1, -1, 0]
    again = HostTrust.fit(states(told), ["jade", "tea", "cars", None], order=trust.categories)
    assert again is not None and again.category.tolist() == [1, 0, -1, -1]
    rows = said_of(again, np.array([0, 2, 99]))
    assert rows[2, 0] == 1 and np.isnan(rows[2, 1:]).all()


def test_trust_comes_back_from_its_arrays() -> None:
    trust = HostTrust.fit(states(buyer(0, 1, [1, 2], 10)), ["tea", None, "jade"])
    assert trust is not None
    arrays = trust.arrays()
    with pytest.raises(BundleRefused, match="trust_counts"):
        HostTrust.from_arrays(arrays | {"trust_counts": arrays["trust_counts"][:, :-1]})
    again = HostTrust.from_arrays(arrays)
    np.testing.assert_array_equal(said_of(trust, np.arange(5)), said_of(again, np.arange(5)))
    assert again.categories == trust.categories and again.prior_strength == trust.prior_strength


def test_the_ranker_reads_trust_and_sees_a_dispute_with_the_next_request() -> None:
    trust = HostTrust.fit(states(buyer(0, 1, [1, 2], 10)), ["tea", "jade"])
    config = EngineConfig()
    scene = Scene(2, models=Models(affinity=config.affinity, ranker=PriorRanker(FEATURES), trust=trust))
    scene.room(0, 0).room(1, 1)

    def read(at: int) -> np.ndarray:
        world, rooms = scene.world, np.array([0, 1])
        viewer = world.models.viewer(world.ties, world.blocks, 5, 2, at)
        return feature_table(world, 5, viewer, rooms, rooms, at).values[FEATURES.index("host_trust")]

    before = read(T0 + HOUR)
    scene.fact(T0 + HOUR, FactKind.DISPUTE, 5, 1, value=900)
    after = read(T0 + HOUR + 1)
    assert after[1] < before[1] and after[0] == before[0]


@pytest.fixture(scope="module")
def brushed_market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small market in which every tenth host pays for orders."""
    from recsys.events.simulator import load_world, simulate

    law = load_world("private_domain")
    cheats = law.brushing.model_copy(update={"cheat_host_share": 0.1, "fake_user_share": 0.1})
    out = tmp_path_factory.mktemp("brushed") / "events"
    simulate(law.model_copy(update={"brushing": cheats}), users=300, hosts=60, days=15, seed=4, out=out)
    return out


def test_honest_hosts_outrank_planted_cheats(brushed_market: Path) -> None:
    events = clean(open_events(brushed_market), now=datetime(2030, 1, 1, tzinfo=UTC))
    as_of = (last_fact_us(events) or 0) + 1
    ids = build_vocabularies(events, as_of_us=as_of)
    told = tie_facts(events, ids, before_us=as_of, bucket=None)
    truth = pl.read_parquet(brushed_market / "_truth" / "hosts" / "*.parquet")
    rows = ids.hosts.rows(truth["host_id"])
    seen, cheat = rows >= 0, truth["cheat"].to_numpy()
    fakes = pl.read_parquet(brushed_market / "_truth" / "cheats" / "*.parquet")["user_id"]
    genuine = told.filter(~pl.col("user").is_in(ids.users.rows(fakes).tolist()))
    found = {}
    for name, facts in (("brushed", told), ("genuine", genuine)):
        trust = HostTrust.fit(states(facts), [None] * len(ids.hosts))
        assert trust is not None
        said, _ = trust.of(rows[seen], trust.refunds[rows[seen]], trust.disputes[rows[seen]])
        found[name] = said
    honest, cheats = found["brushed"][~cheat[seen]], found["brushed"][cheat[seen]]
    assert len(cheats) >= 4
    assert np.mean(honest[:, None] > cheats[None, :]) > 0.9
    assert (found["brushed"] - found["genuine"])[cheat[seen]].max() < 0.0
