"""The build serves the form of ranker that its trial on later requests found better."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle, BundleWriter, DataWindow, ManifestFields
from recsys.config import EngineConfig
from recsys.live.artefact import load_models, save_models
from recsys.models.additive import AdditiveModel
from recsys.models.block_network import BlockNetwork
from recsys.models.suite import Models
from recsys.pipeline.features import FEATURES
from recsys.ties.features import TIE_FEATURES
from tests.small_world import HOUR, T0, Scene
from training.learn import choices_of, fit_network, learn_ranker
from training.log import TrainingLog

N, EACH = 700, 6
CHEAP = {"rounds": 30, "pairs": 4, "teacher_rounds": 0, "bins": 31}


def a_log(smooth: bool) -> TrainingLog:
    """Rooms are chosen by a sum of forty weak features, or by one threshold in a single feature."""
    rng = np.random.default_rng(0)
    rows = np.full((N * EACH, len(FEATURES)), np.nan, dtype=np.float32)
    columns = [FEATURES.index(name) for name in FEATURES if name.startswith(("host_", "room_", "cf_"))][:40]
    rows[:, columns] = rng.random((N * EACH, len(columns)))
    odds = 30.0 * rows[:, columns].mean(axis=1) if smooth else 9.0 * (np.abs(rows[:, columns[3]] - 0.5) < 0.1)
    labels = np.zeros((N, EACH), dtype=np.int8)
    labels[np.arange(N), (odds + rng.gumbel(size=N * EACH)).reshape(N, EACH).argmax(axis=1)] = 1
    requests = pl.DataFrame({"user": np.arange(N), "at": np.arange(N) * 10**9, "known": np.zeros(N, dtype=bool)})
    ties = rng.random((60, len(TIE_FEATURES))).astype(np.float32)
    hosts = np.zeros(N * EACH, dtype=np.int32)
    return TrainingLog(rows, np.full(N, EACH), labels.ravel(), hosts, requests, ties, pl.DataFrame())


@pytest.mark.parametrize(("smooth", "form"), [(True, BlockNetwork), (False, AdditiveModel)])
def test_what_won_on_later_requests_is_served(smooth: bool, form: type) -> None:
    config = EngineConfig.model_validate({"build": {"threads": 1}, "ranker": CHEAP})
    came = pl.DataFrame({"row": np.arange(60), "came": np.arange(60) % 2, "ended_at": np.arange(60) * 10**9})
    learnt = learn_ranker(a_log(smooth), 500 * 10**9, config, came)
    assert learnt.stage.status == "passed" and isinstance(learnt.model, form)
    tried = {name: learnt.metrics[f"{name}_ndcg_at_10"] for name in ("tables", "network", "ranker")}
    assert tried["ranker"] == max(tried["tables"], tried["network"]) and tried["tables"] != tried["network"]


def test_hosts_one_knows_gain_the_bonus_and_nothing_else_moves() -> None:
    """Learnt in: between two hosts he knows, and between two he does not, the log-odds stay what they are."""
    log = a_log(True)
    log.rows[:, FEATURES.index("tie_known")] = np.arange(len(log.rows)) % 2
    known = log.rows[:, FEATURES.index("tie_known")] > 0
    said = {}
    for bonus in (0.0, 2.0):
        config = EngineConfig.model_validate({"build": {"threads": 1}, "ranker": CHEAP | {"private_bonus": bonus}})
        model = fit_network(choices_of(log, config.ranker), config.ranker, 1, 1)
        assert model.private_bonus == bonus
        said[bonus] = model.score(log.rows.T.astype(np.float64))
    gained = said[2.0] - said[0.0]
    assert gained[known].mean() - gained[~known].mean() == pytest.approx(2.0, abs=0.3)
    for part in (known, ~known):
        assert np.corrcoef(said[2.0][part], said[0.0][part])[0, 1] > 0.95


def test_an_answer_of_networks_adds_up_and_survives_the_bundle(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rooms with and without a tie, and through a co-host; the same from the bundle."""
    config = EngineConfig.model_validate({"build": {"threads": 1}, "ranker": CHEAP | {"network_epochs": 2}})
    ranker = learn_ranker(a_log(True), 500 * 10**9, config).model
    assert isinstance(ranker, BlockNetwork)
    scene = Scene(40, models=Models(affinity=config.affinity, ranker=ranker))
    for host in range(30):
        scene.room(host, host, T0 + host)
    scene.follow(0, 2).enter(0, 5, T0 + HOUR).room(39, 1, cohosts=(2, 5))
    answer = scene.ask(0, T0 + 6 * HOUR, k=31)
    assert len(answer) == 31 and len(set(answer.score.tolist())) > 4
    np.testing.assert_allclose(answer.bias + answer.contributions.sum(axis=1), answer.score, atol=1e-9)
    assert sum(answer.weights.values()) == pytest.approx(1.0)
    shelf = tmp_path_factory.mktemp("bundles")
    with BundleWriter(shelf, "one") as writer:
        present = save_models(writer, scene.world.models)
        writer.finish(
            ManifestFields(created_at_us=0, config=config.model_dump(mode="json"), window=DataWindow(as_of_us=0))
        )
    scene.world.models.ranker = load_models(Bundle.open(shelf / "one"), present, config).ranker
    np.testing.assert_array_equal(scene.ask(0, T0 + 6 * HOUR, k=31).score, answer.score)
