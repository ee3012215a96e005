"""How the results of stages lie on disk between builds (`training.stages`): states, models, what was learnt."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np

from recsys.bundle import Bundle, BundleWriter, ManifestFields, StageResult
from recsys.config import EngineConfig
from recsys.events import Vocabularies
from recsys.live.artefact import load_models, save_models
from recsys.models.suite import Models
from training.drift import no_candidates
from training.learning import Learnt
from training.stages import fields_of
from training.states import Snapshot, load_shot, save_shot


class States(NamedTuple):
    """The states of all facts before an instant, the rows they are kept in, and whether a delta gave them."""

    shot: Snapshot
    vocabularies: Vocabularies
    stages: tuple[StageResult, ...] = ()


class Fitted(NamedTuple):
    """Models fitted to states, and how it went."""

    models: Models
    stages: tuple[StageResult, ...]


def save_made(base: Bundle | None, writer: BundleWriter, made: States) -> ManifestFields:
    """Write states with their vocabularies."""
    made.vocabularies.save(writer.path("users.ids").parent)
    fields = save_shot(writer, made.shot, base)
    return fields.model_copy(update={"stages": made.stages})


def load_made(config: EngineConfig, bundle: Bundle) -> States:
    """Read what `save_made` wrote."""
    vocabularies = Vocabularies.load(bundle.file("users.ids").parent)
    return States(load_shot(config, bundle), vocabularies, bundle.manifest.stages)


def save_fitted(as_of_us: int, writer: BundleWriter, fitted: Fitted) -> ManifestFields:
    """Write models."""
    writer.json("models", save_models(writer, fitted.models))
    return fields_of(as_of_us, stages=fitted.stages)


def load_fitted(config: EngineConfig, bundle: Bundle) -> Fitted:
    """Read what `save_fitted` wrote."""
    return Fitted(load_models(bundle, bundle.json("models"), config), bundle.manifest.stages)


def save_learnt(as_of_us: int, config: EngineConfig, writer: BundleWriter, learnt: Learnt) -> ManifestFields:
    """Write what was learnt, but for the rankers the served one is compared with."""
    models = Models(affinity=config.affinity, **learnt.models())
    writer.json("models", save_models(writer, models))
    said: dict[str, object] = {
        "from_us": learnt.from_us,
        "heads": learnt.head_documents,
        "categories": learnt.categories,
    }
    said |= {"latest": learnt.latest, "tower": learnt.tower, "history": learnt.history}
    writer.array("candidates", learnt.candidates)
    writer.path("learnt.txt").write_text(json.dumps(said), encoding="utf-8")  # this JSON knows NaN
    return fields_of(as_of_us, metrics=learnt.metrics, stages=tuple(learnt.stages))


def load_learnt(config: EngineConfig, bundle: Bundle) -> Learnt:
    """Read what `save_learnt` wrote."""
    models = load_models(bundle, bundle.json("models"), config)
    said = json.loads(bundle.file("learnt.txt").read_text(encoding="utf-8"))
    return Learnt(
        ranker=models.ranker,
        audience=models.audience,
        strength=dict(models.strength),
        demand=models.demand,
        metrics=dict(bundle.manifest.metrics),
        stages=list(bundle.manifest.stages),
        from_us=said["from_us"],
        head_documents=said["heads"],
        categories=None if said["categories"] is None else tuple(said["categories"]),
        latest=said["latest"],
        tower=said["tower"],
        history=said["history"],
        candidates=np.asarray(bundle.array("candidates")) if bundle.has("candidates") else no_candidates(),
    )
