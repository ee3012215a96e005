"""Checking, blending and choosing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

from recsys.models.collaborative import select
from recsys.models.collaborative.als import Als, AlsConfig
from recsys.models.collaborative.cosine import Cosine
from recsys.models.collaborative.ensemble import FittedBlend, candidate_pool, standardised, tuned_weights
from recsys.models.collaborative.interactions import Csr, FloatArray, Interactions, power
from recsys.models.collaborative.low_pass import LowPass, LowPassConfig
from recsys.models.collaborative.response import tuned_response
from recsys.models.collaborative.select import SelectionConfig, select_model
from recsys.models.collaborative.validation import Check, internal_check, list_gains, quality_of, top_unseen

FIXED = {"user_exponent", "host_exponent", "source_exponent", "degree"}
QUICK = SelectionConfig(k=3, draws=2, check_answers=1, low_pass_fits=4, ease_fits=4, als_fits=0, cosine_fits=0)


@dataclass
class Fixed:
    """A model that answers with the rows of a matrix, whoever asks."""

    table: FloatArray
    name: str = "fixed"

    def scores(self, histories: Csr) -> FloatArray:
        return self.table[: histories.shape[0]].copy()


def test_top_unseen_leaves_out_history_and_breaks_ties_by_row() -> None:
    scores = np.array([[5, 1, 4, 4, np.nan, 9], [0, 0, 0, 0, 0, 0]], np.float32)
    histories = sp.csr_matrix(np.array([[0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0]], np.float32))
    assert_array_equal(top_unseen(scores, histories, 3), [[0, 2, 3], [1, 2, 3]])
    assert_array_equal(top_unseen(scores, histories, 9)[0, :4], [0, 2, 3, 1])
    assert scores[0, 5] == 9, "the caller's scores are left alone"


def test_gains_by_hand() -> None:
    gains = list_gains(np.array([[True, False, True], [False, False, False]]), np.array([5, 1]))
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert_allclose(gains, [[2 / 5, 0], [(1 + 1 / 2) / ideal, 0]])


def test_quality_of_a_perfect_and_a_useless_model() -> None:
    histories = sp.csr_matrix(np.eye(4, 6, dtype=np.float32))
    relevant = sp.csr_matrix(np.eye(4, 6, k=1, dtype=np.float32))
    check = Check(histories, relevant, k=2)
    perfect = check.quality(Fixed(relevant.toarray()))
    assert (perfect.recall, perfect.ndcg) == (1, 1)
    useless = check.quality(Fixed(-relevant.toarray()))
    assert (useless.recall, useless.ndcg) == (0, 0)


def test_an_exponent_is_tuned_as_if_all_hosts_were_ordered(noisy) -> None:
    draw = internal_check(noisy, share=0.3, max_users=50, k=4, seed=0)
    rest, check = draw.train, draw.check
    table = np.random.default_rng(2).random((check.histories.shape[0], 30)).astype(np.float32)
    degrees = rest.host_degrees()
    exponents = (-0.5, 0.0, 0.7)
    expected = [check.quality(Fixed(table * power(degrees, exponent))) for exponent in exponents]
    assert check.qualities(Fixed(table), degrees, exponents) == expected
    assert expected[0] != expected[2]


def test_internal_check_asks_only_users_with_something_kept_back(noisy) -> None:
    draw = internal_check(noisy, share=0.2, max_users=10, k=5, seed=0)
    rest, check = draw.train, draw.check
    assert check.histories.shape == check.relevant.shape == (10, 30)
    assert rest.n_pairs + check.relevant.nnz == noisy.n_pairs
    assert (np.diff(check.relevant.indptr) > 0).all()
    assert check.histories.multiply(check.relevant).nnz == 0
    assert rest.n_users == noisy.n_users


def test_internal_check_leaves_the_graph_whole_where_histories_are_short() -> None:
    users = np.repeat(np.arange(400), 2)
    short = Interactions.from_rows(users, np.arange(800) % 30, n_users=400, n_hosts=30)
    draw = internal_check(short, share=0.05, max_users=400, k=5, seed=0)
    rest, check = draw.train, draw.check
    assert len(check.histories.indptr) - 1 == 40  # one of two hosts each: 40 pairs are a twentieth of 800
    assert short.n_pairs - rest.n_pairs == check.relevant.nnz == 40


def test_standardised_rows() -> None:
    rows = standardised(np.array([[1, 2, 3, 6], [2, 2, 2, 2]], np.float32))
    assert_allclose(rows.mean(axis=1), [0, 0], atol=1e-6)
    assert_allclose(rows.std(axis=1), [1, 0], atol=1e-6)


def test_weights_favour_the_member_that_knows() -> None:
    """One member is right about even users and noise elsewhere, the other the reverse: together they beat both."""
    rng = np.random.default_rng(0)
    truth = np.zeros((40, 50), np.float32)
    truth[np.arange(40), rng.integers(1, 50, 40)] = 1
    histories = sp.csr_matrix((np.ones(40, np.float32), (np.arange(40), np.zeros(40, int))), shape=(40, 50))
    tables = []
    for parity in (0, 1):
        table = rng.random((40, 50)).astype(np.float32)
        table[parity::2] += 5 * truth[parity::2]
        tables.append(table)
    check = Check(histories, sp.csr_matrix(truth), k=1)
    members = [Fixed(tables[0]), Fixed(tables[1])]
    weights, quality = tuned_weights([candidate_pool(members, check)], start=(1, 1))
    assert weights[0] == 1
    assert weights[1] > 0
    assert quality.recall > max(check.quality(member).recall for member in members) + 0.2
    blended = check.quality(FittedBlend(tuple(members), weights))
    assert_allclose([blended.recall, blended.ndcg], [quality.recall, quality.ndcg], atol=1e-6)


def test_better_is_better_by_more_than_luck() -> None:
    base = np.zeros((2, 100))
    noisy = base + np.tile([1.1, -1.0], 50)  # .05 better on average, the standard error is .105
    assert not quality_of(noisy).beats(quality_of(base))
    assert quality_of(np.tile(noisy, 5)).beats(quality_of(np.tile(base, 5)))  # with five times the users it is .047
    assert not quality_of(base).beats(quality_of(base))


def test_weights_stay_where_they_begin_without_evidence() -> None:
    """Members alike in quality: an ascent would find some better weights for these few users, by luck."""
    rng = np.random.default_rng(1)
    truth = np.zeros((40, 50), np.float32)
    truth[np.arange(40), rng.integers(1, 50, 40)] = 1
    histories = sp.csr_matrix((np.ones(40, np.float32), (np.arange(40), np.zeros(40, int))), shape=(40, 50))
    members = [Fixed(rng.normal(size=(40, 50)).astype(np.float32) + 3 * truth) for _ in range(2)]
    pool = candidate_pool(members, Check(histories, sp.csr_matrix(truth), k=3))
    assert max(pool.quality((1, step)).objective for step in (0.5, 0.75, 1.5, 2.5)) > pool.quality((1, 1)).objective
    assert tuned_weights([pool], start=(1, 1))[0] == (1, 1)


def test_noise_gets_no_weight() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((200, 50), np.float32)
    truth[np.arange(200), rng.integers(1, 50, 200)] = 1
    histories = sp.csr_matrix((np.ones(200, np.float32), (np.arange(200), np.zeros(200, int))), shape=(200, 50))
    knows, noise = (Fixed(rng.normal(size=(200, 50)).astype(np.float32) + level * truth) for level in (3, 0))
    pool = candidate_pool([knows, noise], Check(histories, sp.csr_matrix(truth), k=1))
    weights, _ = tuned_weights([pool], start=(1, 1))
    assert weights[1] <= 0.2 * weights[0]


def test_selection_finds_the_blocks_and_is_deterministic(blocks) -> None:
    interactions, _ = blocks
    first, second = (select_model(interactions, QUICK, seed=7) for _ in range(2))
    assert first == second
    assert first.quality is not None
    assert first.quality.recall > 0.5
    assert sum(trial.model == "ease" for trial in first.trials) <= 4
    assert sum(trial.model == "low_pass" for trial in first.trials) <= 4


@pytest.mark.parametrize(
    ("bounds", "settings", "weights"),
    [
        ({"check_answers": 20_000}, 19, 2 * 19),
        ({"check_answers": 1}, 19, 19),
        ({"check_answers": 20_000, "check_cells": 19 * 40}, 19, 19),
        ({"check_answers": 1, "check_users": 10}, 10, 9),
        ({"check_answers": 19, "check_users": 10}, 10, 9 + 10),
        ({"check_answers": 20_000, "check_cells": 10 * 40}, 10, 9),
    ],
)
def test_weights_have_users_of_their_own_drawn_again_as_far_as_cells_allow(
    blocks, bounds: dict[str, int], settings: int, weights: int
) -> None:
    config = QUICK.model_copy(update={"draws": 3, "als_fits": 1} | bounds)
    selection = select_model(blocks[0], config, seed=7)
    asked = [trial.quality.gains.shape[1] for trial in selection.trials]
    assert dict(zip((trial.model for trial in selection.trials), asked, strict=True)) == {
        "low_pass": settings, "ease": settings, "als": settings, "neighbours": settings, "blend": weights,
    }  # fmt: skip
    assert selection == select_model(blocks[0], config, seed=7)


def test_others_are_asked_of_the_same_ties(noisy) -> None:
    draw = internal_check(noisy, share=0.1, max_users=7, k=4, seed=0, max_others=5)
    assert (draw.check.histories.shape[0], draw.others.histories.shape[0]) == (7, 5)
    assert noisy.n_pairs - draw.train.n_pairs == draw.check.relevant.nnz + draw.others.relevant.nnz
    for check in (draw.check, draw.others):
        assert check.histories.multiply(check.relevant).nnz == 0


@pytest.mark.parametrize(("affordable", "fits"), [(0.9, 0), (2.5, 2)])
def test_ease_is_fitted_as_often_as_its_cubes_allow(blocks, affordable: float, fits: int) -> None:
    interactions, _ = blocks
    config = QUICK.model_copy(update={"ease_tera_ops": affordable * 40**3 / 1e12})
    trials = select_model(interactions, config, seed=7).trials
    assert [trial.model for trial in trials].count("ease") == fits


def test_the_fitted_model_is_the_chosen_one(blocks) -> None:
    interactions, _ = blocks
    selection = select_model(interactions, QUICK.model_copy(update={"check_users": 10}), seed=7)
    check = internal_check(interactions, share=0.05, max_users=10, k=3, seed=7, max_others=10).others
    assert selection.fitted is not None
    assert selection.quality is not None
    assert selection.fitted.name == selection.model.name
    found = check.quality(selection.fitted)
    assert_allclose([found.recall, found.ndcg], [selection.quality.recall, selection.quality.ndcg], atol=1e-6)


def test_a_response_found_on_the_pool_is_as_good_on_all_hosts(noisy) -> None:
    draw = internal_check(noisy, share=0.3, max_users=50, k=4, seed=0)
    rest, check = draw.train, draw.check
    start = LowPass(LowPassConfig(cutoff=0.9, target_exponent=-0.3))
    operator = start.operator(rest, 0)
    config, quality = tuned_response(operator, check)
    assert config.model_dump(include=FIXED) == start.config.model_dump(include=FIXED)
    exact = check.quality(replace(operator, config=config))
    assert_allclose([quality.recall, quality.ndcg], [exact.recall, exact.ndcg], atol=1e-9)
    assert quality.objective > check.quality(operator).objective


def test_als_takes_part(blocks) -> None:
    interactions, _ = blocks
    trials = select_model(interactions, QUICK.model_copy(update={"als_fits": 2}), seed=7).trials
    assert [trial.model for trial in trials[-4:]] == ["als", "als", "neighbours", "blend"]
    assert trials[-4].settings["factors"] != trials[-3].settings["factors"]


@pytest.mark.parametrize(
    ("affordable", "most", "first", "fits"), [(100, 512, 16, 5), (100, 8, 8, 5), (3.5, 512, 8, 3), (0.1, 512, 4, 1)]
)
def test_als_has_more_factors_where_there_are_many_hosts_and_its_work_allows_it(
    blocks, monkeypatch: pytest.MonkeyPatch, affordable: float, most: int, first: int, fits: int
) -> None:
    monkeypatch.setattr(select, "_ALS_FACTORS", 4)
    monkeypatch.setattr(select, "_HOSTS_OF_ALS_FACTORS", 2)  # 40 hosts are 20 times as many: two fourfolds
    train = internal_check(blocks[0], share=QUICK.held_out_share, max_users=60, k=3, seed=7).train
    tera_ops = affordable * Als(AlsConfig(factors=8)).work(train) / 1e12
    bounds = {"als_fits": 5, "als_max_factors": most, "als_tera_ops": tera_ops}
    tried = [t for t in select_model(blocks[0], QUICK.model_copy(update=bounds), seed=7).trials if t.model == "als"]
    assert len(tried) == fits
    assert tried[0].settings["factors"] == first
    assert max(trial.settings["factors"] for trial in tried) <= most


@pytest.mark.parametrize(("affordable", "fits"), [(0.5, 0), (2.5, 2), (100, 3)])
def test_the_cosine_softmax_is_fitted_as_often_as_its_work_allows(blocks, affordable: float, fits: int) -> None:
    interactions, _ = blocks
    bounds = {"cosine_fits": 3, "cosine_tera_ops": affordable * Cosine().work(interactions) / 1e12}
    trials = select_model(interactions, QUICK.model_copy(update=bounds), seed=7).trials
    assert len([trial for trial in trials if trial.model == "cosine"]) == fits


def test_neighbours_take_part(blocks) -> None:
    trials = select_model(blocks[0], QUICK, seed=7).trials
    assert [trial.model for trial in trials].count("neighbours") == 1
    assert "neighbours" in trials[-1].settings


def test_neighbours_stay_within_their_bounds(blocks) -> None:
    interactions, _ = blocks
    pairs = float((interactions.matrix.getnnz(axis=1) ** 2).sum())

    def trials(**bounds: float) -> list[dict[str, object]]:
        tried = select_model(interactions, QUICK.model_copy(update=bounds), seed=7).trials
        return [trial.settings for trial in tried if trial.model == "neighbours"]

    assert trials(neighbour_giga_ops=pairs * 0.99 / 1e9) == []
    assert len(trials(neighbour_giga_ops=pairs / 1e9)) == 1
    assert trials(neighbour_entries=40 * 3)[0]["neighbours"] == 3  # of 40 hosts each


def test_nothing_to_keep_back() -> None:
    lonely = Interactions.from_rows(np.arange(4), np.array([0, 0, 1, 2]), n_users=4, n_hosts=3)
    selection = select_model(lonely, QUICK, seed=0)
    assert selection.model.name == "low_pass"
    assert selection.quality is None


@pytest.mark.parametrize("module", ["interactions", "ease", "low_pass", "response", "select", "fold_in"])
def test_only_the_border_module_meets_implicit(module: str) -> None:
    import subprocess
    import sys

    code = (
        f"import recsys.models.collaborative.{module}, sys; sys.exit(bool({{'implicit', 'torch'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
