"""What the service is asked and what it made of it, in external ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recsys.pipeline.request import Answer
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

    def shown(self) -> dict[str, Any]:
        """The answer as impressions: one record for the log."""
        return {
            "user_id": self.asked.user_id,
            "at": self.at_us,
            "room_ids": self.room_ids,
            "host_ids": self.host_ids,
            "slots": ["reserved" if held else "organic" for held in self.answer.reserved.tolist()],
            "propensities": self.answer.propensity.tolist(),
        }
