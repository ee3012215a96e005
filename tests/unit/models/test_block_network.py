"""The served networks: their shares of a score against Shapley's definition, their short cuts against the long way."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from recsys.errors import BundleRefused, LaotieError
from recsys.models.additive_training import softmax
from recsys.models.block_network import TIE, VIEWER, BlockNetwork
from recsys.models.choice_network import fit_choice_network
from recsys.pipeline.features import BLOCKS, FEATURES

NAMES = ("popular", "known", "never", "entries", "liked", "repeats")
OF_BLOCK = {VIEWER: ("repeats",), TIE: ("known", "entries"), "taste": ("liked",), "room": ("popular", "never")}
REFERENCE = {"known": 0.0, "entries": float("nan")}
EACH = 6


def a_log(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (6·n, F), labels, true scores: exp(3·known·repeats + 2·liked); every fourth `liked` is missing."""
    rng = np.random.default_rng(seed)
    rows = rng.random((EACH * n, len(NAMES))).astype(np.float32)
    known = rng.random(EACH * n) < 0.3
    rows[:, 1], rows[:, 2], rows[:, 5] = known, 7.0, np.repeat(rng.random(n), EACH)
    rows[~known, 3] = np.nan
    true = 3.0 * rows[:, 1] * rows[:, 5] + 2.0 * rows[:, 4]
    rows[rng.random(EACH * n) < 0.25, 4] = np.nan
    labels = np.zeros(EACH * n, dtype=np.int8)
    labels[EACH * np.arange(n) + (true + rng.gumbel(size=EACH * n)).reshape(n, EACH).argmax(axis=1)] = 1
    return rows, labels, true


@pytest.fixture(scope="module")
def fitted() -> tuple[BlockNetwork, np.ndarray]:
    """A network of a thousand requests, and what it says of others by the training code."""
    rows, labels, _ = a_log(1000, 0)
    groups, nothing = np.full(1000, EACH), np.zeros(len(rows))
    network = fit_choice_network(rows, groups, labels, nothing, None, epochs=6)
    return network.served(NAMES, OF_BLOCK, REFERENCE), network.score(a_log(200, 1)[0])


def test_what_is_served_is_what_was_trained(fitted: tuple[BlockNetwork, np.ndarray]) -> None:
    model, said = fitted
    later = a_log(200, 1)[0].T.astype(np.float64)
    assert set(model.features) == set(NAMES) - {"never"}, "what never varied has no say"
    np.testing.assert_allclose(model.score(later), said, atol=1e-4)  # trained in float32
    again = BlockNetwork.from_arrays(NAMES, model.arrays("m"), "m")
    np.testing.assert_array_equal(again.score(later), model.score(later))
    np.testing.assert_array_equal(again.contributions(later), model.contributions(later))
    assert again.terms == model.terms == (VIEWER, TIE, "taste", "room")


def test_weights_that_do_not_fit_each_other_are_refused(fitted: tuple[BlockNetwork, np.ndarray]) -> None:
    model, _ = fitted
    arrays = model.arrays("m")
    for part in ("centre", "scale", "reference", "first", "first_bias", "second_bias", "last"):
        with pytest.raises(BundleRefused, match=f"does not fit the others.*m/{part}"):
            BlockNetwork.from_arrays(NAMES, arrays | {f"m_{part}": arrays[f"m_{part}"][..., :-1]}, "m")


def test_the_planted_odds_are_found(fitted: tuple[BlockNetwork, np.ndarray]) -> None:
    rows, labels, true = a_log(800, 2)
    groups = np.full(800, EACH)
    nll = {
        name: -float(np.log(softmax(score, groups)[labels == 1]).mean())
        for name, score in (("true", true), ("found", fitted[0].score(rows.T)), ("blind", np.zeros(len(rows))))
    }
    assert nll["found"] < nll["true"] + 0.35 * (nll["blind"] - nll["true"])


def test_terms_and_bias_add_up_to_the_score(fitted: tuple[BlockNetwork, np.ndarray]) -> None:
    model, later = fitted[0], a_log(300, 3)[0].T.astype(np.float64)
    np.testing.assert_allclose(model.bias + model.contributions(later).sum(axis=0), model.score(later), atol=1e-10)
    one = model.contributions(later[:, 7:8])
    np.testing.assert_allclose(one, model.contributions(later)[:, 7:8], atol=1e-5)


def test_a_share_is_the_mean_over_all_orders_of_telling(fitted: tuple[BlockNetwork, np.ndarray]) -> None:
    """By the definition, with blocks not yet told put at their reference: no tie, everything else missing."""
    model, rows = fitted[0], a_log(4, 4)[0].astype(np.float64)
    told_of = {name: [NAMES.index(feature) for feature in features] for name, features in OF_BLOCK.items()}
    nothing = np.array([REFERENCE.get(name, np.nan) for name in NAMES])
    found = dict(zip(model.terms, model.contributions(rows.T), strict=True))
    players = [name for name in model.terms if name != VIEWER]
    shares = {name: np.zeros(len(rows)) for name in players}
    for order in permutations(players):
        told = np.tile(nothing, (len(rows), 1))
        told[:, told_of[VIEWER]] = rows[:, told_of[VIEWER]]
        for name in order:
            before = model.score(told.T)
            told[:, told_of[name]] = rows[:, told_of[name]]
            shares[name] += (model.score(told.T) - before) / 6
    for name in players:
        np.testing.assert_allclose(found[name], shares[name], atol=2e-5)


def test_no_tie_has_no_share(fitted: tuple[BlockNetwork, np.ndarray]) -> None:
    rows = a_log(200, 5)[0].T.astype(np.float64)
    of_tie = fitted[0].contributions(rows)[1]
    strangers = rows[1] == 0
    assert (of_tie[strangers] == 0).all() and (of_tie[~strangers] != 0).all()


def test_the_short_cut_for_a_request_says_the_same_in_single_precision(fitted: tuple[BlockNetwork, np.ndarray]) -> None:
    model, rows = fitted[0], a_log(1, 6)[0].T.astype(np.float64)
    table = np.concatenate([rows] * 3, axis=1)
    table[[1, 3], :4] = [[1.0] * 4, [0.5] * 4]
    tied = np.flatnonzero(table[1])
    assert 4 <= len(tied) < table.shape[1]
    said = model.score_request(table, tied)
    np.testing.assert_allclose(said, model.score(table), atol=1e-4)
    np.testing.assert_allclose(model.bias + model.contributions(table, said).sum(axis=0), said, atol=1e-10)
    none = np.array([], dtype=np.intp)
    assert len(model.score_request(table[:, :0], none)) == 0
    assert model.contributions(table[:, :0]).shape == (4, 0)


def test_a_table_of_other_features_is_refused(fitted: tuple[BlockNetwork, np.ndarray]) -> None:
    with pytest.raises(LaotieError, match="not computed"):
        fitted[0].bound_to(NAMES[:3])
    bound = fitted[0].bound_to(["another", *NAMES])
    for said in (bound.score, bound.contributions):
        with pytest.raises(LaotieError, match="do not match"):
            said(np.zeros((len(NAMES), 4)))


def test_every_feature_is_in_one_block() -> None:
    assert sorted(name for block in BLOCKS.values() for name in block) == sorted(FEATURES)
