"""The folder of bundles: which one is served, which one before it, and which may go.

`CURRENT` names the served bundle; it is the only truth and is swapped in one step. `HISTORY` names the published ones,
oldest first; whatever stands in it after `CURRENT`'s last occurrence was never served or was rolled back.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from recsys.bundle.durable import exclusive, replace_text, sync_path
from recsys.bundle.manifest import MANIFEST, Manifest, is_bundle_name
from recsys.bundle.reader import Bundle
from recsys.bundle.writer import REFUSED, remove_stale
from recsys.errors import BundleRefused, ConfigError, GateFailed
from recsys.instants import format_instant

CURRENT: Final = "CURRENT"
HISTORY: Final = "HISTORY"
STAGES: Final = ".stages"
"""What stages of builds made, kept for the next build; never served, and free to go at any time."""


def next_name(bundles_dir: Path, as_of_us: int) -> str:
    """A free name that sorts by as-of: `20260501T000000Z-1`, `-2` for the second build of the same as-of, and so on."""
    stamp = format_instant(as_of_us)[:19].replace("-", "").replace(":", "") + "Z"
    number = 1
    while any((bundles_dir / f"{prefix}{stamp}-{number}").exists() for prefix in ("", REFUSED)):
        number += 1
    return f"{stamp}-{number}"


def current_name(bundles_dir: Path) -> str | None:
    """Name of the served bundle; None if none was published yet.

    Raises:
        BundleRefused: `CURRENT` holds no bundle name.
    """
    try:
        name = (bundles_dir / CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleRefused("CURRENT cannot be read", where=bundles_dir / CURRENT, got=str(error)) from error
    if not is_bundle_name(name):
        hint = "write the name of a bundle beside it (HISTORY has those published), or remove it"
        raise BundleRefused(
            "CURRENT holds no bundle name", where=bundles_dir / CURRENT, got=repr(name[:100]), hint=hint
        )
    return name


def resolve(path: Path) -> Path:
    """What `--bundle` means: a bundle itself, or a folder of bundles and then its `CURRENT`.

    Raises:
        BundleRefused: neither; or nothing is published there.
    """
    if (path / MANIFEST).is_file():
        return path
    if not path.is_dir():
        raise BundleRefused("no such bundle", where=path, hint="make one with laotie build EVENTS --out BUNDLES")
    name = current_name(path)
    if name is None:
        raise BundleRefused(
            "neither a bundle nor a folder with a published one",
            where=path,
            got=f"no {MANIFEST}, no {CURRENT}",
            hint="make one with laotie build EVENTS --out BUNDLES",
        )
    return path / name


def publish(bundles_dir: Path, name: str) -> None:
    """Make `name` the served bundle, in one step that a crash cannot halve.

    Raises:
        BundleRefused: it cannot be opened.
        GateFailed: one of its gates failed; what was served stays served.
    """
    bundle = Bundle.open(_named(bundles_dir, name))
    failed = bundle.manifest.failed_gates
    if failed:
        raise GateFailed(
            "bundle not published",
            where=bundle.path,
            got="; ".join(f"{gate.name}: {gate.why}" for gate in failed),
            hint="what was served before is still served; the refused bundle is kept for inspection",
        )
    with exclusive(bundles_dir):
        _write_history(bundles_dir, [*_served(bundles_dir), name])
        replace_text(bundles_dir / CURRENT, name + "\n")


def rollback(bundles_dir: Path) -> str:
    """Serve the bundle before the current one again; its name. A second rollback goes one further back.

    Raises:
        BundleRefused: there is no bundle before that can still be opened.
    """
    if current_name(bundles_dir) is None:
        raise BundleRefused("no bundle is published here", where=bundles_dir, expected=f"a folder with {CURRENT}")
    with exclusive(bundles_dir):
        served = _served(bundles_dir)
        refusals: list[str] = []
        for position in range(len(served) - 2, -1, -1):
            if served[position] == served[-1]:
                continue
            try:
                Bundle.open(_named(bundles_dir, served[position]), verify="hashes")
            except BundleRefused as error:
                refusals.append(str(error))
                continue
            replace_text(bundles_dir / CURRENT, served[position] + "\n")
            _write_history(bundles_dir, served[: position + 1])
            return served[position]
    raise BundleRefused(
        "no bundle to go back to", where=bundles_dir, got="; ".join(refusals) or f"history {served}", hint="build again"
    )


def retain(bundles_dir: Path, keep: int) -> list[str]:
    """Remove old bundles; the names removed.

    Kept are the served one, the last `keep` served before and with it, the `keep` newest by creation, and as many of
    the refused. Readers that have a removed bundle open are not disturbed.

    Raises:
        ConfigError: keep < 2, which would leave nothing to roll back to.
    """
    if keep < 2:
        raise ConfigError("too few bundles kept", got=keep, expected="2 or more", where="keep")
    with exclusive(bundles_dir):
        remove_stale(bundles_dir)
        served = _served(bundles_dir)
        created: dict[bool, list[tuple[int, str]]] = {False: [], True: []}
        for entry in bundles_dir.iterdir():
            if not is_bundle_name(entry.name) or not (entry / MANIFEST).is_file():
                continue
            try:
                age = Manifest.read(entry).created_at_us
            except BundleRefused:
                continue  # not ours to judge: left where it is
            created[entry.name.startswith(REFUSED)].append((age, entry.name))
        kept = set(list(dict.fromkeys(reversed(served)))[:keep])
        for group in created.values():
            kept.update(name for _, name in sorted(group)[-keep:])
        removed = sorted(name for group in created.values() for _, name in group if name not in kept)
        for name in removed:  # first out of sight, so that a crash leaves no half bundle
            doomed = bundles_dir / f"{name}.tmp-{os.getpid()}"
            (bundles_dir / name).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        sync_path(bundles_dir)
    return removed


def put_in_place_of(bundles_dir: Path, old: str, new: str) -> None:
    """Serve and remember `new` wherever it was `old`, and remove `old`. The caller holds the folder's lock."""
    try:
        names = (bundles_dir / HISTORY).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        names = []
    if old in names:
        _write_history(bundles_dir, [new if name == old else name for name in names])
    if current_name(bundles_dir) == old:
        replace_text(bundles_dir / CURRENT, new + "\n")
    doomed = bundles_dir / f"{old}.tmp-{os.getpid()}"
    (bundles_dir / old).rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    sync_path(bundles_dir)


def _named(bundles_dir: Path, name: str) -> Path:
    if not is_bundle_name(name):
        raise BundleRefused("not a bundle name", where=bundles_dir, got=repr(name))
    return bundles_dir / name


def _served(bundles_dir: Path) -> list[str]:
    """Published bundles, oldest first, the current one last."""
    current = current_name(bundles_dir)
    if current is None:
        return []
    try:
        names = (bundles_dir / HISTORY).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        names = []
    if current not in names:
        return [*names, current]
    return names[: len(names) - names[::-1].index(current)]


def _write_history(bundles_dir: Path, names: list[str]) -> None:
    replace_text(bundles_dir / HISTORY, "".join(name + "\n" for name in names))


def forget_stages(bundles_dir: Path) -> bool:
    """Remove what stages of builds have kept; whether there was something. The next build runs all its stages."""
    kept = bundles_dir / STAGES
    if not kept.is_dir():
        return False
    with exclusive(bundles_dir):
        doomed = bundles_dir / f"stages.tmp-{os.getpid()}"
        kept.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    return True
