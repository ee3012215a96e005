"""A bundle in which some files are others: the way to take something out of what is otherwise never changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from recsys.bundle.durable import exclusive, sha256_of, sync_path, sync_tree
from recsys.bundle.manifest import MANIFEST, FileEntry, Manifest, is_bundle_name
from recsys.bundle.shelf import put_in_place_of
from recsys.bundle.writer import remove_stale

Write = Callable[[Path], None]


def bundles_on(bundles_dir: Path) -> list[Path]:
    """Every finished bundle of a folder, served, kept or refused."""
    found = (entry for entry in bundles_dir.iterdir() if (entry / MANIFEST).is_file() and is_bundle_name(entry.name))
    return sorted(found)


def replace_files(bundle: Path, changes: Mapping[str, Write]) -> Path:
    """The bundle with other or further files, under a new name and in the place of the old one, which is removed.

    Files that stay are linked. The manifest is that of the old bundle with the new name, sizes and hashes. Interrupted
    at any point either the old or the new bundle is served, whole; the other may be left over, so do it again. Readers
    that have the old one open are not disturbed, and keep its files on the disk until they let go of it.

    Args:
        bundle: its directory.
        changes: full name → writes the file at the path it is given.

    Raises:
        BundleRefused: the manifest cannot be read.
    """
    shelf = bundle.parent
    manifest = Manifest.read(bundle)
    name = _free_name(shelf, bundle.name)
    folder = shelf / f"{name}.tmp-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    entries = dict(manifest.files)
    try:
        for file in [*manifest.files, *(file for file in changes if file not in manifest.files)]:
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if file in changes:
                changes[file](path)
                entries[file] = FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path))
            else:
                _link(bundle / file, path)
        (folder / MANIFEST).write_bytes(manifest.model_copy(update={"name": name, "files": entries}).to_json())
        sync_tree(folder)
        folder.rename(shelf / name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_path(shelf)
    with exclusive(shelf):
        put_in_place_of(shelf, bundle.name, name)
        remove_stale(shelf)
    return shelf / name


def _free_name(shelf: Path, old: str) -> str:
    stem = old.rpartition("-e")[0] if old.rpartition("-e")[2].isdigit() and "-e" in old else old
    number = 1
    while (shelf / f"{stem}-e{number}").exists():
        number += 1
    return f"{stem}-e{number}"


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a disk without links
        shutil.copyfile(source, target)
