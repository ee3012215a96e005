"""One user's ties with the hosts of a request, gathered in one pass per block; those of several users side by side.

Shape letters: c hosts asked for, m of them with a tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.ties.algebra import Floats, Ints, Rows
from recsys.ties.store import TieStore, UserTies


@dataclass(frozen=True)
class GatheredTies:
    """The ties of one user, or of several, with hosts asked for. m of these have a tie in any block.

    `asked` (m,) positions in the hosts asked for; `rows` per block the m states (identity where the block has none);
    `has` per block (m,) whether the block has one, `present` the blocks that have any. User i has the ties from
    `bounds[i]` to `bounds[i + 1]`, and `all_visits[i]` are his visits with all hosts, for shares and ranks.
    """

    asked: npt.NDArray[np.intp]
    rows: dict[str, Rows]
    has: dict[str, npt.NDArray[np.bool_]]
    present: frozenset[str]
    all_visits: tuple[Rows, ...]
    bounds: tuple[int, ...]


def gather(store: TieStore, held: Mapping[str, UserTies], hosts: npt.NDArray[np.integer], n_hosts: int) -> GatheredTies:
    """The ties of a user with each of `hosts` (c,), looked up in one pass per block.

    Args:
        store: the tie blocks.
        held: the user's ties by block, `store.held(user)`.
        hosts: host rows, may repeat.
        n_hosts: all host rows are below this.
    """
    asked, tied = np.empty(len(hosts), dtype=np.intp), np.empty(len(hosts), dtype=np.int64)
    position = store.scratch(n_hosts)
    m = _tied(np.concatenate([ties.hosts for ties in held.values()]), hosts, position, asked, tied)
    asked, tied = asked[:m], tied[:m]
    rows: dict[str, Rows] = {}
    has: dict[str, npt.NDArray[np.bool_]] = {}
    present = set()
    for name, ties in held.items():
        rows[name], has[name] = store.nothing(name, m), np.zeros(m, dtype=np.bool_)
        if m and len(ties):
            rows[name] = taken = rows[name].copy()
            if _take(ties.hosts, tied, position, *ties.rows.parts, *taken.parts, has[name]):
                present.add(name)
    return GatheredTies(asked, rows, has, frozenset(present), (held["visits"].rows,), (0, m))


def side_by_side(parts: Sequence[GatheredTies], starts: Sequence[int]) -> GatheredTies:
    """The ties of several users as one, where user i's hosts begin at `starts[i]` among the hosts of all."""
    if len(parts) == 1:
        return parts[0]
    bounds = [0]
    for part in parts:
        bounds.append(bounds[-1] + len(part.asked))
    names = parts[0].rows.keys()
    return GatheredTies(
        np.concatenate([part.asked + start for part, start in zip(parts, starts, strict=True)]),
        {
            name: Rows(
                np.concatenate([part.rows[name].ints for part in parts]),
                np.concatenate([part.rows[name].decayed for part in parts]),
                np.concatenate([part.rows[name].latest for part in parts]),
            )
            for name in names
        },
        {name: np.concatenate([part.has[name] for part in parts]) for name in names},
        frozenset().union(*(part.present for part in parts)),
        tuple(visits for part in parts for visits in part.all_visits),
        tuple(bounds),
    )


@compiled
def _tied(
    mine: npt.NDArray[np.int32], hosts: npt.NDArray[np.integer], position: npt.NDArray[np.int32],
    asked: npt.NDArray[np.intp], tied: Ints,
) -> int:  # fmt: skip
    """Which of `hosts` (c,) are among `mine`: their positions into `asked`, themselves into `tied`; how many they are.
    `position` is scratch."""
    m = 0
    for host in mine:
        position[host] = 0
    for i in range(len(hosts)):
        asked[m], tied[m] = i, hosts[i]
        m += position[hosts[i]] >= 0
    for host in mine:
        position[host] = -1
    return m


@compiled
def _take(
    hosts: npt.NDArray[np.int32], tied: Ints, position: npt.NDArray[np.int32], ints: Ints, decayed: Floats,
    latest: Ints, out_ints: Ints, out_decayed: Floats, out_latest: Ints, has: npt.NDArray[np.bool_],
) -> int:  # fmt: skip
    """The states of the `tied` hosts (m,) that are among those of `hosts`; how many are. `position` is scratch."""
    n = 0
    for at in range(len(hosts)):
        position[hosts[at]] = at
    for i in range(len(tied)):
        at = position[tied[i]]
        if at >= 0:
            out_ints[i], out_decayed[i], out_latest[i], has[i] = ints[at], decayed[at], latest[at], True
            n += 1
    for at in range(len(hosts)):
        position[hosts[at]] = -1
    return n
