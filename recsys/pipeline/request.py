"""What is asked and what is answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from zlib import crc32

import numpy as np
import numpy.typing as npt

from recsys.pipeline.breakdown import Breakdown


class Source(StrEnum):
    """Where a candidate came from, in the order of precedence."""

    REQUESTED = "requested"
    PRIVATE = "private_domain"
    COHOST = "private_domain_cohost"
    VISITED = "visited_before"
    NEAREST = "nearest"
    TRANSITION = "transition"
    POPULAR = "popular"
    NEWCOMER = "newcomer"


class Outcome(StrEnum):
    """What became of a candidate; every candidate has exactly one."""

    SHOWN = "shown"
    FILTERED_NOT_LIVE = "filtered: not live"
    FILTERED_BLOCKED = "filtered: viewer blocked the host"
    FILTERED_EXCLUDED = "filtered: excluded by the request"
    FILTERED_CATEGORY = "filtered: other category"
    NOT_SELECTED = "not selected: ranked below k"


OUTCOMES = tuple(Outcome)
SOURCES = tuple(Source)


def seed_of(user_id: int | str | None) -> int:
    """32 bits that depend on the external id alone, so that everybody draws the same for a viewer."""
    return crc32(b"" if user_id is None else str(user_id).encode())


@dataclass(frozen=True)
class Request:
    """One candidate lookup.

    Args:
        user: user row, −1 for a viewer of whom nothing is known.
        at: instant, µs; the state must hold every fact before it and none at or after.
        k: rooms wanted.
        rooms: exactly the room rows to rank, or None: the sources bring candidates from the rooms live now.
        exclude: room rows never to answer.
        category: only rooms of this category.
        seed: of the viewer, for what is drawn for him (`seed_of`); without it the row is taken, which replay and
            service number differently for users the bundle does not know.
        explain: whether reasons and the weights of both domains are wanted.
        heads: whether what every head says of the answered rooms is wanted.
        fill: whether every room live now is considered when the sources bring too few; without it the answer is short.
    """

    user: int
    at: int
    k: int
    rooms: npt.NDArray[np.int64] | None = None
    exclude: npt.NDArray[np.int64] | None = None
    category: str | None = None
    explain: bool = True
    heads: bool = False
    seed: int | None = None
    fill: bool = True


@dataclass(frozen=True)
class Answer:
    """Ranked rooms and the whole story of the candidates. n answers of c candidates, F features.

    `sources` (n,) are positions in `SOURCES`. `score` is the log-odds sum, highest first; `strength` the calibrated
    probability in [0, 1] that the viewer comes back to the host's next broadcast, NaN where none was trained.
    `contributions` (n, F) add up, with `bias`, to `score` (reserved places may stand out of order: `reserved`); they
    are worked out when first asked for.
    `propensity` (n,) is the probability with which the draw among newcomers brought a room, 1 for all others.
    `candidates` (c,) and `outcomes` (c,) positions in `OUTCOMES` tell what became of every candidate. `heads` holds,
    where they were asked for, the (n,) calibrated probabilities of every head (`recsys.models.strength.HEADS`), NaN
    where a head does not apply.
    """

    rooms: npt.NDArray[np.int64]
    hosts: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    strength: npt.NDArray[np.float64]
    sources: npt.NDArray[np.int8]
    reserved: npt.NDArray[np.bool_]
    propensity: npt.NDArray[np.float64]
    reasons: list[list[str]]
    breakdown: Breakdown
    candidates: npt.NDArray[np.int64]
    outcomes: npt.NDArray[np.int8]
    stage_counts: dict[str, int]
    degraded: tuple[str, ...] = ()
    short_why: str | None = None
    weights: dict[str, float] = field(default_factory=dict)
    heads: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rooms)

    def strengths(self) -> list[float | None]:
        """`strength` as it is told: None where no head stands behind it."""
        return [None if said != said else said for said in self.strength.tolist()]

    def heads_by_room(self) -> list[dict[str, float]]:
        """What the heads say of each room, by name; heads that do not apply are left out.

        Rooms of which the same is said (those of hosts the viewer has no tie with) share one dictionary.
        """
        if not self.heads:
            return [{} for _ in range(len(self))]
        names = tuple(self.heads)
        table = np.array(list(self.heads.values())).T.copy()
        made: dict[bytes, dict[str, float]] = {}
        found = []
        for i, said in enumerate(table.view(f"V{table.itemsize * len(names)}").ravel().tolist()):
            by_name = made.get(said)
            if by_name is None:
                pairs = zip(names, table[i].tolist(), strict=True)
                by_name = made[said] = {name: p for name, p in pairs if p == p}
            found.append(by_name)
        return found

    @property
    def bias(self) -> float:
        """What every score starts from."""
        return self.breakdown.bias

    @property
    def contributions(self) -> npt.NDArray[np.float64]:
        """What each term adds to each score, (n, F)."""
        return self.breakdown.contributions

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the F terms."""
        return self.breakdown.terms
