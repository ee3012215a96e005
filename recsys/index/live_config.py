"""Settings of the live-room index."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LiveIndexConfig(BaseModel):
    """How rooms get their vectors, and when the index is put in order or searched by outlines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cohost_weight: float = Field(default=0.3, ge=0.0, allow_inf_nan=False)
    """λ: weight of the mean co-host vector in the vector of a joint broadcast."""
    dead_share: float = Field(default=0.05, gt=0.0, lt=1.0)
    """Share of dead slots from which the live rooms are copied together; a search scans the dead slots too."""
    outlined_from: int = Field(default=32_768, ge=0)
    """Slots from which the nearest are looked for by outlines first; vectors of fewer are read as fast."""
