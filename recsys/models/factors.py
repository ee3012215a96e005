"""Host factors and the vector of a viewer folded in at request time.

The viewer's vector is the exact half-step of implicit-feedback ALS (Hu, Koren, Volinsky, ICDM 2008, eq. 4) on the fixed
host factors: x = (YᵀY + Yᵀ(C − I)Y + λI)⁻¹ YᵀC p. It needs no torch, so a viewer whose first minute was just watched
has a vector in the same request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from recsys.models.collaborative.fold_in import Turned, fold_in, gram


@dataclass(frozen=True)
class HostFactors:
    """Factors of the hosts, (n_hosts, d) float32, and what the fit they come from weighed.

    `confidence` multiplies a tie's confidence; the ridge of a viewer is `regularization · (Σ c + n_hosts) ** exponent`.
    """

    vectors: npt.NDArray[np.float32]
    gram: npt.NDArray[np.float32]
    confidence: float
    regularization: float
    exponent: float

    @classmethod
    def of(cls, vectors: npt.NDArray[np.float32], *, confidence: float, regularization: float, exponent: float) -> Self:
        """From fitted host factors; the Gram matrix is computed once here."""
        return cls(np.ascontiguousarray(vectors), gram(vectors), confidence, regularization, exponent)

    @cached_property
    def lengths(self) -> npt.NDArray[np.float32]:
        """Length of every host's vector, (n_hosts,)."""
        return np.asarray(np.linalg.norm(self.vectors, axis=1))

    @cached_property
    def _turned(self) -> Turned:
        return Turned.of(self.vectors, self.gram)

    def viewer(
        self, hosts: npt.NDArray[np.integer], confidences: npt.NDArray[np.floating[Any]]
    ) -> npt.NDArray[np.float32] | None:
        """The vector (d,) of a viewer with this history, or None when no host of it has factors.

        Args:
            hosts: (h,) distinct host rows; those without factors are skipped.
            confidences: (h,) confidences of the ties, > 0.
        """
        known = hosts < len(self.vectors)
        if not known.all():
            hosts, confidences = hosts[known], confidences[known]
        if not len(hosts):
            return None
        weights = np.asarray(self.confidence * confidences, np.float32)
        ridge = self.regularization * (float(weights.sum()) + len(self.vectors)) ** self.exponent
        vector = self._turned.fold_in(hosts, weights, ridge)
        return fold_in(self.vectors, self.gram, hosts, weights, ridge) if vector is None else vector

    def arrays(self, prefix: str) -> dict[str, npt.NDArray[np.generic]]:
        """Plain arrays for a bundle; `from_arrays` reads them back."""
        settings = np.array([self.confidence, self.regularization, self.exponent])
        return {f"{prefix}_vectors": self.vectors, f"{prefix}_gram": self.gram, f"{prefix}_settings": settings}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Self:
        """The factors written by `arrays`."""
        return cls(arrays[f"{prefix}_vectors"], arrays[f"{prefix}_gram"], *arrays[f"{prefix}_settings"].tolist())
