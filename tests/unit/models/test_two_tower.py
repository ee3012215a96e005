"""The two-tower model: planted tastes are found, numpy says what torch said, examples hold nothing of the future."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch

from recsys.config import TowerConfig
from recsys.events.facts import US_PER_DAY, FactKind
from recsys.models.two_tower import HALF_LIVES_DAYS, TwoTower
from recsys.models.two_tower_training import Examples, _Towers, fit_two_tower
from training.towers import examples_of

N_HOSTS = 20
NO_TIERS = np.zeros(0, dtype=np.int8)
QUICK = TowerConfig(dimensions=8, attention_heads=2, epochs=4, batch=256, negatives=6, shared_negatives=16)


def planted(n: int = 3000, seed: int = 0) -> Examples:
    """Two tastes of ten hosts; a viewer's next host is of the taste he came to lately, not of the one of long ago."""
    rng = np.random.default_rng(seed)
    late, early = rng.integers(0, 2, n), rng.integers(0, 2, n)
    history = np.stack([10 * late + rng.integers(0, 10, n), 10 * early + rng.integers(0, 10, n)], axis=1)
    history[:, 1] = np.where(history[:, 0] == history[:, 1], (history[:, 1] + 1) % 10 + 10 * early, history[:, 1])
    counts = np.zeros((n, 2, len(HALF_LIVES_DAYS)), dtype=np.float32)
    counts[:, 0] = 1.0
    counts[:, 1, -1] = 1.0
    return Examples(
        host=10 * late + rng.integers(0, 10, n),
        at_us=rng.integers(0, US_PER_DAY, n),
        tier=np.zeros(n, dtype=np.int64),
        starts=2 * np.arange(n + 1),
        history=history.ravel(),
        counts=counts.reshape(-1, len(HALF_LIVES_DAYS)),
        others=rng.integers(0, N_HOSTS, (n, 6)),
        correction=np.full((n, 6), np.log(19 / 6), dtype=np.float32),
    )


@pytest.fixture(scope="module")
def tower() -> TwoTower:
    return fit_two_tower(planted(), np.zeros(N_HOSTS, dtype=np.int64), NO_TIERS, QUICK, 1, 1)


def test_the_late_taste_is_found_and_the_early_one_forgotten(tower: TwoTower) -> None:
    late = np.concatenate([np.ones((1, 5)), [[0, 0, 0, 0, 1.0]]])
    vector = tower.viewer(np.array([3, 14]), late, 0)
    scores = tower.score(vector, np.arange(N_HOSTS))
    assert scores[:10].min() > scores[10:].max()
    swapped = tower.score(tower.viewer(np.array([3, 14]), late[::-1], 0), np.arange(N_HOSTS))
    assert swapped[10:].min() > swapped[:10].max()


