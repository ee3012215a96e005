"""Calibration of probabilities: how wrong they are, and maps that repair them.

Measures: `calibration_error` (equal-mass bins), `reliability_curve`, `log_loss`, `log_loss_skill`. Maps: `LogitMap`
(intercept and slope on the log-odds) and `IsotonicMap` (monotone, piecewise linear). Both are fitted here with numpy
alone, are frozen, and export to plain arrays, so that applying one needs nothing but numpy. Formulas and their
sources: docs/formulas/calibration.md.

All arrays are 1-d and of one length n: `p` probabilities, `y` outcomes in {0, 1}, `weight` non-negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.errors import InputRefused

FloatArray = NDArray[np.float64]

EPS = 1e-6
"""Probabilities are clipped to [EPS, 1 - EPS] wherever a logarithm is taken."""


def logit(p: ArrayLike) -> FloatArray:
    """Log-odds of `p` after clipping to [EPS, 1 - EPS]; any shape."""
    clipped = np.clip(np.asarray(p, dtype=np.float64), EPS, 1 - EPS)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def sigmoid(z: ArrayLike) -> FloatArray:
    """1 / (1 + exp(-z)) without overflow; any shape."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(z, dtype=np.float64))))


def log_loss(p: ArrayLike, y: ArrayLike) -> float:
    """Mean negative log-likelihood in nats."""
    p_, y_, _ = _checked(p, y, None)
    clipped = np.clip(p_, EPS, 1 - EPS)
    return float(-np.mean(y_ * np.log(clipped) + (1 - y_) * np.log1p(-clipped)))


def log_loss_skill(p: ArrayLike, y: ArrayLike) -> float:
    """1 - log_loss(p) / log_loss(base rate of y): 0 is as good as knowing the base rate, 1 is perfect.

    NaN when y holds one class only: then the base rate explains everything and skill has no meaning.
    """
    _, y_, _ = _checked(p, y, None)
    base = float(y_.mean())
    if base in (0.0, 1.0):
        return float("nan")
    return 1.0 - log_loss(p, y) / log_loss(np.full(len(y_), base), y_)


@dataclass(frozen=True)
class ReliabilityCurve:
    """Equal-mass bins in ascending order of p; each array has shape (bins,).

    Attributes:
        count: rows per bin (they differ by at most one).
        mean_p: mean probability said.
        rate: share of rows where it happened.
    """

    count: NDArray[np.int64]
    mean_p: FloatArray
    rate: FloatArray

    @property
    def error(self) -> float:
        """Expected calibration error: sum over bins of count / n x |rate - mean_p|."""
        return float(np.sum(self.count * np.abs(self.rate - self.mean_p)) / self.count.sum())


def reliability_curve(p: ArrayLike, y: ArrayLike, bins: int = 15) -> ReliabilityCurve:
    """Cut the rows, sorted by p, into `bins` groups of equal size (at most one row apart).

    Rows of equal p keep their order (stable sort) and may fall on both sides of a border. With fewer rows than bins
    every row is its own bin.
    """
    p_, y_, _ = _checked(p, y, None)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    groups = np.array_split(np.argsort(p_, kind="stable"), min(bins, len(p_)))
    return ReliabilityCurve(
        count=np.array([len(g) for g in groups], dtype=np.int64),
        mean_p=np.array([p_[g].mean() for g in groups]),
        rate=np.array([y_[g].mean() for g in groups]),
    )


def calibration_error(p: ArrayLike, y: ArrayLike) -> float:
    """Expected calibration error over 15 equal-mass bins, in units of probability."""
    return reliability_curve(p, y).error


