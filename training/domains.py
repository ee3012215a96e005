"""How true the private and public weights of answers are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.evaluation.probabilities import judge
from recsys.models.additive_training import softmax
from recsys.pipeline.features import of_known_hosts


def private_weights(
    scores: npt.NDArray[np.float64], own: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64], bonus: float = 0.0
) -> npt.NDArray[np.float64]:
    """The share (R,) of every request's chances that goes to hosts the viewer knows.

    Args:
        scores, own: (N,) of all candidates; groups: (R,) candidates per request.
        bonus: by how much more than their chance says hosts he knows score.
    """
    shares: npt.NDArray[np.float64] = np.add.reduceat(
        softmax(scores - bonus * own, groups) * own, np.cumsum(groups) - groups
    )
    return np.clip(shares, 0.0, 1.0)


def private_weight_metrics(
    scores: npt.NDArray[np.float64],
    values: npt.NDArray[np.floating],
    groups: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int8],
    bonus: float = 0.0,
) -> dict[str, float]:
    """The private weight judged as the probability that the viewer enters a room of a host he knows.

    Args:
        scores: (N,) of the ranker; values: (F, N) features; groups: (R,); labels: (N,) 1 for the room entered.
        bonus: as for `private_weights`.
    """
    own = of_known_hosts(values)
    chose = own[labels == 1]
    if len(np.unique(chose)) < 2:
        return {}
    report = judge(private_weights(scores, own, groups, bonus), chose)
    return {f"private_weight_{name}": report.figures()[name] for name in ("base_rate", "auc", "skill", "ece")}
