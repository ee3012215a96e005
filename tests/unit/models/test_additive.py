"""The tables say exactly what the trees say, and their contributions add up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from recsys.errors import BundleRefused, LaotieError
from recsys.models.additive import AdditiveModel
from recsys.models.boosted_trees import from_boosted_trees
from recsys.models.stacked import StackedModels

FEATURES = ("a", "b", "c", "d")


def boosted(missing: bool, **options: Any) -> tuple[lgb.Booster, np.ndarray]:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(3000, 4)).round(1).astype(np.float32)
    if missing:
        x[rng.random(x.shape) < 0.2] = np.nan
    filled = np.nan_to_num(x, nan=0.7)
    y = filled[:, 0] + filled[:, 1] * (filled[:, 2] > 0) - np.abs(filled[:, 3]) + rng.normal(size=3000)
    defaults = {"objective": "regression", "num_leaves": 6, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1}
    constraints = {"interaction_constraints": [[0], [1, 2], [2, 3], [3]]}
    data = lgb.Dataset(x, y, free_raw_data=False)
    return lgb.train({**defaults, **constraints, **options}, data, num_boost_round=40), x


@pytest.mark.parametrize("missing", [False, True])
def test_tables_equal_trees(missing: bool) -> None:
    booster, x = boosted(missing)
    model = from_boosted_trees(FEATURES, booster.dump_model())
    np.testing.assert_allclose(model.score(x.T), booster.predict(x), atol=1e-9)
    probe = np.full((4, 1), np.nan, dtype=np.float32)
    np.testing.assert_allclose(model.score(probe), booster.predict(probe.T), atol=1e-9)


def test_contributions_add_up_and_name_their_terms() -> None:
    booster, x = boosted(True)
    model = from_boosted_trees(FEATURES, booster.dump_model())
    parts = model.contributions(x.T)
    assert parts.shape == (len(model.terms), len(x))
    np.testing.assert_allclose(model.bias + parts.sum(axis=0), model.score(x.T), atol=1e-12)
    assert {"b × c", "c × d"} >= {term for term in model.terms if "×" in term} != set()


def test_arrays_round_trip() -> None:
    booster, x = boosted(True)
    model = from_boosted_trees(FEATURES, booster.dump_model())
    again = AdditiveModel.from_arrays(FEATURES, model.arrays("m"), "m")
    np.testing.assert_array_equal(again.score(x.T), model.score(x.T))


def test_tables_are_never_read_beyond_their_ends() -> None:
    booster, x = boosted(True)
    model = from_boosted_trees(FEATURES, booster.dump_model())
    arrays = model.arrays("m")
    for wrong in (-1, 99):
        bins = arrays["m_pair_bins"].copy()
        bins[0] = wrong
        with pytest.raises(BundleRefused, match="outside its table"):
            AdditiveModel.from_arrays(FEATURES, arrays | {"m_pair_bins": bins}, "m")
    for part in ("edge_counts", "edges", "mains", "pair_tables", "pair_bins"):
        with pytest.raises(BundleRefused, match="does not fit the others|no such numbers"):
            AdditiveModel.from_arrays(FEATURES, arrays | {f"m_{part}": arrays[f"m_{part}"][:-1]}, "m")
    for name, column in (("m_edge_counts", ...), ("m_pairs", (0, 0)), ("m_pairs", (0, 1))):
        numbers = arrays[name].copy()
        numbers[column] = -1
        with pytest.raises(BundleRefused, match="no such numbers"):
            AdditiveModel.from_arrays(FEATURES, arrays | {name: numbers}, "m")
    bound = model.bound_to(["x", *FEATURES])
    with pytest.raises(LaotieError, match="do not match"):
        bound.score(x.T)


def test_three_features_on_a_path_are_refused() -> None:
    booster, _ = boosted(False, interaction_constraints=[[0, 1, 2, 3]], num_leaves=31)
    with pytest.raises(LaotieError, match="more than two features"):
        from_boosted_trees(FEATURES, booster.dump_model())


def test_wrong_number_of_features_is_refused() -> None:
    booster, x = boosted(False)
    model = from_boosted_trees(FEATURES, booster.dump_model())
    with pytest.raises(LaotieError, match="do not match"):
        replace(model, inputs=None).score(x.T[:3])


def test_a_model_reads_its_features_by_name() -> None:
    booster, x = boosted(False)
    model = from_boosted_trees(FEATURES, booster.dump_model())
    wider = np.concatenate([np.zeros((1, len(x))), x.T[::-1]])
    np.testing.assert_array_equal(model.bound_to(("z", *FEATURES[::-1])).score(wider), model.score(x.T))
    with pytest.raises(LaotieError, match="not computed"):
        model.bound_to(("a", "b"))


@pytest.mark.parametrize(
    "known", [{}, {"a": 0.3}, {"b": np.nan, "c": 0.0}, {"a": -1.0, "b": 0.1, "c": 0.2, "d": np.nan}]
)
def test_known_features_are_summed_up(known: dict[str, float]) -> None:
    booster, x = boosted(True)
    model = from_boosted_trees(FEATURES, booster.dump_model())
    table = x.T.astype(np.float64).copy()
    for name, value in known.items():
        table[FEATURES.index(name)] = value
    rest = model.given({**known, "never heard of": 1.0})
    assert not set(rest.features) & set(known)
    np.testing.assert_allclose(rest.score(table), model.score(table), atol=1e-12)
    np.testing.assert_allclose(rest.bias + rest.contributions(table).sum(axis=0), model.score(table), atol=1e-12)


def test_a_stack_says_what_its_models_say() -> None:
    booster, x = boosted(True)
    whole = from_boosted_trees(FEATURES, booster.dump_model())
    constant = AdditiveModel((), (), (), (), 0.25).bound_to(FEATURES)
    models = (whole, constant, whole.given({"b": 0.1}), replace(whole, bias=3.0))
    expected = np.stack([model.score(x.T) for model in models])
    np.testing.assert_allclose(StackedModels(models).scores(x.T), expected, atol=1e-9)
    assert StackedModels(()).scores(x.T).shape == (0, len(x))


def test_a_long_table_is_scored_as_its_columns_are() -> None:
    rng = np.random.default_rng(3)
    edges = tuple(np.sort(rng.normal(size=5)) for _ in range(3))
    mains = tuple(rng.normal(size=7) for _ in range(3))
    model = AdditiveModel(("a", "b", "c"), edges, mains, (), 0.5)
    table = rng.normal(size=(3, 40_000))
    np.testing.assert_array_equal(model.score(table), model.bias + model.contributions(table).sum(axis=0))


def test_a_column_scores_the_same_alone_and_among_others() -> None:
    """To the last bit: a sum over one column is not taken in another order."""
    rng = np.random.default_rng(4)
    names = tuple(f"f{j}" for j in range(40))
    edges, mains = (tuple(np.sort(rng.normal(size=(40, n)), axis=1)) for n in (5, 7))
    model = AdditiveModel(names, edges, mains, (), 0.5)
    table = rng.normal(size=(40, 20))
    alone = [model.score(table[:, i : i + 1]).item() for i in range(20)]
    assert alone == model.score(table).tolist()
