"""Several additive models that read the same table, scored in one go: what a call costs is paid once, not per model.

Shape letters: n columns, H models, T terms of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.models.additive import AdditiveModel

Floats = npt.NDArray[np.float64]


class StackedModels:
    """H additive models, all bound to the same names. Immutable; any number of threads may read it."""

    def __init__(self, models: Sequence[AdditiveModel]) -> None:
        first = np.cumsum([0, *(len(model.features) for model in models)]).tolist()
        pairs = tuple(
            replace(pair, first=pair.first + start, second=pair.second + start)
            for model, start in zip(models, first, strict=False)
            for pair in model.pairs
        )
        inputs = [np.arange(len(m.features)) if m.inputs is None else m.inputs for m in models]
        self._all = AdditiveModel(
            tuple(name for model in models for name in model.features),
            tuple(edges for model in models for edges in model.edges),
            tuple(main for model in models for main in model.mains),
            pairs,
            0.0,
            np.concatenate([np.empty(0, dtype=np.intp), *inputs]),
        )
        self._bias: Floats = np.array([model.bias for model in models])
        number = np.arange(len(models))
        terms = np.array([[len(model.features), len(model.pairs)] for model in models], dtype=np.int64).reshape(-1, 2)
        self._model_of = np.concatenate([np.repeat(number, terms[:, 0]), np.repeat(number, terms[:, 1])])

    def scores(self, values: npt.NDArray[np.floating[Any]]) -> Floats:
        """Scores (H, n) from the table the models are bound to."""
        total: Floats = np.repeat(self._bias[:, None], values.shape[1], axis=1)
        return self._all.sums(values, self._model_of, total)
