"""Models as a request reads them give what their training counterparts give."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import scipy.sparse as sp

from recsys.config import AffinityConfig, ProbabilityConfig
from recsys.errors import BundleRefused
from recsys.events.facts import FACT_SCHEMA, FactKind
from recsys.models.additive_training import fit_probability
from recsys.models.affinity import confidence_matrix, history
from recsys.models.baselines import PriorRanker, memory, popularity
from recsys.models.calibration import IsotonicMap
from recsys.models.collaborative.als import Als, AlsConfig
from recsys.models.collaborative.ease import Ease
from recsys.models.collaborative.interactions import Interactions
from recsys.models.factors import HostFactors
from recsys.models.graph import HostGraph
from recsys.models.strength import StrengthHead
from recsys.pipeline.features import FEATURES
from recsys.ties.batch import state_of
from recsys.ties.blocks import blocks
from recsys.ties.features import TIE_FEATURES
from recsys.ties.standing import relations
from recsys.ties.store import TieStore

BLOCKS = blocks()
N_USERS, N_HOSTS = 30, 20
KINDS = (FactKind.ENTRY, FactKind.FOLLOW, FactKind.UNFOLLOW, FactKind.BLOCK, FactKind.ORDER_LINE, FactKind.COMMENT)


@pytest.fixture(scope="module")
def facts() -> pl.DataFrame:
    rng = np.random.default_rng(3)
    n = 1500
    columns = {
        "at": 10**15 + np.arange(n) * 10**9,
        "kind": rng.choice([int(kind) for kind in KINDS], n),
        "user": rng.integers(0, N_USERS - 1, n),  # the last user has no history
        "host": rng.integers(0, N_HOSTS, n),
        "count": rng.integers(0, 3, n),
    }
    fixed = {"room": -1, "value": 0, "aux": 0}
    frame = pl.DataFrame(columns).with_columns(pl.lit(value).alias(name) for name, value in fixed.items())
    return frame.select(pl.col(name).cast(kind) for name, kind in FACT_SCHEMA.items())


@pytest.fixture(scope="module")
def matrix(facts: pl.DataFrame) -> sp.csr_matrix:
    states = {block.name: state_of(block, facts) for block in BLOCKS.of("tie")}
    return confidence_matrix(states, AffinityConfig(), N_USERS, N_HOSTS)


def test_a_confidence_can_be_worked_out_on_paper() -> None:
    """Three entries, a follow, one order, no comment: log 4 + 1 + 2 log 2."""
    rows = [(FactKind.ENTRY, 1)] * 3 + [(FactKind.FOLLOW, 1), (FactKind.ORDER_LINE, 1)]
    data = {"at": range(5), "kind": [int(k) for k, _ in rows], "count": [c for _, c in rows]}
    frame = pl.DataFrame(data).with_columns(
        user=0, host=0, room=-1, value=0, aux=0
    ).select(pl.col(name).cast(kind) for name, kind in FACT_SCHEMA.items())  # fmt: skip
    states = {block.name: state_of(block, frame) for block in BLOCKS.of("tie")}
    found = confidence_matrix(states, AffinityConfig(), 1, 1)
    assert found[0, 0] == pytest.approx(np.log(4) + 1 + 2 * np.log(2), rel=1e-6)


def _history(ties: TieStore, user: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    held = ties.held(user)
    return history(ties, BLOCKS, held, relations(BLOCKS.relation, held["relation"].rows), AffinityConfig(), N_HOSTS)


def test_history_is_a_row_of_the_confidence_matrix(facts: pl.DataFrame, matrix: sp.csr_matrix) -> None:
    states = {block.name: state_of(block, facts) for block in BLOCKS.of("tie")}
    store, online = TieStore(BLOCKS.of("tie"), states), TieStore(BLOCKS.of("tie"))
    for at, kind, user, host, _, count, value, _ in facts.iter_rows():
        online.apply(user, host, kind, at, count, value)
    for user in range(N_USERS):
        row = matrix[user]
        for ties in (store, online):
            hosts, confidences = _history(ties, user)
            np.testing.assert_array_equal(hosts, row.indices)
            np.testing.assert_allclose(confidences, row.data, rtol=1e-6)
    assert len(_history(store, -1)[0]) == 0


def test_the_viewers_vector_is_the_als_fold_in(matrix: sp.csr_matrix) -> None:
    settings = AlsConfig(factors=8, iterations=4)
    fitted = Als(settings).fit(Interactions(matrix), 1)
    factors = HostFactors.of(
        fitted.host_factors,
        confidence=settings.confidence,
        regularization=settings.regularization,
        exponent=settings.frequency_exponent,
    )
    expected = fitted.fold_in(matrix)
    for user in range(N_USERS - 1):
        row = matrix[user]
        vector = factors.viewer(row.indices, row.data)
        assert vector is not None
        np.testing.assert_allclose(vector, expected[user], rtol=1e-4, atol=1e-5)
    assert factors.viewer(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)) is None
    newer = factors.viewer(np.array([N_HOSTS + 3]), np.array([1.0], dtype=np.float32))
    assert newer is None, "a host later than the fit has no factors"


def test_the_graph_scores_as_the_model_it_comes_from(matrix: sp.csr_matrix) -> None:
    fitted = Ease().fit(Interactions(matrix), 1)
    graph = HostGraph.of(fitted.weights)
    expected = fitted.scores(matrix)
    for user in range(N_USERS):
        row = matrix[user]
        found = graph.scores(row.indices, row.data, N_HOSTS + 2)
        np.testing.assert_allclose(found[:N_HOSTS], expected[user], rtol=1e-4, atol=1e-5)
        assert not found[N_HOSTS:].any()
    known = HostGraph.of(np.array([[0, 2.0], [3.0, 0]], dtype=np.float32))
    assert known.scores(np.array([0, 1, 7]), np.array([1.0, 10.0, 5.0]), 2).tolist() == [30.0, 2.0]


def test_a_strength_head_comes_back_from_its_arrays() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((2000, len(TIE_FEATURES))).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    came = (rng.random(2000) < np.nan_to_num(rows[:, 0], nan=0.3)).astype(np.int8)
    model = fit_probability(TIE_FEATURES, rows, came, ProbabilityConfig(rounds=20), 1, 1)
    calibration = IsotonicMap.fit(rng.random(500), (rng.random(500) < 0.4).astype(np.int8))
    head = StrengthHead("returns", model, calibration, 0.07)
    again = StrengthHead.from_arrays("returns", head.arrays())
    values = rows[:100].T.astype(np.float64)
    np.testing.assert_array_equal(again.probability(values), head.probability(values))
    assert again.stranger == 0.07 and again.name == "returns"
    assert ((head.probability(values) >= 0) & (head.probability(values) <= 1)).all()
    for axis, wrong in (("y", calibration.y[:-1]), ("x", np.empty(0)), ("x", calibration.x[None])):
        broken = head.arrays() | {f"strength_returns_calibration_{axis}": wrong}
        with pytest.raises(BundleRefused, match="does not fit the others"):
            StrengthHead.from_arrays("returns", broken)


def table(**columns: list[float]) -> np.ndarray:
    values = np.full((len(FEATURES), len(next(iter(columns.values())))), np.nan)
    for name, column in columns.items():
        values[FEATURES.index(name)] = column
    return values


def test_stated_weights_put_ties_before_what_others_do() -> None:
    """A follow alone and an order alone outrank the strangers that everything else speaks for."""
    ranker = PriorRanker(FEATURES)
    values = table(
        tie_followed=[1, np.nan, np.nan, np.nan, 1],
        tie_order_lines=[np.nan, 1, np.nan, np.nan, 1],
        cf_graph_share=[0, 0, 1, 0, 0],
        host_entries_2h_share=[0, 0, 0, 1, 0],
    )
    score = ranker.score(values)
    assert np.argsort(-score).tolist() == [4, 0, 1, 2, 3]
    np.testing.assert_allclose(ranker.bias + ranker.contributions(values).sum(axis=0), score)
    assert len(ranker.terms) == len(ranker.contributions(values))
    refused = table(tie_followed=[1, 1], tie_not_interested=[0, 2])
    assert ranker.score(refused)[1] < ranker.score(refused)[0]


def test_baselines_can_be_worked_out_on_paper() -> None:
    values = table(tie_share_of_user=[0.5, np.nan], tie_share_3d=[0.2, np.nan], host_entries_2h_share=[0.1, 0.9])
    np.testing.assert_allclose(memory(FEATURES, values), [0.25 + 0.1 + 0.005, 0.045])
    np.testing.assert_allclose(popularity(FEATURES, values), [0.1, 0.9])


@pytest.mark.parametrize(
    ("part", "value"),
    [("indices", [0, 3]), ("indices", [-1, 0]), ("indptr", [0, 2, 1, 2]), ("indptr", [0, 1, 1, 3]), ("data", [1.0])],
)
def test_a_graph_that_would_be_read_beyond_its_end_is_refused(part: str, value: list[float]) -> None:
    arrays = HostGraph.of(np.array([[0, 1.0, 0], [0, 0, 0], [2.0, 0, 0]])).arrays("graph")
    assert HostGraph.from_arrays(arrays, "graph").n_hosts == 3
    broken = np.array(value, dtype=arrays[f"graph_{part}"].dtype)
    with pytest.raises(BundleRefused, match="outside their arrays"):
        HostGraph.from_arrays(arrays | {f"graph_{part}": broken}, "graph")
