"""The degradation ladder: what an answer does without when time is short. Each step is named in the answer.

| step | `degraded` | what is left out |
|---|---|---|
| 0 | nothing | nothing |
| 1 | `fewer_candidates` | newcomers' places, and half of the other public candidates |
| 2 | `no_personal_search` | collaborative and transition models: public candidates are popular rooms |
| 3 | `private_and_popular` | the learnt ranker, reasons and heads: stated weights on ties and popularity |

The private domain is complete on every step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from recsys.models.baselines import PriorRanker
from recsys.pipeline.features import FEATURES
from recsys.pipeline.world import World

STEPS: Final = ("", "fewer_candidates", "no_personal_search", "private_and_popular")


def stepped_down(world: World, step: int, k: int) -> World:
    """The same world, read in a simpler way; states are shared, nothing is copied. Steps are those of the table.

    There are always enough popular rooms for `k` answers, or the pipeline would consider every room instead.
    """
    if step <= 0:
        return world
    pipeline = world.config.pipeline
    sizes = pipeline.sources.model_copy(
        update={
            "newcomers": 0,
            "nearest": pipeline.sources.nearest // 2,
            "transition": pipeline.sources.transition // 2,
            "popular": max(pipeline.sources.popular // 2, k + k // 4 + 8),
        }
    )
    models = world.models
    if step >= 2:
        sizes = sizes.model_copy(update={"nearest": 0, "transition": 0})
        models = replace(models, graph=None, factors=None, transition=None)
    if step >= 3:
        models = replace(models, ranker=PriorRanker(FEATURES))
    config = world.config.model_copy(update={"pipeline": pipeline.model_copy(update={"sources": sizes})})
    return replace(world, config=config, models=models)


def restricted(world: World, sources: frozenset[str]) -> World:
    """The same world with only these sources of the public domain (`nearest`, `transition`, `popular`, `newcomer`).

    For requests that are not filled up (`Request.fill`): else rooms of no source would come, and the best `k` of those
    might leave none of the viewer's own domain.
    """
    held = world.config.pipeline.sources
    sizes = held.model_copy(
        update={
            "nearest": held.nearest if "nearest" in sources else 0,
            "transition": held.transition if "transition" in sources else 0,
            "popular": held.popular if "popular" in sources else 0,
            "newcomers": held.newcomers if "newcomer" in sources else 0,
        }
    )
    pipeline = world.config.pipeline.model_copy(update={"sources": sizes})
    return replace(world, config=world.config.model_copy(update={"pipeline": pipeline}))
