"""One user's ties with the hosts of a request, gathered in one pass per block.

Shape letters: c hosts asked for, m of them with a tie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.ties.algebra import Rows
from recsys.ties.store import TieStore


@dataclass(frozen=True)
class TiesOfUser:
    """One user's ties with some hosts. m of the asked hosts have a tie in any block.

    `asked` (m,) positions in the hosts asked for; `rows` per block the m states (identity where the block has none);
    `has` per block (m,) whether the block has one; `all_visits` the user's visits with all hosts, for shares and ranks.
    """

    asked: npt.NDArray[np.intp]
    rows: dict[str, Rows]
    has: dict[str, npt.NDArray[np.bool_]]
    all_visits: Rows


def gather(store: TieStore, user: int, hosts: npt.NDArray[np.integer], n_hosts: int) -> TiesOfUser:
    """The ties of a user with each of `hosts` (c,), looked up in one pass per block.

    Args:
        store: the tie blocks.
        user: user row; −1 has no ties.
        hosts: host rows, may repeat.
        n_hosts: all host rows are below this.
    """
    position = store.scratch(n_hosts)
    found: dict[str, npt.NDArray[np.int32]] = {}
    any_tie = np.zeros(len(hosts), dtype=np.bool_)
    held = {name: store.of(name, user) for name in store.blocks}
    for name, ties in held.items():
        if len(ties):
            position[ties.hosts] = np.arange(len(ties), dtype=np.int32)
            found[name] = position[hosts]
            position[ties.hosts] = -1
            any_tie |= found[name] >= 0
    asked = np.flatnonzero(any_tie)
    rows: dict[str, Rows] = {}
    has: dict[str, npt.NDArray[np.bool_]] = {}
    for name, ties in held.items():
        nothing = store.nothing[name]
        if name not in found or not len(asked):
            rows[name], has[name] = nothing.take(np.zeros(len(asked), dtype=np.intp)), np.zeros(len(asked), np.bool_)
            continue
        at = found[name][asked]
        known = has[name] = at >= 0
        taken = rows[name] = ties.rows.take(at)  # −1 takes the last one, for the time being
        if not known.all():
            absent = ~known
            taken.ints[absent], taken.decayed[absent], taken.latest[absent] = (
                nothing.ints, nothing.decayed, nothing.latest
            )  # fmt: skip
    return TiesOfUser(asked, rows, has, held["visits"].rows)
