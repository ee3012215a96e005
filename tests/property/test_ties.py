"""The algebra of ties: any split of the history, any order, and one by one give the same state as one batch."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.events.facts import FACT_SCHEMA, NEVER, US_PER_DAY, FactKind
from recsys.ties.algebra import BlockState, Rows, combine, decay_to, identity
from recsys.ties.batch import state_of
from recsys.ties.blocks import blocks
from recsys.ties.merging import merge, merge_all
from recsys.ties.update import Updater

BLOCKS = blocks()
T0 = 1_640_995_200_000_000
_KINDS = [k for k in FactKind if k not in (FactKind.LEAVE_NOTICE, FactKind.ROOM_END)]


@st.composite
def fact_frames(draw: st.DrawFn) -> pl.DataFrame:
    """Facts of few keys over up to 200 days, many on the same day or at the same instant."""
    n = draw(st.integers(0, 60))
    row = st.tuples(
        st.one_of(st.integers(0, 200 * US_PER_DAY), st.integers(0, 5).map(lambda d: d * US_PER_DAY + 7)),
        st.sampled_from(_KINDS),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(0, 3),
        st.integers(0, 5),
        st.integers(0, 3_000_000),
    )
    rows = draw(st.lists(row, min_size=n, max_size=n))
    columns = {
        "at": [T0 + r[0] for r in rows],
        "kind": [int(r[1]) for r in rows],
        "user": [-1 if r[1] is FactKind.ROOM_START else r[2] for r in rows],
        "host": [r[3] for r in rows],
        "room": [r[4] for r in rows],
        "count": [r[5] for r in rows],
        "value": [T0 + r[6] if r[1] is FactKind.ENTRY else r[6] for r in rows],
        "aux": [0] * n,
    }
    return pl.DataFrame(columns, schema=FACT_SCHEMA)


def assert_equal(a: BlockState, b: BlockState) -> None:
    np.testing.assert_array_equal(a.keys, b.keys)
    np.testing.assert_array_equal(a.rows.ints, b.rows.ints)
    np.testing.assert_array_equal(a.rows.latest, b.rows.latest)
    np.testing.assert_allclose(a.rows.decayed, b.rows.decayed, rtol=1e-9, atol=1e-300)


def one_by_one(block_name: str, facts: pl.DataFrame) -> BlockState:
    """The state by the online update, in the order of the rows."""
    block = getattr(BLOCKS, block_name)
    updater = Updater(block)
    position: dict[int, int] = {}
    rows = identity(block, 200)
    for at, kind, user, host, room, count, value, _ in facts.iter_rows():
        key = {"tie": user << 32 | host, "host": host, "user": user, "room": room}[block.level]
        if not updater.reads(kind) or key < 0 or (user < 0 and block.level in ("tie", "user")):
            continue
        updater.apply(rows, position.setdefault(key, len(position)), kind, at, count, value)
    keys = np.array(sorted(position), dtype=np.int64)
    return BlockState(block, keys, rows.take(np.array([position[int(k)] for k in keys], dtype=np.intp)))


@pytest.mark.parametrize("name", [block.name for block in BLOCKS.all])
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(facts=fact_frames(), seed=st.integers(0, 2**31))
def test_batch_split_order_and_events_agree(name: str, facts: pl.DataFrame, seed: int) -> None:
    block = getattr(BLOCKS, name)
    whole = state_of(block, facts)
    rng = np.random.default_rng(seed)
    shuffled = facts[rng.permutation(len(facts))] if len(facts) else facts
    assert_equal(state_of(block, shuffled), whole)
    cut = int(rng.integers(0, len(facts) + 1))
    left, right = state_of(block, shuffled[:cut]), state_of(block, shuffled[cut:])
    assert_equal(merge(left, right), whole)
    assert_equal(merge(right, left), whole)
    assert_equal(one_by_one(name, shuffled), whole)


@settings(max_examples=25)
@given(facts=fact_frames(), seed=st.integers(0, 2**31))
def test_merge_is_associative(facts: pl.DataFrame, seed: int) -> None:
    part = np.random.default_rng(seed).integers(0, 3, len(facts))
    for block in BLOCKS.all:
        a, b, c = (state_of(block, facts.filter(pl.Series(part == i))) for i in range(3))
        assert_equal(merge(merge(a, b), c), merge(a, merge(b, c)))
        assert_equal(merge_all(block, [a, b, c]), merge(merge(a, b), c))


def _frame(rows: list[tuple[int, FactKind, int, int, int, int, int]]) -> pl.DataFrame:
    names = [name for name in FACT_SCHEMA if name != "aux"]
    data = {name: [int(row[i]) for row in rows] for i, name in enumerate(names)}
    return pl.DataFrame({**data, "aux": [0] * len(rows)}, schema=FACT_SCHEMA)


@pytest.mark.parametrize("block", BLOCKS.all, ids=lambda block: block.name)
def test_a_decayed_sum_is_half_at_its_half_life(block: object) -> None:
    for i, half_life_us in enumerate(block.half_lives_us):
        rows = identity(block, 1)
        rows.ints[0, 0], rows.decayed[0, i] = T0, 8.0
        at_half = decay_to(block, rows, int(T0 + half_life_us))
        at_three = decay_to(block, rows, int(T0 + 3 * half_life_us))
        assert at_half[0, i] == pytest.approx(4.0, rel=1e-12)
        assert at_three[0, i] == pytest.approx(1.0, rel=1e-12)


def test_identity_changes_nothing() -> None:
    facts = _frame([(T0 + i * 10**9, FactKind.ENTRY, 0, 1, 2, 1, T0) for i in range(5)])
    state = state_of(BLOCKS.visits, facts)
    same = combine(BLOCKS.visits, state.rows, identity(BLOCKS.visits, 1))
    np.testing.assert_array_equal(same.ints, state.rows.ints)
    np.testing.assert_allclose(same.decayed, state.rows.decayed)


def test_known_history_gives_the_known_state() -> None:
    """Two days, three entries, one long stay over midnight, two distinct broadcasts, an order and its refund."""
    day = US_PER_DAY
    facts = _frame(
        [
            (T0 + 10, FactKind.ENTRY, 0, 1, 5, 1, T0),
            (T0 + 20, FactKind.ENTRY, 0, 1, 5, 1, T0),
            (T0 + 3 * day, FactKind.ENTRY, 0, 1, 6, 1, T0 + 3 * day - 5),
            (T0 + 4 * day + 60, FactKind.STAY, 0, 1, 6, 1, 1_500_000),
            (T0 + 3 * day + 9, FactKind.ORDER_LINE, 0, 1, 6, 2, 990),
            (T0 + 9 * day, FactKind.REFUND, 0, 1, -1, 1, 500),
        ]
    )
    visits = state_of(BLOCKS.visits, facts)
    column = {name: int(visits.rows.ints[0, i]) for i, name in enumerate(BLOCKS.visits.ints)}
    assert column["n_entries"] == 3
    assert column["active_days_bits"] == 0b1001
    assert column["first_entry_at"] == T0 + 10
    assert column["last_entry_at"] == T0 + 3 * day
    assert column["stay_ms"] == 1_500_000
    assert column["beyond_ms"] == 1_500_000 - 720_000
    assert visits.rows.latest[0, :3].tolist() == [T0 + 3 * day - 5, T0, NEVER]
    commerce = state_of(BLOCKS.commerce, facts)
    column = {name: int(commerce.rows.ints[0, i]) for i, name in enumerate(BLOCKS.commerce.ints)}
    assert (column["spend_minor"], column["refunded_minor"], column["n_lines"]) == (990, 500, 1)


def test_days_beyond_the_bitmap_are_forgotten_alike() -> None:
    near = _frame([(T0 + d * US_PER_DAY, FactKind.ENTRY, 0, 0, 0, 1, 0) for d in (0, 1, 62, 63, 200)])
    parts = [state_of(BLOCKS.visits, near[i : i + 1]) for i in range(len(near))]
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        assert_equal(merge_all(BLOCKS.visits, [parts[i] for i in order]), state_of(BLOCKS.visits, near))


def test_states_of_different_blocks_do_not_merge() -> None:
    empty = Rows(*(np.empty((0, 0)),) * 3)
    with pytest.raises(ValueError, match="different blocks"):
        merge(BlockState(BLOCKS.user, np.empty(0), empty), BlockState(BLOCKS.host, np.empty(0), empty))
