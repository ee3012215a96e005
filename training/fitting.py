"""The models that are fitted to the states of everything known, after learning has said which there are."""

from __future__ import annotations

from recsys.bundle import Bundle
from recsys.config import EngineConfig
from recsys.events import Events
from recsys.models.baselines import PriorRanker
from recsys.models.suite import Models
from recsys.pipeline.features import FEATURES
from recsys.progress import Progress
from training.collaborative import factors_of, fit_collaborative, fit_transitions
from training.kept import Fitted, States
from training.learning import Learnt
from training.towers import fit_tower
from training.trust import fit_trust


def fit_models(
    events: Events,
    states: States,
    config: EngineConfig,
    learnt: Learnt,
    base: Bundle | None,
    progress: Progress,
) -> Fitted:
    """The models that are fitted to the states as of the build's instant."""
    shot, vocabularies = states.shot, states.vocabularies
    n_users, n_hosts = len(vocabularies.users), len(vocabularies.hosts)
    start = None if base is None else factors_of(base, vocabularies.hosts)
    factors, graph, cf_stages = fit_collaborative(shot.states, config, n_users, n_hosts, start)
    transition, transition_stage = fit_transitions(events, vocabularies, config, shot.as_of_us, progress)
    trust, trust_stage = fit_trust(events, vocabularies, shot, learnt.categories)
    tower = fit_tower(events, vocabularies, config, shot.as_of_us, progress)[0] if learnt.tower else None
    ranker = PriorRanker(FEATURES)  # until the learnt one takes its place
    models = Models(
        config.affinity, ranker, graph=graph, factors=factors, transition=transition, trust=trust, tower=tower
    )
    return Fitted(models, (*cf_stages, transition_stage, trust_stage))
