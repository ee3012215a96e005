"""Every model against planted blocks, brute force and itself."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError

from recsys.models.collaborative import low_pass
from recsys.models.collaborative.als import Als, AlsConfig, AlsFactors
from recsys.models.collaborative.cosine import Cosine, CosineConfig
from recsys.models.collaborative.ease import Ease, EaseConfig
from recsys.models.collaborative.ensemble import Blend
from recsys.models.collaborative.interactions import Interactions
from recsys.models.collaborative.low_pass import LowPass, LowPassConfig, coefficients
from recsys.models.collaborative.neighbours import Neighbours, NeighboursConfig
from recsys.models.collaborative.validation import top_unseen

SMALL_ALS = AlsConfig(factors=4, iterations=8, confidence=5, regularization=0.01, cg_steps=8)
MODELS = [
    LowPass(),
    LowPass(LowPassConfig(dense_hosts=0, cutoff=0.05)),
    Ease(EaseConfig(regularization=20)),
    Ease(EaseConfig(regularization=20, dense_hosts=1, neighbours=10)),
    Als(SMALL_ALS),
    Neighbours(),
    Cosine(CosineConfig(factors=8)),
    Blend((LowPass(), Ease(EaseConfig(regularization=20))), (0.5, 1.0)),
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


class TestNeighbours:
    def test_a_power_of_the_similarity_of_the_scaled_graph(self, noisy) -> None:
        dense = noisy.matrix.toarray().astype(np.float64)
        users, hosts = np.maximum(dense.sum(axis=1), 1), dense.sum(axis=0)
        graph = users[:, None] ** -0.2 * dense
        expected = (hosts[:, None] ** -0.4 * (graph.T @ graph) * hosts**-0.3) ** 1.5
        np.fill_diagonal(expected, 0)
        config = NeighboursConfig(user_exponent=0.2, source_exponent=0.4, target_exponent=0.3, sharpness=1.5)
        weights = Neighbours(config).fit(noisy).weights
        assert_allclose(weights.toarray(), expected, rtol=1e-5)

    def test_only_the_closest_are_kept(self, noisy) -> None:
        full = Neighbours().fit(noisy).weights.toarray()
        pruned = Neighbours(NeighboursConfig(neighbours=4)).fit(noisy).weights.toarray()
        for whole, kept in zip(full, pruned, strict=True):
            assert_array_equal(np.sort(kept[kept > 0]), np.sort(whole)[-4:])


class TestLowPass:
    def spectrum(self, interactions: Interactions, user_exponent: float, host_exponent: float):
        """The Gram matrix of the scaled graph over its largest eigenvalue, in double precision."""
        dense = interactions.matrix.toarray().astype(np.float64)
        users, hosts = np.maximum(dense.sum(axis=1), 1), dense.sum(axis=0)
        graph = users[:, None] ** -user_exponent * dense * hosts**-host_exponent
        gram = graph.T @ graph
        return gram / np.linalg.eigvalsh(gram)[-1], hosts

    def test_is_ridge_regression_of_the_graph_on_itself(self, noisy) -> None:
        gram, hosts = self.spectrum(noisy, 0.3, 0.4)
        ridge = np.linalg.solve(gram + 0.25 * np.eye(30), gram)
        expected = hosts[:, None] ** -0.1 * ridge.T * hosts**0.2
        config = LowPassConfig(
            user_exponent=0.3,
            host_exponent=0.4,
            source_exponent=0.1,
            target_exponent=0.2,
            cutoff=0.25,
            degree=16,
        )
        weights = LowPass(config).fit(noisy, 0).weights
        assert_allclose(weights, expected, atol=0.03 * np.abs(expected).max())  # the norm is an upper estimate
        assert np.corrcoef(weights.ravel(), expected.ravel())[0, 1] > 0.9999

    def test_response_is_half_at_the_cutoff(self) -> None:
        points = np.array([0.02, 0.3, 1.0])
        shares = coefficients(LowPassConfig(cutoff=0.3, degree=25))
        assert_allclose(np.polynomial.chebyshev.chebval(2 * points - 1, shares), points / (points + 0.3), atol=1e-4)

    def test_written_out_or_not_gives_the_same_scores(self, noisy) -> None:
        written, steps = (LowPass(LowPassConfig(dense_hosts=n)).fit(noisy, 0) for n in (30, 29))
        assert type(written) is not type(steps)
        assert_allclose(written.scores(noisy.matrix), steps.scores(noisy.matrix), rtol=1e-4, atol=1e-5)

    def test_blocks_and_threads_change_nothing(self, noisy, monkeypatch) -> None:
        whole = LowPass(LowPassConfig(dense_hosts=0)).fit(noisy, 0).scores(noisy.matrix)
        monkeypatch.setattr(low_pass, "_BLOCK_CELLS", 90)
        blocks = LowPass(LowPassConfig(dense_hosts=0, threads=2)).fit(noisy, 0).scores(noisy.matrix)
        assert_allclose(blocks, whole, rtol=1e-5, atol=1e-6)

    def test_the_norm_keeps_every_eigenvalue_within_the_filter(self, noisy) -> None:
        operator = LowPass().operator(noisy, 3)
        eigenvalues = np.linalg.eigvals((operator.back @ operator.there).toarray()).real
        assert 0.97 < eigenvalues.max() <= 1


class TestAls:
    def test_frequency_scaled_steps_reach_the_minimum(self, noisy) -> None:
        """After many steps folding a user in again gives the factors training left him with."""
        config = AlsConfig(factors=4, iterations=60, confidence=5, regularization=0.05, cg_steps=12)
        fitted = Als(config).fit(noisy, 1)
        assert_allclose(fitted.fold_in(noisy.matrix), fitted.user_factors, atol=0.02)

    def test_the_default_penalty_of_many_hosts_grows_with_their_root(self) -> None:
        assert AlsConfig.suited_to(2_000, factors=8) == AlsConfig(factors=8)
        penalty = [AlsConfig.suited_to(n).regularization * n for n in (2_000, 8_000, 200_000)]
        assert_allclose(penalty, [40, 80, 400])

    def test_goes_on_from_a_start(self, noisy) -> None:
        """One more step from a fitted model lands closer to the minimum than one step from nothing."""
        config = AlsConfig(factors=4, iterations=40, confidence=5, regularization=0.05, cg_steps=8)
        fitted = Als(config).fit(noisy, 1)
        once = Als(config.model_copy(update={"iterations": 1}))
        target = fitted.scores(noisy.matrix)
        cold, warm = (once.fit(noisy, 9, start).scores(noisy.matrix) for start in (None, fitted))
        assert np.abs(warm - target).max() < 0.2 * np.abs(cold - target).max()

    def test_hosts_new_since_the_start_are_learnt(self, blocks) -> None:
        interactions, same = blocks
        before = Als(SMALL_ALS).fit(Interactions(interactions.matrix[:, :30]), 0)
        scores = Als(SMALL_ALS).fit(interactions, 0, before).scores(interactions.matrix)
        assert scores[:, 30:][same[:, 30:]].mean() > 3 * scores[:, 30:][~same[:, 30:]].mean()

    def test_refuses_a_start_it_cannot_go_on_from(self, noisy) -> None:
        fitted = Als(SMALL_ALS).fit(noisy, 0)
        with pytest.raises(ValueError, match="30 hosts with 4 factors for 30 with 5"):
            Als(SMALL_ALS.model_copy(update={"factors": 5})).fit(noisy, 0, fitted)
        with pytest.raises(ValueError, match="30 hosts with 4 factors for 20 with 4"):
            Als(SMALL_ALS).fit(Interactions(noisy.matrix[:, :20]), 0, fitted)
        with pytest.raises(ValueError, match="from the model ease"):
            Als(SMALL_ALS).fit(noisy, 0, Ease().fit(noisy))

    def test_threads_change_nothing(self, noisy) -> None:
        one, two = (Als(SMALL_ALS.model_copy(update={"threads": n})).fit(noisy, 2) for n in (1, 2))
        assert_allclose(one.host_factors, two.host_factors, rtol=1e-5, atol=1e-6)
        assert_allclose(one.fold_in(noisy.matrix), two.fold_in(noisy.matrix), rtol=1e-4, atol=1e-5)

    def test_a_warm_start_needs_fewer_iterations(self) -> None:
        """From the factors of the night before, which lacks some ties and two hosts, the loss is as good sooner."""
        rng = np.random.default_rng(3)
        taste, kind = rng.normal(size=(400, 6)), rng.normal(size=(60, 6))
        dense = np.where(taste @ kind.T + rng.normal(size=(400, 60)) > 3, 1 + rng.random((400, 60)), 0)
        yesterday = dense * (rng.random(dense.shape) > 0.03)
        yesterday[:, 58:] = 0
        today, before = (Interactions(sp.csr_matrix(part.astype(np.float32))) for part in (dense, yesterday))
        config = AlsConfig(factors=6, iterations=8)
        start = Als(config).fit(before, 1).host_factors.copy()
        start[58:] = np.nan
        loss = {
            (n, warm is not None): _loss(Als(config.model_copy(update={"iterations": n})).fit(today, 2, warm), dense)
            for n, warm in ((8, None), (3, None), (3, start))
        }
        assert loss[3, True] <= loss[8, False] * 1.001
        assert loss[3, False] > loss[8, False] * 1.001


def _loss(fitted: AlsFactors, dense: np.ndarray) -> float:
    """The objective of «Revisiting iALS», eq. 3 with frequency-scaled regularisation."""
    config, seen = fitted.config, dense * fitted.config.confidence
    users, hosts = fitted.user_factors.astype(np.float64), fitted.host_factors.astype(np.float64)
    error = np.where(dense > 0, seen, 1) * ((dense > 0) - users @ hosts.T) ** 2
    ridge = [
        config.regularization * (seen.sum(axis=axis) + dense.shape[axis]) ** config.frequency_exponent
        for axis in (1, 0)
    ]
    return float(error.sum() + (ridge[0] * (users**2).sum(1)).sum() + (ridge[1] * (hosts**2).sum(1)).sum())


def test_configs_refuse_unknown_keys() -> None:
    for config in (EaseConfig, LowPassConfig, AlsConfig):
        with pytest.raises(ValidationError, match="regularisation_typo"):
            config.model_validate({"regularisation_typo": 1})
