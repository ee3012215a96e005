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
def chances_by_popularity(entered: Floats, spread: float, chances: NDArray[np.float32]) -> None:
    """Of every host his part of the share that popularity shares out."""
    for host in range(len(chances)):
        chances[host] = max(entered[host] * spread, 0.0)


@compiled
def chances_added(
    hosts: NDArray[np.int32], entered: Floats, spread: float, dense: Floats, chances: NDArray[np.float32]
) -> None:
    """The same of some hosts, who may repeat, with what was added to them."""
    for host in hosts:
        chances[host] = max(entered[host] * spread + dense[host], 0.0)


@compiled
def chances_of(
    hosts: NDArray[np.integer[Any]], entered: Floats, spread: float, dense: Floats, chances: NDArray[np.float32]
) -> None:
    """Of candidates (c,) what `chances_by_popularity` and `chances_added` say together."""
    for i in range(len(hosts)):
        host = hosts[i]
        chances[i] = max(dense[host] + entered[host] * spread, 0.0)


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
