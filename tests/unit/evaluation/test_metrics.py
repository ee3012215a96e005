"""Ranking metrics against values counted by hand and against ir-measures."""

from __future__ import annotations

import math

import ir_measures
import numpy as np
import polars as pl
import pytest
from ir_measures import RR, R, Success, nDCG

from recsys.errors import InputRefused
from recsys.evaluation.metrics import metric_names, ranked_by_score, request_metrics


def answers(*rows: tuple[int, int, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"request_id": pl.Int64, "rank": pl.Int64, "room_id": pl.Int64}, orient="row")


def truth(*rows: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"request_id": pl.Int64, "room_id": pl.Int64}, orient="row")


def test_by_hand() -> None:
    found = request_metrics(
        answers((1, 1, 10), (1, 2, 11), (1, 3, 12), (2, 1, 10), (2, 2, 20), (9, 1, 10)),
        truth((1, 11), (1, 12), (2, 20), (2, 99), (3, 10)),
        ndcg_at=(1, 10),
        hit_at=(1, 2),
        recall_at=(2,),
    )
    assert found["request_id"].to_list() == [1, 2, 3]  # 9 has no truth; 3 has no answer and counts nothing
    assert found["relevant"].to_list() == [2, 2, 1]
    ideal = 1 + 1 / math.log2(3)
    assert found["ndcg_at_10"].to_list() == pytest.approx(
        [(1 / math.log2(3) + 0.5) / ideal, 1 / math.log2(3) / ideal, 0]
    )
    assert found["ndcg_at_1"].to_list() == [0, 0, 0]
    assert found["hit_at_2"].to_list() == [1, 1, 0]
    assert found["recall_at_2"].to_list() == [0.5, 0.5, 0]
    assert found["mrr"].to_list() == [0.5, 0.5, 0]
    assert metric_names(found) == ["ndcg_at_1", "ndcg_at_10", "hit_at_1", "hit_at_2", "recall_at_2", "mrr"]


def test_a_perfect_answer_is_one_also_with_fewer_or_more_relevant_than_k() -> None:
    for n in (1, 3, 30):
        perfect = answers(*((0, rank + 1, rank) for rank in range(n)))
        found = request_metrics(perfect, truth(*((0, room) for room in range(n))))
        assert found["ndcg_at_10"].item() == pytest.approx(1.0)
        assert found["recall_at_10"].item() == pytest.approx(min(10, n) / n)


def test_agrees_with_ir_measures() -> None:
    rng = np.random.default_rng(3)
    ranked, relevant = [], []
    for request in range(60):
        rooms = rng.permutation(40)[: rng.integers(0, 40)].tolist()
        ranked += [(request, rank, room) for rank, room in enumerate(rooms, 1)]
        relevant += [(request, int(room)) for room in rng.choice(45, rng.integers(1, 15), replace=False)]
    run = [ir_measures.ScoredDoc(str(q), str(room), float(-rank)) for q, rank, room in ranked]
    qrels = [ir_measures.Qrel(str(q), str(room), 1) for q, room in relevant]
    names = {
        nDCG @ 10: "ndcg_at_10",
        Success @ 1: "hit_at_1",
        Success @ 10: "hit_at_10",
        R @ 10: "recall_at_10",
        RR: "mrr",
    }
    found = request_metrics(answers(*ranked), truth(*relevant))
    oracle = ir_measures.calc_aggregate(list(names), qrels, run)
    for measure, name in names.items():
        assert found[name].mean() == pytest.approx(oracle[measure], abs=1e-9), name


def test_string_ids_and_unsigned_ranks_and_no_answers_at_all() -> None:
    shown = pl.DataFrame({"request_id": ["a"], "rank": [1], "room_id": ["x"]}).with_columns(
        pl.col("rank").cast(pl.UInt32)
    )
    asked = pl.DataFrame({"request_id": ["a", "b"], "room_id": ["x", "x"]})
    assert request_metrics(shown, asked)["mrr"].to_list() == [1.0, 0.0]
    assert request_metrics(shown.clear(), asked)["ndcg_at_10"].to_list() == [0.0, 0.0]
    assert request_metrics(shown, asked.clear()).is_empty()


@pytest.mark.parametrize(
    ("shown", "asked", "message"),
    [
        (answers((1, 1, 10), (1, 1, 11)), truth((1, 10)), "rank"),
        (answers((1, 1, 10), (1, 2, 10)), truth((1, 10)), "room_id"),
        (answers((1, 0, 10)), truth((1, 10)), "below 1"),
        (answers((1, 1, 10)).drop("rank"), truth((1, 10)), "missing"),
        (answers((1, 1, 10)), truth((1, 10), (1, 10)), "unique"),
        (answers((1, None, 10)), truth((1, 10)), "null"),
    ],
)
def test_what_cannot_be_judged_is_refused(shown: pl.DataFrame, asked: pl.DataFrame, message: str) -> None:
    with pytest.raises(InputRefused, match=message):
        request_metrics(shown, asked)


def test_tied_scores_earn_what_chance_earns_whatever_the_row_order() -> None:
    scores = pl.DataFrame(
        {"request_id": np.repeat(np.arange(2000), 20), "room_id": np.tile(np.arange(20), 2000), "score": 0.5}
    )
    first_room = truth(*((request, 0) for request in range(2000)))
    ranked = ranked_by_score(scores, seed=1)
    assert ranked.equals(ranked_by_score(scores.sample(fraction=1.0, shuffle=True, seed=4), seed=1))
    assert request_metrics(ranked, first_room)["hit_at_10"].mean() == pytest.approx(0.5, abs=0.05)


def test_scores_that_are_not_numbers_sink() -> None:
    scores = pl.DataFrame(
        {"request_id": [1] * 4, "room_id": [1, 2, 3, 4], "score": [float("nan"), None, -5.0, float("inf")]}
    )
    assert ranked_by_score(scores)["room_id"].to_list()[:2] == [4, 3]
