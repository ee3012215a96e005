"""`laotie doctor`: everything serving needs, looked at before anybody depends on it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recsys.bundle import Bundle, Manifest, resolve
from recsys.compiled import kept_in
from recsys.errors import InputRefused, LaotieError
from recsys.events.lake.manifest import LakeManifest
from serving.config import load_serving_config
from serving.engine import clock_us
from serving.streams import StreamFailed, connect

_PACKAGES = ("fastapi", "uvicorn", "msgspec", "prometheus_client", "httpx")
_FREE_BYTES = 1_000_000_000
_OLD_DAYS = 2.0


@dataclass(frozen=True)
class Finding:
    """One check; `status` is ok, warning or fault."""

    check: str
    status: Literal["ok", "warning", "fault"]
    why: str


@dataclass(frozen=True)
class Report:
    """All checks."""

    findings: tuple[Finding, ...]

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        return {"checks": [{"check": f.check, "status": f.status, "why": f.why} for f in self.findings]}

    def text(self) -> str:
        """One line per check."""
        return "\n".join(f"{f.status:>7}  {f.check}: {f.why}" for f in self.findings)

    def raise_faults(self) -> None:
        """
        Raises:
            InputRefused: at least one check found a fault.
        """
        faults = [f.check for f in self.findings if f.status == "fault"]
        if faults:
            raise InputRefused("not fit to serve", got=", ".join(faults))


def examine(bundle: Path, log: Path | None, config: Path | None) -> Report:
    """Look at everything; nothing is changed, and one fault hides no other."""
    where = log if log is not None else (bundle if (bundle / "CURRENT").is_file() else bundle.parent) / "events.db"
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("packages", _packages),
        ("compiled", _compiled),
        ("config", lambda: _config(config)),
        ("bundle", lambda: _bundle(bundle)),
        ("log", lambda: _log(where)),
        ("disk", lambda: _disk(where.parent, bundle)),
        ("lake", lambda: _lake(config)),
        ("stream", lambda: _stream(config)),
    )
    found = []
    for name, check in checks:
        try:
            found.append(check())
        except (LaotieError, OSError) as error:
            found.append(Finding(name, "fault", str(error)))
    return Report(tuple(found))


def _packages() -> Finding:
    lacking = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if lacking:
        return Finding("packages", "fault", f"not installed: {', '.join(lacking)}; pip install 'laotie[serve]'")
    return Finding("packages", "ok", "all there")


def _compiled() -> Finding:
    folder = kept_in()
    if folder is None or not os.access(folder if folder.is_dir() else folder.parent, os.W_OK):
        why = (
            "machine code cannot be kept, every start takes some 15 s more: NUMBA_CACHE_DIR must name a writable folder"
        )
        return Finding("compiled", "warning", why)
    return Finding("compiled", "ok", f"machine code is kept in {folder}")


def _config(path: Path | None) -> Finding:
    config = load_serving_config(path)
    keys = f"{len(config.keys)} keys" if config.keys else "no keys: everybody on loopback may do everything"
    return Finding("config", "ok", f"{config.host}:{config.port}, {config.workers} workers, {keys}")


def _bundle(path: Path) -> Finding:
    bundle = Bundle.open(resolve(path), verify="hashes")
    manifest = bundle.manifest
    if manifest.failed_gates:
        return Finding("bundle", "fault", f"gates failed: {', '.join(gate.name for gate in manifest.failed_gates)}")
    days = (clock_us() - manifest.window.as_of_us) / 86_400e6
    age = f"{manifest.name}, every hash right, as of {days:.1f} days ago"
    return Finding("bundle", "warning" if days > _OLD_DAYS else "ok", age)


def _log(path: Path) -> Finding:
    if not path.exists():
        folder = next(one for one in path.absolute().parents if one.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            return Finding("log", "fault", f"{path} does not exist, and {folder} is not ours to write")
        return Finding("log", "warning", f"{path} does not exist yet; serving makes it")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            verdict = str(db.execute("PRAGMA quick_check").fetchone()[0])
            mode = str(db.execute("PRAGMA journal_mode").fetchone()[0])
            last = db.execute("SELECT max(seq) FROM events").fetchone()[0]
    except sqlite3.Error as error:
        return Finding("log", "fault", f"{path} is no event log: {error}")
    if verdict != "ok" or mode != "wal":
        return Finding("log", "fault", f"{path}: {verdict}, journal {mode}")
    return Finding("log", "ok", f"{path}: sound, last offset {last or 0}")


def _disk(folder: Path, bundle: Path) -> Finding:
    """Room for the log to grow, and beside the bundle for the next one."""
    free = shutil.disk_usage(folder).free
    path = resolve(bundle)
    size = sum(entry.bytes for entry in Manifest.read(path).files.values())
    beside = shutil.disk_usage(path).free
    said = f"{free / 1e9:.1f} GB free at the log, {beside / 1e9:.1f} GB at the bundles of {size / 1e9:.1f} GB"
    return Finding("disk", "ok" if free > _FREE_BYTES and beside > 2 * size else "warning", said)


def _lake(path: Path | None) -> Finding:
    lake = load_serving_config(path).lake
    if lake is None:
        return Finding("lake", "ok", "none configured: users are erased from it by laotie erase --lake")
    manifest = LakeManifest.read(lake)
    lost = [file.path for file in manifest.files if not (lake / file.path).is_file()]
    if lost:
        return Finding("lake", "fault", f"{lake}: {len(lost)} files are gone, the first {lost[0]}")
    return Finding("lake", "ok", f"{lake}: {len(manifest.files)} files, {len(manifest.erased)} users erased")


def _stream(path: Path | None) -> Finding:
    settings = load_serving_config(path).stream
    if settings is None:
        return Finding("stream", "ok", "none configured")
    stream = connect(settings)
    try:
        position = stream.subscribe(None)
    except StreamFailed as error:
        return Finding("stream", "warning", str(error))
    finally:
        stream.close()
    return Finding("stream", "ok", f"{stream.name} answers; a new log would begin at {position}")
