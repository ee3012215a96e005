"""What candidates are told by transitions: the formulas, their edges, and several who ask at one time."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from recsys.events.facts import US_PER_DAY, US_PER_S
from recsys.models.transition import TransitionModel
from recsys.models.transition_counts import TransitionConfig
from tests.transitions_told import PLAIN, chances, entries, told


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
