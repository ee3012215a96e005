"""Loops over the counts of `recsys.models.transition`.

`dense` (n_hosts + 1 or more,) holds by host what the rows of a viewer's recent hosts add; hosts not counted yet share
the place `n_hosts`. Shape letters: c candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled

Floats = NDArray[np.float64]


@compiled
def add_row(nexts: NDArray[np.int32], counts: Floats, weight: float, dense: Floats) -> None:
    """Add a weighted row to `dense`."""
    for z in range(len(nexts)):
        dense[nexts[z]] += counts[z] * weight


@compiled
def taken(hosts: NDArray[np.int32], dense: Floats, added: Floats) -> None:
    """Take out of `dense` what was added to hosts (t,), who may repeat."""
    for i in range(len(hosts)):
        added[i] = dense[hosts[i]]
    for host in hosts:
        dense[host] = 0.0


@compiled
def chances_of(
    candidates: NDArray[np.integer[Any]], n_hosts: int, entered: Floats, spread: float,
    hosts: NDArray[np.int32], added: Floats, dense: Floats, chances: NDArray[np.float32],
) -> None:  # fmt: skip
    """Of candidates (c,) their part of the share that popularity shares out, and what was `added` to `hosts` (t,)."""
    for i in range(len(hosts)):
        dense[hosts[i]] = added[i]
    for i in range(len(candidates)):
        host = min(candidates[i], n_hosts)
        chances[i] = max(dense[host] + entered[host] * spread, 0.0)
    for host in hosts:
        dense[host] = 0.0


@compiled
def lifts(
    chances: NDArray[np.float32], hosts: NDArray[np.integer[Any]], entered: Floats, everyone: float, one: float,
    out: NDArray[np.float32],
) -> None:  # fmt: skip
    """(P + ε)/(π + ε) of rows of chances (R, c), π the hosts' shares of all entries and ε that of one."""
    for i in range(len(hosts)):
        popular = entered[hosts[i]] / everyone
        for row in range(len(chances)):
            out[row, i] = (float(chances[row, i]) + one) / (popular + one)
