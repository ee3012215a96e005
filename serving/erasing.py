"""Erasing a user everywhere, in the order that keeps the promise: first nobody is served of him, then the bytes go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys.bundle import forget_stages
from recsys.bundle.rewriting import bundles_on
from recsys.erasure import Erasure
from recsys.events.lake.erasing import erase_from_lake
from recsys.instants import format_instant
from recsys.live.erasing import erase_from_bundle
from serving.engine import Engine

_ELSEWHERE = "exports and brokers outside; backups; sums in which he is one of many, until the next full build"


def erase_everywhere(engine: Engine, user_id: int | str, lake: Path | None) -> dict[str, Any]:
    """Erase a user from services, log, bundles and lake. May be repeated: what an interruption left is removed then.

    Bundles get new names; services on the folder of bundles take the current one over by themselves, this engine does
    so at once. A bundle that was opened by its own path is left alone: its path would no longer lead to it.

    Args:
        engine: on the log that all services share; every bundle of its folder of bundles is searched.
        user_id: external id.
        lake: None: not known here, the receipt says so.

    Returns:
        A receipt: user_id, `erased_at`, `offset` and `log_rows` of the log, `bundles` (name, new name, rows, files),
        `lake` (rows by table, files), `later_builds` (what keeps him out), `not_covered`.

    Raises:
        LogFailed: not acknowledged. InputRefused, BundleRefused: nothing of him is served any more, but a file could
            not be read; mend it and ask again.
    """
    receipt = engine.erase(user_id)
    at_us = receipt.pop("erased_at_us")
    written, left = [], _ELSEWHERE
    if engine.bundles is None:
        left = f"bundle {engine.loaded.name}: give the folder of bundles, not a bundle; {left}"
    else:
        found = (erase_from_bundle(path, user_id, at_us) for path in bundles_on(engine.bundles))
        written = [done for done in found if done is not None]
        forget_stages(engine.bundles)  # states of builds, kept for the next one
        if any(done["bundle"] == engine.loaded.name for done in written):
            engine.swap()
    from_lake = None if lake is None else erase_from_lake(lake, [Erasure.of(user_id, at_us)], user_id)
    refused = "no lake was named: a build from old exports would bring him back"
    if from_lake is not None:
        refused = f"the lake refuses what he did until {format_instant(at_us)}; later facts are a newcomer's"
    return receipt | {
        "erased_at": format_instant(at_us),
        "bundles": written,
        "lake": from_lake,
        "later_builds": refused,
        "not_covered": left,
    }
