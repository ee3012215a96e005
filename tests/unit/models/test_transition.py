"""Transitions on sequences short enough to count by hand, and batch = event by event."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import BundleRefused, InputRefused
from recsys.events.facts import US_PER_DAY, US_PER_S
from recsys.models.transition import TransitionModel
from recsys.models.transition_counts import TransitionConfig, distinct_before
from tests.transitions_told import PLAIN, chances, entries, told


def event_by_event(frame: pl.DataFrame, config: TransitionConfig, model: TransitionModel) -> TransitionModel:
    """What the service does: applies entries in time order, remembering the last hosts of every user."""
    recent: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for user, host, at in frame.sort("at", "host", "user").iter_rows():
        before = recent[user]
        model.update(before, host, at)
        recent[user] = [(at, host), *(entry for entry in before if entry[1] != host)]
    return model


def counts(model: TransitionModel) -> np.ndarray:
    dense = np.zeros((model.n_hosts, model.n_hosts))
    for host in range(model.n_hosts):
        row = model.row(host)
        dense[host, row.nexts] = row.counts
    return dense


def test_counts_by_hand() -> None:
    model = TransitionModel.fit(entries((0, 0, 0), (0, 1, 100), (0, 2, 200), (1, 1, 50), (1, 1, 150)), PLAIN)
    expected = np.zeros((3, 3))
    day = 86_400.0
    expected[0, 1] = 0.5 * 2 ** (-100 / day)  # gap 100 s, 100 s before the reference, the last entry
    expected[1, 2] = 0.5
    expected[0, 2] = 0.5 * 0.25  # second lag, gap 200 s
    assert np.allclose(counts(model), expected, rtol=1e-12)
    assert model.row(0).total == pytest.approx(expected[0].sum())
    assert model.self_share(np.array([1, 0, 99])).tolist() == pytest.approx(
        [0.5 * 2 ** (-50 / day) / (0.5 * 2 ** (-50 / day) + 0.5), 0.0, 0.0]
    )


def test_a_host_entered_again_takes_one_place_among_the_last() -> None:
    """0 1 1 2: before the entry at 2 the last hosts are 1, 0; the second entry at 1 hides the first."""
    model = TransitionModel.fit(entries((0, 0, 0), (0, 1, 50), (0, 1, 100), (0, 2, 200)), PLAIN)
    assert counts(model)[0, 2] == pytest.approx(0.5 * 2 ** (-200 / 100))  # second lag, gap 200 s
    assert counts(model)[1, 2] == pytest.approx(0.5)  # first lag, from the latest entry
    assert counts(model)[2].sum() == 0.0


def test_distinct_hosts_before_each_entry() -> None:
    user = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    host = np.array([5, 6, 5, 5, 6, 7, 5, 7])
    assert distinct_before(user, host, 3).tolist() == [
        [-1, 0, 1, 2, 3, 4, -1, 6],
        [-1, -1, 0, 1, 1, 3, -1, -1],
        [-1, -1, -1, -1, -1, -1, -1, -1],
    ]


def test_a_count_halves_at_its_half_life_and_by_gap() -> None:
    late = TransitionModel.fit(entries((0, 0, 0), (0, 1, 100)), PLAIN, as_of=100 * US_PER_S + US_PER_DAY)
    assert late.row(0).counts.tolist() == pytest.approx([0.25])
    at = 100 * US_PER_S + 2 * US_PER_DAY
    assert told(late, [0], [0.0], np.array([1]), at=at)["transition_evidence"].tolist() == pytest.approx([0.125])
    assert told(late, [0], [100.0], np.array([1]), at=at)["transition_evidence"].tolist() == pytest.approx([0.0625])


def test_entries_at_one_instant_and_too_far_apart_are_no_transition() -> None:
    model = TransitionModel.fit(entries((0, 0, 0), (0, 1, 0), (0, 2, 5_000)), PLAIN)
    assert not counts(model).any()


def test_probabilities_sum_to_one_also_with_prior_cut_rows_and_updates() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (int(u), int(h), float(t)) for u, h, t in zip(*rng.integers(0, [[9], [30], [50_000]], (3, 600)), strict=True)
    ]
    model = TransitionModel.fit(entries(*rows), TransitionConfig(row_limit=3, prior=2.0), n_hosts=40)
    at = 60_000 * US_PER_S
    model.update([(at - 10 * US_PER_S, 3), (at - 20 * US_PER_S, 4)], 55, at)
    for recent in ([5], [5, 5, 7], [3, 4, 5, 6], [39], [1_000], []):
        found = told(model, recent, [60.0] * len(recent))
        alone = chances(model, recent[:1], [60.0] * len(recent[:1]))
        assert np.allclose(found["transition_last"], alone, rtol=1e-6) and alone.shape == (56,)
        for name in ("transition_last", "transition_recent"):
            assert (found[name] >= 0).all() and found[name].sum(dtype=np.float64) == pytest.approx(1.0, abs=1e-5)
    assert chances(model, [5], [60.0])[5] == pytest.approx(0.0, abs=1e-7)
    assert chances(model, [3], [1.0])[55] > chances(model, [6], [1.0])[55]


def test_mixture_by_hand_and_new_hosts() -> None:
    model = TransitionModel.fit(entries((0, 0, 0), (0, 1, 100), (1, 2, 0), (1, 3, 100)), PLAIN)
    found = chances(model, [0, 2], [0.0, 100.0], np.array([1, 3, 77, 0]))
    assert found.tolist() == pytest.approx([1 / 1.25, 0.25 / 1.25, 0.0, 0.0])  # weights 1 and 0.5 · ½
    popularity = chances(model, [0], [9_999.0])  # too long ago
    assert popularity.tolist() == pytest.approx([0.25] * 4, rel=1e-3)


def test_rows_are_cut_to_the_largest_counts_and_totals_keep_the_rest() -> None:
    rows = [(u, h, t) for u, nxt in enumerate([1, 1, 1, 2, 2, 3]) for h, t in ((0, 0.0), (nxt, 100.0))]
    model = TransitionModel.fit(entries(*rows), PLAIN.model_copy(update={"row_limit": 2}))
    assert model.row(0).nexts.tolist() == [1, 2]
    assert model.row(0).total == pytest.approx(3.0)


def test_an_online_row_stays_bounded_and_keeps_its_total() -> None:
    model = TransitionModel.fit(entries(), PLAIN.model_copy(update={"row_limit": 4}), n_hosts=2)
    for host in range(1, 200):
        model.update([(-100 * US_PER_S, 0)], host, 0)
        model.update([(-100 * US_PER_S, 0)], 1, 0)
    row = model.row(0)
    assert len(row.nexts) <= 8 and row.total == pytest.approx(0.5 * 398 / 1.0)
    assert row.counts[row.nexts == 1].tolist() == pytest.approx([100.0])


def test_arrays_round_trip_with_updates() -> None:
    model = TransitionModel.fit(entries((0, 0, 0), (0, 1, 100), (0, 9, 300)), PLAIN)
    model.update([(300 * US_PER_S, 9), (100 * US_PER_S, 1)], 4, 350 * US_PER_S)
    again = TransitionModel(model.to_arrays(), PLAIN)
    assert np.array_equal(counts(again), counts(model))
    assert np.array_equal(chances(again, [1, 9], [1.0, 2.0]), chances(model, [1, 9], [1.0, 2.0]))
    assert {array.dtype.kind for array in model.to_arrays().values()} <= {"i", "f"}


def test_the_future_changes_nothing_before_it() -> None:
    past = [(0, 0, 0.0), (0, 1, 100.0), (1, 2, 10.0)]
    future = [(0, 2, 150.0), (1, 0, 200.0)]
    as_of = 150 * US_PER_S
    cut = TransitionModel.fit(entries(*past, *future), PLAIN, as_of=as_of).to_arrays()
    for name, array in TransitionModel.fit(entries(*past), PLAIN, as_of=as_of).to_arrays().items():
        assert np.array_equal(cut[name], array)


def test_ages_after_the_last_entry_everything_is_finite() -> None:
    """A bundle may be old, and a replay far ahead: past 1,023 half-lives powers of two leave the doubles."""
    model = TransitionModel.fit(entries((0, 0, 0.0), (0, 1, 100.0)), PLAIN.model_copy(update={"prior": 1.0}))
    later = 5_000 * US_PER_DAY
    for _ in range(2):
        found = told(model, [0], [5.0], at=later)
        assert np.isclose(found["transition_recent"].sum(), 1.0, atol=1e-6)
        assert all(np.isfinite(numbers).all() for numbers in found.values())
        model.update([(later - US_PER_S, 0)], 2, later)


def test_asked_ages_before_the_fit_everything_is_finite() -> None:
    """A clock may say 1970: 1,075 half-lives before the reference a power of two is 0, and was divided by."""
    fitted = entries((0, 0, 0.0), (0, 1, 100.0))
    model = TransitionModel.fit(fitted, PLAIN.model_copy(update={"prior": 1.0}), as_of=20_000 * US_PER_DAY)
    model.update([(20_000 * US_PER_DAY, 0)], 2, 20_000 * US_PER_DAY + US_PER_S)
    for at in (-US_PER_DAY, 0, 18_900 * US_PER_DAY, 19_800 * US_PER_DAY):
        found = told(model, [0], [5.0], at=at)
        assert np.isclose(found["transition_recent"].sum(), 1.0, atol=1e-6)
        assert all(np.isfinite(numbers).all() for numbers in found.values())


def test_missing_columns_and_nulls_are_refused() -> None:
    with pytest.raises(InputRefused, match="column"):
        TransitionModel.fit(pl.DataFrame({"user": [1]}))
    with pytest.raises(InputRefused, match="null"):
        TransitionModel.fit(pl.DataFrame({"user": [1], "host": [None], "at": [1]}))


histories = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 8) | st.integers(0, 2), st.integers(0, 3 * 86_400)),
    max_size=60,
    unique_by=lambda e: (e[0], e[2]),
)


@given(history=histories, cut=st.floats(0.0, 1.0), seed=st.integers(0, 9))
@settings(max_examples=25)
def test_batch_equals_event_by_event_split_anywhere_and_permuted(
    history: list[tuple[int, int, int]], cut: float, seed: int
) -> None:
    config = TransitionConfig(max_gap_s=40_000.0, gap_half_life_s=5_000.0, half_life_days=0.5)
    frame = entries(*history)
    whole = TransitionModel.fit(frame, config, n_hosts=9, as_of=4 * US_PER_DAY)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=seed)
    by_user = TransitionModel.fit(
        (shuffled.filter(pl.col("user") % 2 == part) for part in (1, 0)), config, n_hosts=9, as_of=4 * US_PER_DAY
    )
    empty = TransitionModel.fit(frame.clear(), config, n_hosts=9, as_of=4 * US_PER_DAY)
    online = event_by_event(frame, config, empty)
    for other in (by_user, online):
        assert np.allclose(counts(other), counts(whole), rtol=1e-9, atol=0)
        for host in range(9):
            assert other.row(host).total == pytest.approx(whole.row(host).total, rel=1e-9)
        assert np.allclose(other.self_share(np.arange(9)), whole.self_share(np.arange(9)), rtol=1e-6)
        assert np.allclose(chances(other, [1, 2], [5.0, 9.0]), chances(whole, [1, 2], [5.0, 9.0]), rtol=1e-5, atol=1e-9)
    if history:
        cut_at = int(cut * 3 * US_PER_DAY)
        early = frame.filter(pl.col("at") < cut_at)
        base = TransitionModel.fit(early, config, n_hosts=9, as_of=cut_at)
        recent: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for user, host, at in frame.sort("at", "host").iter_rows():
            before = recent[user]
            if at >= cut_at:
                base.update(before, host, at)
            recent[user] = [(at, host), *(entry for entry in before if entry[1] != host)]
        assert np.allclose(
            chances(base, [1, 2], [5.0, 9.0], at=4 * US_PER_DAY),
            chances(whole, [1, 2], [5.0, 9.0], at=4 * US_PER_DAY),
            rtol=1e-5,
        )


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("nexts", [1, 2, 3]),
        ("nexts", [-1, 2, 2]),
        ("starts", [0, 3, 2, 3]),
        ("starts", [0, 2, 3, 4]),
        ("counts", [1.0]),
    ],
)
def test_counts_that_would_be_written_beyond_their_ends_are_refused(part: str, value: list[float]) -> None:
    """`add_row` writes to the places the rows name; nothing looks there whether these exist."""
    arrays = TransitionModel.fit(entries((0, 0, 0.0), (0, 1, 1.0), (0, 2, 2.0)), PLAIN).to_arrays()
    assert (len(arrays["starts"]), len(arrays["nexts"])) == (4, 3)
    assert TransitionModel(arrays, PLAIN).n_hosts == 3
    with pytest.raises(BundleRefused, match="outside their arrays"):
        TransitionModel(arrays | {part: np.array(value, dtype=arrays[part].dtype)}, PLAIN)
