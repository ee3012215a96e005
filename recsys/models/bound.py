"""Where the features of a model stand in a table of features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recsys.errors import LaotieError


def rows_of(features: Sequence[str], names: Sequence[str]) -> npt.NDArray[np.intp]:
    """The row (F,) of each feature of a model in tables with rows `names`.

    Raises:
        LaotieError: a feature of the model is not among `names`.
    """
    lacking = sorted(set(features) - set(names))
    if lacking:
        raise LaotieError("features of the model are not computed", got=lacking, expected="features of this version")
    position = {name: i for i, name in enumerate(names)}
    return np.array([position[name] for name in features], dtype=np.intp)