def test_the_seed_decides() -> None:
    quick = QUICK.model_copy(update={"epochs": 1})
    a, b, c = (
        fit_two_tower(planted(400), np.zeros(N_HOSTS, dtype=np.int64), NO_TIERS, quick, seed, 1).hosts
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_numpy_says_what_torch_said() -> None:
    torch.manual_seed(0)
    category = np.arange(N_HOSTS) % 3
    data = planted(40)
    towers = _Towers(category, 1 + int(data.tier.max()), data.counts.shape[1], QUICK)
    with torch.no_grad():
        for parameter in (towers.hours, towers.category_hosts, towers.category_history):
            parameter.normal_()
        slot = data.at_us // (US_PER_DAY // 8)
        want = towers.viewer(*map(torch.from_numpy, (data.starts, data.history, data.counts, slot, data.tier))).numpy()
        scores = (towers.host(torch.arange(N_HOSTS)) @ torch.cat([torch.from_numpy(want[5]), torch.ones(1)])).numpy()
    exported = towers.export(NO_TIERS)
    for i in range(40):
        pairs = slice(2 * i, 2 * i + 2)
        got = exported.viewer(data.history[pairs], data.counts[pairs], int(data.at_us[i]))
        np.testing.assert_allclose(got, want[i], rtol=1e-4, atol=1e-5)
    got = exported.score(want[5], np.arange(N_HOSTS))
    np.testing.assert_allclose(got, scores, rtol=1e-4, atol=1e-5)


def test_a_viewer_of_a_tier_no_example_is_of_has_a_vector() -> None:
    tiers = np.array([0, 3], dtype=np.int8)
    quick = QUICK.model_copy(update={"epochs": 1})
    tower = fit_two_tower(planted(400), np.zeros(N_HOSTS, dtype=np.int64), tiers, quick, 1, 1)
    nothing = np.empty(0, dtype=np.int64), np.empty((0, len(HALF_LIVES_DAYS))), 0
    np.testing.assert_array_equal(tower.viewer(*nothing, user=1), tower.hours[0])  # nothing was learnt of his tier


def test_it_comes_back_from_its_arrays_and_speaks_the_collaborative_protocol(tower: TwoTower) -> None:
    again = TwoTower.from_arrays(tower.arrays())
    histories = sp.csr_matrix((np.log1p([4.0, 1.0]), ([0, 1], [2, 15])), shape=(3, N_HOSTS), dtype=np.float32)
    scores = again.scores(histories)
    assert scores.shape == (3, N_HOSTS) and again.name == "two_tower"
    np.testing.assert_array_equal(scores, tower.scores(histories))
    assert scores[0, :10].mean() > scores[0, 10:].mean() and scores[1, 10:].mean() > scores[1, :10].mean()


def test_new_viewers_and_new_hosts_have_vectors(tower: TwoTower) -> None:
    nobody = tower.viewer(np.empty(0, dtype=np.int64), np.empty((0, 5)), 0)
    assert np.isfinite(nobody).all()
    np.testing.assert_array_equal(tower.viewer(np.array([N_HOSTS + 3]), np.ones((1, 5)), 0), nobody)
    new, known = tower.score(nobody, np.array([N_HOSTS + 3, 0]))
    assert np.isfinite([new, known]).all() and new == pytest.approx(float(tower.of_category[0] @ np.append(nobody, 1)))


def told(rows: list[tuple[FactKind, int, int, float]]) -> pl.DataFrame:
    """kind, user, host, hour."""
    hours = [(int(kind), user, host, round(hour * US_PER_DAY / 24)) for kind, user, host, hour in rows]
    return pl.DataFrame(hours, schema=["kind", "user", "host", "at"], orient="row")


ENTRY, SHOWN = FactKind.ENTRY, FactKind.IMPRESSION


def test_examples_know_the_past_only_and_choose_among_rooms_live_then() -> None:
    rooms = pl.DataFrame(
        {
            "host": [0, 1, 2, 3],
            "started_at": [0, 0, 9 * US_PER_DAY // 24, 0],
            "ended_at": [None, None, None, 5 * US_PER_DAY // 24],
        }
    )
    rows = [
        (ENTRY, 7, 0, 1),
        (ENTRY, 7, 0, 2),
        (ENTRY, 7, 1, 8),
        (ENTRY, 7, 0, 8),
        (ENTRY, 8, 1, 8),
        (SHOWN, 8, 0, 7.9),
    ]
    found = examples_of(told(rows), rooms, 100, 8, np.random.default_rng(0))
    of = {
        (int(found.at_us[i] * 24 // US_PER_DAY), int(found.host[i]), int(found.starts[i + 1] - found.starts[i])): i
        for i in range(len(found))
    }
    assert set(of) == {(1, 0, 0), (2, 0, 1), (8, 1, 1), (8, 0, 1), (8, 1, 0)}
    others = {key: sorted(h for h in found.others[i].tolist() if h >= 0) for key, i in of.items()}
    assert others == {(1, 0, 0): [1, 3], (2, 0, 1): [1, 3], (8, 1, 1): [0], (8, 0, 1): [1], (8, 1, 0): [0]}
    at_eight = found.starts[of[8, 1, 1]]
    ages = np.array([7.0, 6.0]) / 24
    want = [np.exp2(-ages / half_life).sum() for half_life in HALF_LIVES_DAYS]
    np.testing.assert_allclose(found.counts[at_eight], want, rtol=1e-6)
    assert found.history[at_eight] == 0 and not found.correction.any()


def test_a_sample_of_the_live_rooms_is_corrected_for() -> None:
    rooms = pl.DataFrame(
        {"host": range(41), "started_at": [0] * 41, "ended_at": [None] * 41}, schema_overrides={"ended_at": pl.Int64}
    )
    found = examples_of(told([(SHOWN, 1, 5, 0.95), (ENTRY, 1, 0, 1)]), rooms, 10, 5, np.random.default_rng(0))
    assert found.others[0, 0] == 5 and found.correction[0, 0] == 0.0, "shown and not entered: always there"
    assert len(set(found.others[0].tolist())) == 5 and 0 not in found.others[0]
    np.testing.assert_allclose(found.correction[0, 1:], np.log(39 / 4), rtol=1e-6)


def test_rooms_shown_take_half_of_the_places_at_most() -> None:
    rooms = pl.DataFrame(
        {"host": range(9), "started_at": [0] * 9, "ended_at": [None] * 9}, schema_overrides={"ended_at": pl.Int64}
    )
    shown = [(SHOWN, 1, host, 0.95) for host in (5, 6, 7)]
    for places, kept in ((4, {6, 7}), (1, set())):
        found = examples_of(told([*shown, (ENTRY, 1, 0, 1)]), rooms, 10, places, np.random.default_rng(0))
        certain = found.others[0][found.correction[0] == 0.0].tolist()
        assert set(certain) == kept and found.others.shape == (1, places) and found.others.min() > 0


class _Litter(ctypes.Structure):
    """Signalling NaNs, passed by value: the call copies them onto the stack and leaves them there."""

    _fields_ = (("words", ctypes.c_uint32 * 2**14),)


def test_what_others_left_on_the_stack_makes_no_warning(tower: TwoTower) -> None:
    litter = _Litter((ctypes.c_uint32 * 2**14)(*[0x7FA00000] * 2**14))
    for n in (1, 2, 3, 4):  # hosts of the history; of one the product is that of a vector
        ctypes.CDLL(None).getpid(litter)
        assert np.isfinite(tower.viewer(np.arange(n), np.ones((n, 5)), 0)).all()


def test_weights_that_are_not_finite_do_not_pass_in_silence(tower: TwoTower) -> None:
    mix = tower.mix.copy()
    mix[0, 0] = np.inf
    for n in (1, 2):
        with pytest.raises(RuntimeWarning, match="matmul"):
            replace(tower, mix=mix).viewer(np.arange(n), np.eye(n, 5, k=1), 0)
