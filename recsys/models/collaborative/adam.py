"""Adam over one large matrix, in its own memory plus two matrices of moments."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from recsys.models.collaborative.interactions import FloatArray

_FIRST, _SECOND = np.float32(0.9), np.float32(0.99)  # squares are forgotten sooner than usual: runs are short
_EPSILON = np.float32(1e-10)
_BLOCK_ROWS = 1024  # rows updated at a time, so that the moments pass through the cache once


@dataclass(slots=True)
class Adam:
    """Kingma and Ba, «Adam: A Method for Stochastic Optimization», ICLR 2015, algorithm 1; bias is in the rate."""

    values: FloatArray
    """What is learnt, float32 (rows, columns), changed in place."""
    _mean: FloatArray = field(init=False)
    _square: FloatArray = field(init=False)
    _steps: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._mean = np.zeros_like(self.values)
        self._square = np.zeros_like(self.values)

    def step(self, gradient: FloatArray, rate: float) -> None:
        """One step against `gradient`, of the shape of the values."""
        self._steps += 1
        unbiased = math.sqrt(1 - float(_SECOND) ** self._steps) / (1 - float(_FIRST) ** self._steps)
        size = np.float32(rate * unbiased)
        for start in range(0, len(self.values), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            part, mean, square = gradient[rows], self._mean[rows], self._square[rows]
            mean *= _FIRST
            mean += part * (1 - _FIRST)
            square *= _SECOND
            square += part * part * (1 - _SECOND)
            self.values[rows] -= size * mean / (np.sqrt(square) + _EPSILON)
