"""Resident memory kept within bounds: what was read of the bundle is given back when it is much.

A large bundle is read here and there; every page ever touched, and those the system maps around it, count as resident.
They are a copy of what lies in the page cache, so they are unmapped now and then (`recsys.bundle.mapping`).
"""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

from serving.config import ServingConfig
from serving.engine import Engine

_CHECK_S = 2.0
_STATM = Path("/proc/self/statm")


def mapped_mb() -> float:
    """MiB of files mapped into this process and resident; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[2]) * resource.getpagesize() / 2**20
    except OSError:
        return 0.0


async def keep(engine: Engine, config: ServingConfig) -> None:
    """Give the pages of the bundle back whenever more than `most_mapped_mb` are mapped; until cancelled."""
    while config.most_mapped_mb:
        await asyncio.sleep(_CHECK_S)
        if mapped_mb() > config.most_mapped_mb:
            await asyncio.to_thread(engine.loaded.bundle.maps.give_back)
