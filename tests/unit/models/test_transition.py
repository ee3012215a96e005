"""Transitions on sequences short enough to count by hand, and batch = event by event."""

from __future__ import annotations

import sys
import threading
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
from tests.transitions_told import chances, told

PLAIN = TransitionConfig(
    lag_weights=(1.0, 0.5), gap_half_life_s=100.0, max_gap_s=1_000.0, half_life_days=1.0, prior=0.0
)


def entries(*rows: tuple[int, int, float]) -> pl.DataFrame:
    """(user, host, seconds)."""
    schema = {"user": pl.Int32, "host": pl.Int32, "at": pl.Int64}
    return pl.DataFrame([(user, host, int(at * US_PER_S)) for user, host, at in rows], schema=schema, orient="row")


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


@pytest.mark.parametrize("seed", range(20))
def test_candidates_are_told_what_the_formulas_say(seed: int) -> None:
    """docs/formulas/transition.md, read off counts one by one; hosts 40 to 44 are new."""
    rng = np.random.default_rng(seed)
    rows = [(u, h, 1_000.0 * t) for u, h, t in rng.integers(0, [6, 30, 400], (300, 3)).tolist()]
    config = TransitionConfig(row_limit=int(rng.integers(2, 30)), prior=float(rng.choice([0.5, 5.0])))
    model = TransitionModel.fit(entries(*rows), config, n_hosts=40)
    at = (400_000 + int(rng.integers(0, 10**6))) * US_PER_S
    for _ in range(30):
        last, host, entered_now = rng.integers(0, 40, 3).tolist()
        model.update([(at - 60 * US_PER_S, last), (at - 900 * US_PER_S, host)], entered_now, at)
    recent, ages_s = rng.choice(42, 4, replace=False).tolist(), np.sort(rng.uniform(0, 10**6, 4)).tolist()
    age = 2.0 ** ((at - model.reference_at) / US_PER_DAY / config.half_life_days)
    entered = np.append(model.to_arrays()["entered"], np.zeros(5))
    popular, one = entered / entered.sum(), 1.0 / (entered.sum() / age + 40)
    weights = [w * 2.0 ** (-s / config.gap_half_life_s) for w, s in zip(config.lag_weights, ages_s, strict=False)]

    def after(host: int) -> tuple[np.ndarray, np.ndarray]:
        """P(next | host) and counts to every next host."""
        row, count = model.row(host), np.zeros(45)
        count[row.nexts] = row.counts
        rest = config.prior * age + row.total - count.sum()
        chance = (count + rest * popular / (1 - popular[host])) / (row.total + config.prior * age)
        chance[host] = 0.0
        return chance, count

    each = [after(host) for host in recent]
    expected = {
        "transition_last": each[0][0],
        "transition_recent": sum(w * p for w, (p, _) in zip(weights, each, strict=True)) / sum(weights),
        "transition_evidence": sum(w * c for w, (_, c) in zip(weights, each, strict=True)) / age,
    }
    expected["transition_lift"] = (expected["transition_recent"] + one) / (popular + one)
    expected["transition_lift_last"] = (expected["transition_last"] + one) / (popular + one)
    candidates = rng.permutation(45)
    found = told(model, recent, ages_s, candidates, at=at)
    assert list(found) == list(expected)
    for name, numbers in expected.items():
        np.testing.assert_allclose(found[name], numbers[candidates], rtol=1e-5, atol=1e-9, err_msg=name)


def test_from_a_host_nobody_left_without_a_prior_popularity_is_all_there_is() -> None:
    model = TransitionModel.fit(entries((0, 0, 0), (0, 1, 1), (1, 2, 2)), PLAIN, n_hosts=3)
    popularity = np.full(3, 1 / 3)
    np.testing.assert_allclose(told(model, [2], [0.0])["transition_last"], popularity, rtol=1e-4)
    both = told(model, [2, 0], [0.0, 0.0])  # nobody left the first; from the second all went to host 1
    np.testing.assert_allclose(both["transition_last"], popularity, rtol=1e-4)
    first, second = (weight for _, weight in model.config.weighted([2, 0], [0.0, 0.0]))
    expected = (first * popularity + second * np.array([0.0, 1.0, 0.0])) / (first + second)
    np.testing.assert_allclose(both["transition_recent"], expected, rtol=1e-4)


def test_askings_at_one_time_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(4)
    hosts = rng.zipf(1.3, 4_000) % 300
    users = rng.integers(0, 60, 4_000)
    frame = entries(*zip(users.tolist(), hosts.tolist(), range(4_000), strict=True))
    model = TransitionModel.fit(frame, n_hosts=300)
    askings = [(rng.choice(300, 5, replace=False).tolist(), rng.uniform(0, 1e4, 5).tolist()) for _ in range(40)]
    expected = [told(model, *asked) for asked in askings]
    different: list[int] = []

    def ask(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, len(askings), 400).tolist():
            found = told(model, *askings[i])
            if any(not np.array_equal(found[name], expected[i][name]) for name in found):
                different.append(i)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not different


def test_lift_is_one_without_evidence_and_for_new_hosts() -> None:
    model = TransitionModel.fit(entries((0, 0, 0), (0, 1, 100), (1, 2, 0), (1, 3, 100)), PLAIN)
    assert told(model, [], [], np.array([0, 3, 77]))["transition_lift"].tolist() == pytest.approx([1.0] * 3)
    lift = told(model, [0], [0.0], np.array([1, 3, 77]))["transition_lift"]
    assert lift[0] > 2 and lift[1] < 1 and lift[2] == pytest.approx(1.0)


def test_the_prior_weighs_more_as_counts_age() -> None:
    model = TransitionModel.fit(entries((0, 0, 0), (0, 1, 100), (1, 2, 100)), PLAIN.model_copy(update={"prior": 1.0}))
    fresh = chances(model, [0], [0.0], np.array([1, 2]), at=100 * US_PER_S)
    stale = chances(model, [0], [0.0], np.array([1, 2]), at=100 * US_PER_S + 20 * US_PER_DAY)
    assert fresh[0] > fresh[1] and abs(stale[0] - stale[1]) < 0.01


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
