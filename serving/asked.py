"""What the service is asked and what it made of it, in external ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.errors import InputRefused
from recsys.events.log_tables import ANSWER
from recsys.events.vocabularies import Vocabularies
from recsys.id_kinds import is_of_kind
from recsys.pipeline.request import Answer, Request, seed_of
from serving.event_log import Entry, as_text
from serving.ladder import STEPS
from serving.loaded import Loaded


@dataclass(frozen=True)
class Asked:
    """One lookup in external ids; `sources` None: all. `step` is the rung of the degradation ladder."""

    user_id: int | str | None
    k: int
    exclude: Sequence[int | str] = ()
    category: str | None = None
    sources: frozenset[str] | None = None
    rooms: Sequence[int | str] | None = None
    explain: bool = True
    heads: bool = False
    step: int = 0


@dataclass(frozen=True)
class Served:
    """An answer with what it was made from; rows of `answer` belong to `loaded`."""

    asked: Asked
    answer: Answer
    loaded: Loaded
    at_us: int
    user: int
    epoch: int
    room_ids: list[int | str]
    host_ids: list[int | str]

    def impressions(self, request_id: str) -> Entry:
        """What the log keeps of the answer: which rooms the viewer was shown, as one record."""
        shown = {
            "user_id": self.asked.user_id,
            "at": self.at_us,
            "room_ids": self.room_ids,
            "host_ids": self.host_ids,
            "slots": ["reserved" if held else "organic" for held in self.answer.reserved.tolist()],
            "propensities": self.answer.propensity.tolist(),
        }
        return f"answer-{request_id}-{self.asked.user_id}-{self.at_us}", ANSWER, as_text(shown)


def refuse_other_kinds(asked: Asked, ids: Vocabularies) -> None:
    """Ids of the other kind name nobody: a viewer would be taken for unknown, a room not be excluded.

    Raises:
        InputRefused: one of the ids asked for.
    """
    users = () if asked.user_id is None else (asked.user_id,)
    for name, given, vocabulary in (("user_id", users, ids.users), ("exclude", asked.exclude, ids.rooms)):
        for external in given:
            if not is_of_kind(external, vocabulary.kind):
                expected = "an integer" if vocabulary.kind == "int" else "a string"
                raise InputRefused("an id of the other kind", where=name, got=repr(external), expected=expected)


def request_of(asked: Asked, loaded: Loaded, at: int) -> Request:
    """A lookup in rows, at instant `at`, µs; of the rooms named those not live, or unknown, are left out."""
    ids = loaded.vocabularies
    exclude = [ids.rooms.row(room) for room in asked.exclude]
    named = None
    if asked.rooms is not None:
        rows = [ids.rooms.row(room) for room in asked.rooms]
        named = np.array([row for row in rows if row in loaded.live.world.index], dtype=np.int64)
    return Request(
        user=-1 if asked.user_id is None else ids.users.row(asked.user_id),
        at=at,
        k=asked.k,
        rooms=named,
        exclude=np.array([row for row in exclude if row >= 0], dtype=np.int64) if exclude else None,
        category=asked.category,
        seed=seed_of(asked.user_id),
        explain=asked.explain and asked.step < len(STEPS) - 1,
        heads=asked.heads and asked.step < len(STEPS) - 1,
        fill=asked.sources is None,
    )
