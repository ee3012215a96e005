"""Gates: thresholds a finished bundle must pass before it may be served."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from recsys.bundle.manifest import GateResult
from recsys.config import GateRule


def evaluate_gates(metrics: Mapping[str, float | None], gates: Iterable[GateRule]) -> list[GateResult]:
    """Verdict of every gate, in order. Bounds are inclusive; a value that is no number fails.

    A metric that is missing or None was not measured: its gate is `skipped` and says so, never passed.
    """
    return [_verdict(metrics.get(gate.metric), gate) for gate in gates]


def _verdict(value: float | None, gate: GateRule) -> GateResult:
    if value is None:
        status, why = "skipped", f"{gate.metric} was not measured"
    elif math.isnan(value):
        status, why = "failed", f"{gate.metric} is not a number"
    elif gate.minimum is not None and value < gate.minimum:
        status, why = "failed", f"{gate.metric} is {value:.6g}, below {gate.minimum:.6g}"
    elif gate.maximum is not None and value > gate.maximum:
        status, why = "failed", f"{gate.metric} is {value:.6g}, above {gate.maximum:.6g}"
    else:
        status, why = "passed", ""
    return GateResult.model_validate(
        {
            "name": gate.name,
            "metric": gate.metric,
            "status": status,
            "value": value,
            "minimum": gate.minimum,
            "maximum": gate.maximum,
            "why": why,
        }
    )
