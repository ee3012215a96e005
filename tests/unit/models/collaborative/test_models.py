"""Every model against planted blocks, brute force and itself."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError

from recsys.models.collaborative.als import Als, AlsConfig
from recsys.models.collaborative.ease import Ease, EaseConfig
from recsys.models.collaborative.ensemble import Blend
from recsys.models.collaborative.graph_filter import GraphFilter, GraphFilterConfig
from recsys.models.collaborative.interactions import Interactions
from recsys.models.collaborative.validation import top_unseen

SMALL_ALS = AlsConfig(factors=4, iterations=8, confidence=5, regularization=0.01, cg_steps=8)
MODELS = [
    GraphFilter(),
    Ease(EaseConfig(regularization=20)),
    Ease(EaseConfig(regularization=20, dense_hosts=1, neighbours=10)),
    Als(SMALL_ALS),
    Blend((GraphFilter(), Ease(EaseConfig(regularization=20))), (0.5, 1.0)),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
class TestEveryModel:
    def test_recommends_the_users_block(self, model, blocks) -> None:
        interactions, same = blocks
        scores = model.fit(interactions, 0).scores(interactions.matrix)
        top = top_unseen(scores, interactions.matrix, 1)[:, 0]
        counts = np.diff(interactions.matrix.indptr)
        askable = (counts > 0) & (counts < same.sum(axis=1))
        assert askable.sum() > 50
        assert same[np.flatnonzero(askable), top[askable]].all()

    def test_shape_dtype_and_finite(self, model, noisy) -> None:
        scores = model.fit(noisy, 0).scores(noisy.matrix[:7])
        assert scores.shape == (7, 30)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()

    def test_same_seed_same_scores(self, model, noisy) -> None:
        first, second = (model.fit(noisy, 5).scores(noisy.matrix) for _ in range(2))
        assert_array_equal(first, second)

    def test_knows_histories_not_users(self, model, noisy) -> None:
        """A stranger with the history of a trained user gets his scores, alone or in company."""
        fitted = model.fit(noisy, 0)
        together = fitted.scores(noisy.matrix)
        alone = fitted.scores(sp.csr_matrix(noisy.matrix[[4]]))
        assert_allclose(alone[0], together[4], rtol=2e-5, atol=1e-5)

    def test_empty_history_gives_a_constant_row(self, model, noisy) -> None:
        scores = model.fit(noisy, 0).scores(sp.csr_matrix((1, 30), dtype=np.float32))
        assert_array_equal(scores, np.full((1, 30), scores[0, 0]))

    def test_a_host_without_ties_and_a_user_without_ties(self, model) -> None:
        interactions = Interactions.from_rows(
            np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 0]), n_users=4, n_hosts=5
        )
        assert np.isfinite(model.fit(interactions, 0).scores(interactions.matrix)).all()


class TestEase:
    def brute_force(self, dense: np.ndarray, penalty: float) -> np.ndarray:
        """Each host regressed on all others on its own, in double precision."""
        n = dense.shape[1]
        weights = np.zeros((n, n))
        for host in range(n):
            others = np.delete(np.arange(n), host)
            X = dense[:, others]
            solved = np.linalg.solve(X.T @ X + penalty * np.eye(n - 1), X.T @ dense[:, host])
            weights[others, host] = solved
        return weights

    @pytest.mark.parametrize("transposed", [False, True], ids=["more users", "more hosts"])
    def test_equals_one_regression_per_host(self, noisy, transposed) -> None:
        dense = noisy.matrix.toarray().astype(np.float64)
        dense = dense.T if transposed else dense
        users, hosts = np.nonzero(dense)
        interactions = Interactions.from_rows(users, hosts, n_users=dense.shape[0], n_hosts=dense.shape[1])
        config = EaseConfig(regularization=8, user_exponent=0, host_exponent=0, target_exponent=0)
        weights = Ease(config).fit(interactions).weights
        assert_allclose(weights, self.brute_force(dense, 8), atol=2e-5)

    @pytest.mark.parametrize("transposed", [False, True], ids=["more users", "more hosts"])
    def test_degree_scaling_is_regression_on_the_scaled_graph(self, noisy, transposed) -> None:
        dense = noisy.matrix.toarray().astype(np.float64)
        dense = dense.T if transposed else dense
        users, hosts = np.nonzero(dense)
        interactions = Interactions.from_rows(users, hosts, n_users=dense.shape[0], n_hosts=dense.shape[1])
        user_degrees, host_degrees = dense.sum(axis=1), dense.sum(axis=0)
        graph = dense * np.maximum(user_degrees, 1)[:, None] ** -0.25 * host_degrees**-0.4
        penalty = 10 * np.mean(graph[graph > 0] ** 2)
        expected = host_degrees[:, None] ** -0.4 * self.brute_force(graph, penalty) * host_degrees**0.1
        config = EaseConfig(regularization=10, user_exponent=0.25, host_exponent=0.4, target_exponent=0.1)
        assert_allclose(Ease(config).fit(interactions).weights, expected, atol=2e-5)

    def test_pruning_keeps_the_largest_of_each_row(self, noisy) -> None:
        full = Ease(EaseConfig()).fit(noisy).weights
        pruned = Ease(EaseConfig(dense_hosts=1, neighbours=5)).fit(noisy).weights.toarray()
        kept = pruned != 0
        assert (kept.sum(axis=1) == 5).all()
        assert_array_equal(pruned[kept], full[kept])
        for row in range(30):
            assert np.abs(full[row][kept[row]]).min() >= np.abs(full[row][~kept[row]]).max()


class TestGraphFilter:
    def test_equals_the_dense_product(self, noisy) -> None:
        dense = noisy.matrix.toarray().astype(np.float64)
        users, hosts = dense.sum(axis=1), dense.sum(axis=0)
        expected = (dense * hosts**-0.7).T @ (dense * np.maximum(users, 1)[:, None] ** -0.5 * hosts**-0.2)
        np.fill_diagonal(expected, 0)
        config = GraphFilterConfig(user_exponent=0.5, source_exponent=0.7, target_exponent=0.2)
        assert_allclose(GraphFilter(config).fit(noisy).weights.toarray(), expected, rtol=1e-5, atol=1e-7)


class TestAls:
    def test_frequency_scaled_steps_reach_the_minimum(self, noisy) -> None:
        """After many steps folding a user in again gives the factors training left him with."""
        config = AlsConfig(factors=4, iterations=60, confidence=5, regularization=0.05, cg_steps=12)
        fitted = Als(config).fit(noisy, 1)
        assert_allclose(fitted.fold_in(noisy.matrix), fitted.user_factors, atol=0.02)

    def test_threads_change_nothing(self, noisy) -> None:
        one, two = (Als(SMALL_ALS.model_copy(update={"threads": n})).fit(noisy, 2) for n in (1, 2))
        assert_allclose(one.host_factors, two.host_factors, rtol=1e-5, atol=1e-6)


def test_configs_refuse_unknown_keys() -> None:
    for config in (EaseConfig, GraphFilterConfig, AlsConfig):
        with pytest.raises(ValidationError, match="regularisation_typo"):
            config.model_validate({"regularisation_typo": 1})
