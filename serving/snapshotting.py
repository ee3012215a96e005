"""Making a snapshot in a process of its own, and pruning the log behind bundles and snapshot.

python -m serving.snapshotting BUNDLE LOG SETTINGS     what a worker starts; `laotie snapshot` is for people
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import orjson

from recsys.bundle import Bundle, resolve
from recsys.bundle.rewriting import bundles_on
from recsys.errors import LaotieError
from recsys.events.log_tables import ERASE, log_source
from serving.config import ServingConfig
from serving.engine import Engine
from serving.event_log import EventLog
from serving.loaded import LOG_SOURCE
from serving.loading import load_bundle
from serving.snapshots import alone, offset_of, write

_CHECK_S, _AGAIN_S = 5.0, 60.0
_log = logging.getLogger("laotie.serving")
_SETTINGS: Final = ("dedup_horizon", "lease_s")


def make(bundle: Path, log: Path, config: ServingConfig) -> dict[str, Any]:
    """Bring a bundle up to the end of the log, from the last snapshot on, and write the next one.

    Returns:
        `offset` it goes up to, `before`: the one before, `bytes`; `made` False: another process is making one, or a
        user was erased meanwhile.

    Raises:
        BundleRefused, GateFailed: the bundle cannot be served. ConfigError, LogFailed: the log cannot be read.
    """
    with alone(log) as mine:
        if not mine:
            return {"made": False, "why": "another process is making one"}
        opened = EventLog(log)
        try:
            before = offset_of(log)
            loaded = load_bundle(resolve(bundle), config, opened, 0)
            path = write(loaded, opened)
        finally:
            opened.close()
    if path is None:
        return {"made": False, "why": "a user was erased meanwhile"}
    return {"made": True, "offset": loaded.applied, "before": before, "bytes": path.stat().st_size}


def start(bundle: Path, log: Path, config: ServingConfig) -> subprocess.Popen[bytes]:
    """`make` in a process of its own, of low priority; the caller waits for it."""
    settings = orjson.dumps({name: getattr(config, name) for name in _SETTINGS}).decode()
    command = [sys.executable, "-m", "serving.snapshotting", str(bundle), str(log), settings]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


async def keep(engine: Engine, config: ServingConfig) -> None:
    """Have a snapshot made whenever `snapshot_every` records have come since the last one; until cancelled."""
    log = engine.log_path
    if log is None or not config.snapshot_every:
        return
    while True:
        await asyncio.sleep(_CHECK_S)
        upto = engine.loaded.applied
        if upto - offset_of(log) < config.snapshot_every:
            continue
        process = None
        try:
            process = start(engine.bundles or engine.loaded.bundle.path, log, config)
            code = await asyncio.to_thread(process.wait)
            why = f"exit {code}" if code else None
        except asyncio.CancelledError:
            if process is not None:
                process.terminate()
            raise
        except OSError as error:  # no process can be had: the next one may
            why = str(error)
        if why:
            _log.error(orjson.dumps({"event": "no snapshot", "why": why, "offset": upto}).decode())
            await asyncio.sleep(_AGAIN_S)


def prune(shelf: Path, log: Path, config: ServingConfig) -> dict[str, Any]:
    """Remove the records that every bundle on the shelf contains, less the horizon of deduplication.

    A bundle that does not say how much of this log it contains needs all of it.

    Returns:
        `removed` records, and the offset up to which they are gone (`pruned_upto`).

    Raises:
        BundleRefused: a bundle on the shelf cannot be read. LogFailed: the log cannot be pruned.
    """
    opened = EventLog(log)
    try:
        contained = []
        for path in bundles_on(shelf):
            offsets = Bundle.open(path).manifest.offsets
            named = any(name.startswith(log_source("")) for name in offsets)
            contained.append(offsets.get(log_source(opened.log_id) if named else LOG_SOURCE, 0))
        removed = opened.prune(min(contained, default=0) - config.dedup_horizon, keep=ERASE)
        return {"removed": removed, "pruned_upto": opened.pruned_upto}
    finally:
        opened.close()


def _main() -> int:
    os.nice(10)
    bundle, log, settings = sys.argv[1:]
    try:
        make(Path(bundle), Path(log), ServingConfig(**orjson.loads(settings)))
    except (LaotieError, OSError) as error:
        _log.error("no snapshot: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
