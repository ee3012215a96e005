"""Small bundles written for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from recsys.bundle import (
    BundleWriter,
    DataWindow,
    ManifestFields,
)
from recsys.config import EngineConfig


def fields(created_at_us: int = 1, **changes: object) -> ManifestFields:
    base: dict[str, object] = {
        "created_at_us": created_at_us,
        "config": EngineConfig().model_dump(mode="json"),
        "window": DataWindow(as_of_us=10),
    }
    return ManifestFields.model_validate(base | changes)


def write(bundles: Path, name: str, created_at_us: int = 1, **changes: object) -> Path:
    with BundleWriter(bundles, name) as writer:
        writer.array("a", np.arange(4, dtype=np.int32))
        writer.array("b", np.arange(4, 8, dtype=np.int32))
        writer.table("deep/table", pl.DataFrame({"x": [1, 2], "s": ["p", None]}))
        writer.json("doc", {"b": 1, "a": [None, 2.5]})
        writer.path("raw.bin").write_bytes(b"raw")
        return writer.finish(fields(created_at_us, **changes))


def visible(bundles: Path) -> set[str]:
    return {entry.name for entry in bundles.iterdir()} - {".lock"}
