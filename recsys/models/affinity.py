"""How much a tie counts in collaborative filtering: one confidence per (user, host), from several blocks.

    c = log(1 + entries) + w_follow·[follows now] + w_order·log(1 + order lines) + w_comment·log(1 + comments)

Counts enter as logarithms because the tenth visit says less than the second (Hu, Koren, Volinsky, ICDM 2008, §3, use
the same damping). The same function serves the training matrix (all ties at once) and a request (one user's ties).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsys.compiled import compiled
from recsys.config import AffinityConfig
from recsys.ties.algebra import Block, Floats, Ints, Rows
from recsys.ties.blocks import Blocks
from recsys.ties.layers import State
from recsys.ties.standing import relations
from recsys.ties.store import TieStore, UserTies

AFFINITY_BLOCKS = ("visits", "relation", "commerce", "depth")


def confidence(block: Block, rows: Rows, config: AffinityConfig) -> Floats:
    """The share of one block in the confidence of each tie, (N,) ≥ 0; a blocked host's follow counts nothing."""
    match block.name:
        case "visits":
            return np.log1p(rows.ints[:, block.int_column("n_entries")].astype(np.float64))
        case "relation":
            stand = relations(block, rows)
            return config.follow * (stand.follows & ~stand.blocks).astype(np.float64)
        case "commerce":
            return config.order * np.log1p(rows.ints[:, block.int_column("n_lines")].astype(np.float64))
        case "depth":
            return config.comment * np.log1p(rows.ints[:, block.int_column("n_comments")].astype(np.float64))
        case other:
            raise ValueError(f"block {other} has no part in the confidence")


def confidence_matrix(states: Mapping[str, State], config: AffinityConfig, n_users: int, n_hosts: int) -> sp.csr_matrix:
    """Confidences of all ties, (n_users, n_hosts) float32, without stored zeros."""
    keys = [np.empty(0, dtype=np.int64)]
    values = [np.empty(0, dtype=np.float32)]
    for name in AFFINITY_BLOCKS:
        state = states.get(name)
        if state is not None and len(state):
            key, value = state.scan(partial(confidence, state.block, config=config))
            keys.append(key)
            values.append(value.astype(np.float32))
    where = np.concatenate(keys)
    pairs = sp.coo_matrix((np.concatenate(values), (where >> 32, where & 0xFFFFFFFF)), shape=(n_users, n_hosts))
    total: sp.csr_matrix = pairs.tocsr()
    total.eliminate_zeros()
    total.sort_indices()
    return total


def history(
    store: TieStore, blocks: Blocks, held: Mapping[str, UserTies], config: AffinityConfig, n_hosts: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """One user's hosts (h,) ascending and confidences (h,) > 0, as a row of `confidence_matrix`.

    Args:
        held: his ties by block, `store.held(user)`.
        n_hosts: all host rows are below this.
    """
    hosts: list[npt.NDArray[np.int32]] = []
    values: list[Floats] = []
    for name in AFFINITY_BLOCKS:
        ties = held[name]
        if len(ties):
            hosts.append(ties.hosts)
            values.append(confidence(getattr(blocks, name), ties.rows, config))
    if not hosts:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    every = np.concatenate(hosts)
    distinct, total = np.empty(len(every), dtype=np.int64), np.zeros(len(every))
    n = _add_up(every, np.concatenate(values), store.scratch(n_hosts), distinct, total)
    kept = np.flatnonzero(total[:n] > 0)
    kept = kept[distinct[kept].argsort()]
    return distinct[kept], total[kept].astype(np.float32)


@compiled
def _add_up(
    hosts: npt.NDArray[np.int32], values: Floats, position: npt.NDArray[np.int32], distinct: Ints, total: Floats
) -> int:
    """Into `distinct` every host once, into `total` the sum of its values; how many hosts. `position` is scratch."""
    n = 0
    for i in range(len(hosts)):
        host = hosts[i]
        if position[host] < 0:
            position[host], distinct[n] = n, host
            n += 1
        total[position[host]] += values[i]
    for i in range(n):
        position[distinct[i]] = -1
    return n
