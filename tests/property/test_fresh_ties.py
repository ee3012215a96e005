"""Ties laid over a base: as if all had been told one by one; many facts at once as each for itself; last hosts kept."""

from __future__ import annotations

from errno import ENOSPC
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.events.facts import FACT_SCHEMA, NEVER, FactKind
from recsys.models.suite import RECENT_HOSTS, LatestEntered, entered, latest_entered, recent_hosts
from recsys.ties.batch import state_of
from recsys.ties.blocks import blocks
from recsys.ties.layers import State, layered
from recsys.ties.store import TieStore

BLOCKS = blocks()
N_USERS, N_HOSTS = 12, 30
KINDS = (FactKind.ENTRY, FactKind.STAY, FactKind.FOLLOW, FactKind.COMMENT, FactKind.ORDER_LINE, FactKind.IMPRESSION)


def drawn(seed: int, n: int = 2_000) -> pl.DataFrame:
    """Facts in an order that is not theirs in time, some at one instant; user 0 comes late, the last one never."""
    rng = np.random.default_rng(seed)
    columns = {
        "at": 10**15 + rng.integers(0, n // 3, n) * 10**9,
        "kind": rng.choice([int(kind) for kind in KINDS], n),
        "user": np.where(np.arange(n) < 1_500, rng.integers(1, N_USERS - 1, n), rng.integers(0, N_USERS - 1, n)),
        "host": rng.integers(0, np.where(np.arange(n) < 1_500, N_HOSTS - 8, N_HOSTS), n),
        "count": rng.integers(1, 3, n),
        "value": rng.integers(0, 5, n) * 10**12,
    }
    frame = pl.DataFrame(columns).with_columns(room=pl.lit(-1), aux=pl.lit(0))
    return frame.select(pl.col(name).cast(kind) for name, kind in FACT_SCHEMA.items())


def based(facts: pl.DataFrame, layers: int) -> TieStore:
    states: dict[str, State] = {}
    for block in BLOCKS.of("tie"):
        if layers == 1:
            states[block.name] = state_of(block, facts)
        else:
            half = state_of(block, facts[: len(facts) // 2])
            whole = state_of(block, facts)
            states[block.name] = layered(half).put(whole.keys, whole.rows)
    return TieStore(BLOCKS.of("tie"), states)


def tell(store: TieStore, facts: pl.DataFrame) -> None:
    for at, kind, user, host, _, count, value, _ in facts.iter_rows():
        store.apply(user, host, kind, at, count, value)


def assert_same(one: TieStore, other: TieStore, *, exactly: bool) -> None:
    for name in one.blocks:
        for user in range(-1, N_USERS + 1):
            a, b = one.of(name, user), other.of(name, user)
            order_a, order_b = (np.arange(len(a)),) * 2 if exactly else (np.argsort(a.hosts), np.argsort(b.hosts))
            np.testing.assert_array_equal(a.hosts[order_a], b.hosts[order_b])
            np.testing.assert_array_equal(a.rows.ints[order_a], b.rows.ints[order_b])
            np.testing.assert_array_equal(a.rows.latest[order_a], b.rows.latest[order_b])
            np.testing.assert_allclose(
                a.rows.decayed[order_a], b.rows.decayed[order_b], rtol=0 if exactly else 1e-12, atol=0
            )
            for host in range(N_HOSTS):
                row, at = one.row(name, user, host), np.flatnonzero(a.hosts == host)
                assert (row is None) == (not len(at))
                if row is not None:
                    np.testing.assert_array_equal(row.ints, a.rows.ints[at])
                    np.testing.assert_array_equal(row.decayed, a.rows.decayed[at])


@pytest.mark.parametrize("layers", [1, 2])
def test_laid_over_a_base_as_told_one_by_one(layers: int) -> None:
    facts = drawn(1)
    whole, over = TieStore(BLOCKS.of("tie")), based(facts[:1_500], layers)
    tell(whole, facts)
    for start in range(1_500, 2_000, 100):  # read in between: what was put together must not outlive a fact
        tell(over, facts[start : start + 100])
        assert all(len(over.of("visits", user)) for user in range(1, N_USERS - 1))
    assert_same(whole, over, exactly=False)
    again = based(facts[:1_500], layers)
    for name in over.blocks:
        again.put(name, over.moved(name))
    assert_same(over, again, exactly=True)
    over.forget(3)
    again = based(facts[:1_500], layers)
    for name in over.blocks:
        again.put(name, over.moved(name))
        assert not len(over.of(name, 3)) and not len(again.of(name, 3))
    assert_same(over, again, exactly=True)


@pytest.mark.parametrize("kind", [FactKind.IMPRESSION, FactKind.ENTRY, FactKind.LIKE])
@pytest.mark.parametrize("layers", [1, 2])
def test_many_at_once_as_one_after_the_other(kind: FactKind, layers: int) -> None:
    rng = np.random.default_rng(2)
    facts = drawn(2)
    together, singly = based(facts[:1_500], layers), based(facts[:1_500], layers)
    for at in rng.integers(10**15 - 10**12, 10**15 + 10**12, 80).tolist():
        user, hosts = int(rng.integers(N_USERS + 1)), rng.permutation(N_HOSTS)[: rng.integers(1, N_HOSTS)].tolist()
        together.apply_many(user, hosts, kind, at)
        for host in hosts:
            singly.apply(user, host, kind, at, 1, 0)
    assert_same(together, singly, exactly=True)
    touched = [name for name in together.blocks if len(together.moved(name)["users"])]
    assert touched == [name for name, updater in together.updaters.items() if updater.reads(kind)] != []


def test_the_last_hosts_are_those_of_the_ties() -> None:
    facts = drawn(3)
    store = based(facts[:1_500], 1)
    latest: dict[int, LatestEntered] = {}
    for at, kind, user, host, _, count, value, _ in facts[1_500:].iter_rows():
        if kind == FactKind.ENTRY:
            held = latest.get(user)
            latest[user] = entered(latest_entered(store, BLOCKS, user) if held is None else held, host, at)
        store.apply(user, host, kind, at, count, value)
        if user in latest:
            assert latest[user] == latest_entered(store, BLOCKS, user)
    assert len(latest) == N_USERS - 1
    now = 2 * 10**15
    for user in range(N_USERS):
        hosts, ages_s = recent_hosts(store.of("visits", user), BLOCKS, now)
        told = latest_entered(store, BLOCKS, user)
        assert [(host, age) for host, age in zip(hosts.tolist(), ages_s.tolist(), strict=True)] == [
            (host, (now - at) / 1e6) for at, host in told
        ]


def test_ties_beyond_the_bound_of_memory_lie_in_a_nameless_file_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    facts = drawn(5)
    inside, outside, on_full_disk = (based(facts[:1_000], 1) for _ in range(3))
    outside.space.bound(1 << 20, tmp_path)
    on_full_disk.space.bound(0, tmp_path)
    tell(inside, facts[1_000:])
    tell(outside, facts[1_000:])
    assert 0 < outside.space.in_memory <= 1 << 20 and outside.space.in_file > 1 << 20 and not list(tmp_path.iterdir())
    assert_same(inside, outside, exactly=True)

    def no_space(*_: object) -> int:
        raise OSError(ENOSPC, "no space left on device")

    monkeypatch.setattr("os.pwrite", no_space)
    tell(on_full_disk, facts[1_000:])
    assert on_full_disk.space.in_file == 0 and on_full_disk.space.in_memory > 1 << 20
    assert "stay in memory beyond their bound" in caplog.text
    assert_same(inside, on_full_disk, exactly=True)


def test_the_last_hosts_of_one_with_many_ties() -> None:
    rng = np.random.default_rng(4)
    store = TieStore(BLOCKS.of("tie"))
    for host, at in enumerate(rng.integers(0, 40, 200).tolist()):
        store.apply(0, host, FactKind.ENTRY, at, 1, 0)
        store.apply(0, host + 200, FactKind.STAY, at + 100, 1, 0)  # a stay alone is no entry
    told = latest_entered(store, BLOCKS, 0)
    last = store.of("visits", 0).rows.ints[:, BLOCKS.visits.int_column("last_entry_at")]
    pairs = zip(last.tolist(), store.of("visits", 0).hosts.tolist(), strict=True)
    assert told == sorted((pair for pair in pairs if pair[0] != NEVER), reverse=True)[:RECENT_HOSTS]
