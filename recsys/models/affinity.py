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
from recsys.ties.standing import Relations, relations
from recsys.ties.store import TieStore, UserTies

Hosts = npt.NDArray[np.int32]
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
    store: TieStore,
    blocks: Blocks,
    held: Mapping[str, UserTies],
    stand: Relations,
    config: AffinityConfig,
    n_hosts: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """One user's hosts (h,) ascending and confidences (h,) > 0, as a row of `confidence_matrix`.

    Args:
        held: his ties by block, `store.held(user)`.
        stand: how those of the block `relation` stand.
        n_hosts: all host rows are below this.
    """
    visits, relation, commerce, depth = (held[name] for name in AFFINITY_BLOCKS)
    most = len(visits) + len(relation) + len(commerce) + len(depth)
    hosts, confidences = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.float32)
    if not most:
        return hosts, confidences
    n = _history(
        (visits.hosts, commerce.hosts, depth.hosts),
        (visits.rows.ints, commerce.rows.ints, depth.rows.ints),
        (
            blocks.visits.int_column("n_entries"),
            blocks.commerce.int_column("n_lines"),
            blocks.depth.int_column("n_comments"),
        ),
        (1.0, config.order, config.comment),
        relation.hosts,
        stand.follows,
        stand.blocks,
        config.follow,
        store.scratch(n_hosts),
        hosts,
        confidences,
    )
    return hosts[:n], confidences[:n]


@compiled
def _history(
    hosts_of: tuple[Hosts, Hosts, Hosts], ints_of: tuple[Ints, Ints, Ints], columns: tuple[int, int, int],
    weights: tuple[float, float, float], related: Hosts, follows: npt.NDArray[np.bool_],
    blocks: npt.NDArray[np.bool_], follow: float, position: Hosts, hosts: Ints, confidences: npt.NDArray[np.float32],
) -> int:  # fmt: skip
    """`history` from counts, of visits, order lines and comments, and relations; how many hosts. `position` is
    scratch."""
    distinct, total = np.empty(len(hosts), np.int64), np.zeros(len(hosts))
    n = _add_counts(hosts_of[0], ints_of[0], columns[0], weights[0], position, distinct, total, 0)
    n = _add_counts(hosts_of[1], ints_of[1], columns[1], weights[1], position, distinct, total, n)
    n = _add_counts(hosts_of[2], ints_of[2], columns[2], weights[2], position, distinct, total, n)
    for i in range(len(related)):
        if follows[i] and not blocks[i]:
            n = _add(related[i], follow, position, distinct, total, n)
    for i in range(n):
        position[distinct[i]] = -1
    kept = 0
    for i in np.argsort(distinct[:n]):
        hosts[kept], confidences[kept] = distinct[i], total[i]
        kept += total[i] > 0
    return kept


@compiled
def _add_counts(
    hosts: Hosts, ints: Ints, column: int, weight: float, position: Hosts, distinct: Ints, total: Floats, n: int
) -> int:
    """Add the weighed logarithm of a column of `ints` for all `hosts`."""
    for i in range(len(hosts)):
        n = _add(hosts[i], weight * np.log1p(float(ints[i, column])), position, distinct, total, n)
    return n


@compiled
def _add(host: int, value: float, position: Hosts, distinct: Ints, total: Floats, n: int) -> int:
    """Add to the `total` of a host, who stands at his `position` among `distinct`, of which there are `n`; how many
    then."""
    if position[host] < 0:
        position[host], distinct[n] = n, host
        n += 1
    total[position[host]] += value
    return n