@dataclass(frozen=True)
class LogitMap:
    """p' = sigmoid(intercept + slope x logit(p)); intercept 0 and slope 1 leave p as it is."""

    intercept: float = 0.0
    slope: float = 1.0

    @classmethod
    def fit(
        cls,
        p: ArrayLike,
        y: ArrayLike,
        *,
        weight: ArrayLike | None = None,
        intercept_sd: float = 1.0,
        slope_sd: float = 0.0,
        iterations: int = 50,
    ) -> Self:
        """Maximum a posteriori of both coefficients, with normal priors around the identity (0, 1).

        The log-odds are centred before fitting, so that the intercept moves the level and the slope the spread.

        Args:
            weight: rows count this much; None: 1 each.
            intercept_sd: standard deviation of the prior of the intercept, in log-odds.
            slope_sd: the same for the slope; 0 holds the slope at 1, so that only the level is moved.
            iterations: Newton steps at most; it converges quadratically, usually within eight.
        """
        p_, y_, w = _checked(p, y, weight)
        z = logit(p_)
        centre = float(np.average(z, weights=w))
        z = z - centre
        precision_a, precision_b = 1.0 / intercept_sd**2, (np.inf if slope_sd == 0 else 1.0 / slope_sd**2)
        a, b = 0.0, 1.0  # q = sigmoid(centre + a + b z)
        for _ in range(iterations):
            q = sigmoid(centre + a + b * z)
            residual, curvature = w * (q - y_), w * q * (1 - q)
            g_a = residual.sum() + precision_a * a
            h_aa = curvature.sum() + precision_a
            if slope_sd == 0:
                step_a, step_b = g_a / h_aa, 0.0
            else:
                g_b = (residual * z).sum() + precision_b * (b - 1)
                h_bb, h_ab = (curvature * z * z).sum() + precision_b, (curvature * z).sum()
                det = h_aa * h_bb - h_ab * h_ab
                step_a, step_b = (h_bb * g_a - h_ab * g_b) / det, (h_aa * g_b - h_ab * g_a) / det
            a -= float(np.clip(step_a, -2.0, 2.0))
            b -= float(np.clip(step_b, -0.5, 0.5))
            if abs(step_a) + abs(step_b) < 1e-10:
                break
        return cls(intercept=a + (1.0 - b) * centre, slope=b)

    def apply(self, p: ArrayLike) -> FloatArray:
        """Calibrated probabilities, same shape as `p`."""
        return sigmoid(self.intercept + self.slope * logit(p))

    def to_arrays(self) -> dict[str, FloatArray]:
        """Everything needed to apply the map: `coefficients` (2,) = intercept, slope."""
        return {"coefficients": np.array([self.intercept, self.slope])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Self:
        """Inverse of `to_arrays`."""
        intercept, slope = (float(v) for v in arrays["coefficients"])
        return cls(intercept, slope)


@dataclass(frozen=True)
class IsotonicMap:
    """Non-decreasing and piecewise linear through the knots; constant beyond the first and the last.

    Attributes:
        x: said probabilities at the knots, strictly ascending, shape (k,).
        y: calibrated probabilities at the knots, non-decreasing, shape (k,).
    """

    x: FloatArray
    y: FloatArray

    @classmethod
    def fit(cls, p: ArrayLike, y: ArrayLike, *, weight: ArrayLike | None = None, prior_rows: float = 1.0) -> Self:
        """Pool adjacent violators; one knot per pooled block, at the block's mean probability.

        Args:
            prior_rows: rows of weight, at the block's own mean p, added to every block, so that a block of few rows
                never says 0 or 1. The shrunk values are pooled once more, hence still non-decreasing.
        """
        p_, y_, w = _checked(p, y, weight)
        keep = w > 0
        x, inverse = np.unique(p_[keep], return_inverse=True)
        mass = np.bincount(inverse, w[keep]).astype(np.float64)
        hits = np.bincount(inverse, w[keep] * y_[keep])
        block = _pool(hits / mass, mass)
        block_mass = np.bincount(block, mass).astype(np.float64)
        knots = np.bincount(block, mass * x) / block_mass
        shrunk = (np.bincount(block, hits) + prior_rows * knots) / (block_mass + prior_rows)
        again = _pool(shrunk, block_mass)
        return cls(x=knots, y=(np.bincount(again, block_mass * shrunk) / np.bincount(again, block_mass))[again])

    def apply(self, p: ArrayLike) -> FloatArray:
        """Calibrated probabilities, same shape as `p`."""
        return np.asarray(np.interp(np.asarray(p, dtype=np.float64), self.x, self.y))

    def to_arrays(self) -> dict[str, FloatArray]:
        """Everything needed to apply the map: `x` (k,) and `y` (k,)."""
        return {"x": self.x, "y": self.y}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Self:
        """Inverse of `to_arrays`."""
        return cls(x=np.asarray(arrays["x"], dtype=np.float64), y=np.asarray(arrays["y"], dtype=np.float64))


def _pool(value: FloatArray, mass: FloatArray) -> NDArray[np.int64]:
    """Pool adjacent violators: block number (ascending from 0) of each element; blocks have non-decreasing means."""
    means: list[float] = []
    masses: list[float] = []
    lengths: list[int] = []
    for v, m in zip(value.tolist(), mass.tolist(), strict=True):
        length = 1
        while means and means[-1] >= v:
            v = (means[-1] * masses[-1] + v * m) / (masses[-1] + m)
            m += masses.pop()
            length += lengths.pop()
            means.pop()
        means.append(v)
        masses.append(m)
        lengths.append(length)
    return np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)


def _checked(p: ArrayLike, y: ArrayLike, weight: ArrayLike | None) -> tuple[FloatArray, FloatArray, FloatArray]:
    p_ = np.asarray(p, dtype=np.float64)
    y_ = np.asarray(y, dtype=np.float64)
    w = np.ones(len(p_)) if weight is None else np.asarray(weight, dtype=np.float64)
    if p_.ndim != 1 or p_.shape != y_.shape or p_.shape != w.shape or not len(p_):
        raise InputRefused(
            "probabilities and outcomes do not fit together",
            where="calibration",
            got=f"shapes p {p_.shape}, y {y_.shape}, weight {w.shape}",
            expected="three 1-d arrays of one length of at least 1",
            hint="pass one outcome per probability",
        )
    if not (np.isfinite(p_).all() and (p_ >= 0).all() and (p_ <= 1).all()):
        raise InputRefused("not probabilities", where="calibration", got="values outside [0, 1] or not finite",
                           expected="finite values in [0, 1]", hint="apply a sigmoid to raw scores first")  # fmt: skip
    if not np.isin(y_, (0.0, 1.0)).all():
        raise InputRefused("not outcomes", where="calibration", got="values other than 0 and 1", expected="0 or 1",
                           hint="count an outcome as 1 when it happened at least once")  # fmt: skip
    if not ((w >= 0).all() and np.isfinite(w).all() and w.sum() > 0):
        raise InputRefused("unusable weights", where="calibration", got="negative, not finite, or all zero",
                           expected="non-negative with a positive sum", hint="drop `weight`")  # fmt: skip
    return p_, y_, w
