"""Loops over the counts of `recsys.models.transition`.

`dense` (n_hosts + 1 or more, 3) holds by host what the rows of a viewer's recent hosts add to the `SUMS`; hosts not
counted yet share the place `n_hosts`. Shape letters: c candidates, t hosts that rows lead to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled

Floats = NDArray[np.float64]
_LARGEST = float(np.finfo(np.float32).max)
SUMS = 3
"""How many sums: chance from the last host alone, chance from all recent hosts, evidence."""


@compiled
def add_row(
    nexts: NDArray[np.int32], counts: Floats, last: float, recent: float, evidence: float, dense: Floats
) -> None:  # fmt: skip
    """Add a row to `dense`, weighted for each of the sums."""
    for z in range(len(nexts)):
        sums, count = dense[nexts[z]], counts[z]
        sums[0] += count * last
        sums[1] += count * recent
        sums[2] += count * evidence


@compiled
def take(hosts: NDArray[np.int32], dense: Floats, added: Floats) -> None:
    """Take out of `dense` what was added to hosts (t,), who may repeat."""
    for i in range(len(hosts)):
        added[i] = dense[hosts[i]]
    for host in hosts:
        dense[host] = 0.0


@compiled
def features(
    candidates: NDArray[np.integer[Any]], n_hosts: int, entered: Floats, everyone: float,
    hosts: NDArray[np.int32], added: Floats, shared_last: float, shared_recent: float, one: float,
    dense: Floats, out: NDArray[np.float32],
) -> None:  # fmt: skip
    """Into `out` (5, c) what `TransitionModel.features` tells of candidates (c,), from what was `added` (t, 3) to the
    `hosts` (t,) and the shares that popularity shares out. `entered` are weighed entries by host, `everyone` is their
    sum, `one` the ε of the lift."""
    for i in range(len(hosts)):
        dense[hosts[i]] = added[i]
    last, recent, evidence, lift, lift_last = out
    for i in range(len(candidates)):
        host = min(candidates[i], n_hosts)
        sums, popular = dense[host], entered[host] / everyone
        last[i] = max(sums[0] + popular * shared_last, 0.0)
        recent[i] = max(sums[1] + popular * shared_recent, 0.0)
        evidence[i] = min(sums[2], _LARGEST)
        lift[i] = (float(recent[i]) + one) / (popular + one)
        lift_last[i] = (float(last[i]) + one) / (popular + one)
    for host in hosts:
        dense[host] = 0.0
