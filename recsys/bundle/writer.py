"""Writing a bundle: everything under a temporary name, hashed, flushed, opened again, then renamed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import orjson
import polars as pl

from recsys import __version__
from recsys.bundle.durable import sha256_of, sync_path, sync_tree
from recsys.bundle.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    ManifestFields,
    is_bundle_name,
    is_file_name,
)
from recsys.bundle.reader import Bundle
from recsys.errors import ConfigError

REFUSED: Final = "refused-"
"""Prefix of finished bundles that failed a gate: kept for inspection, never served."""
_TEMPORARY: Final = re.compile(r".+\.tmp-(\d+)")
_in_use: set[Path] = set()
"""Temporary directories of this process; one of ours that is not here is left from a dead process with our pid."""


class BundleWriter:
    """Context manager that writes one bundle. Until `finish` returns, nothing is visible; after it, nothing changes.

    Leaving the context without `finish`, or by an exception, removes everything written. A killed process leaves a
    temporary directory behind, which the next writer removes.

    Names of parts are relative paths such as `ties/last_at`; the suffix (`.npy`, `.parquet`, `.json`) is added.

    Args:
        bundles_dir: the folder of bundles; made if missing.
        name: name of the new bundle, unused so far (see `next_name`).

    Raises:
        ConfigError: the name is taken or not plain, or the folder cannot be written.
    """

    def __init__(self, bundles_dir: Path, name: str) -> None:
        if not is_bundle_name(name) or name.startswith(REFUSED):
            raise ConfigError("not a bundle name", got=repr(name), expected="letters, digits, '.', '_', '-'")
        self._bundles_dir, self._name = bundles_dir, name
        self._folder = bundles_dir / f"{name}.tmp-{os.getpid()}"
        self._format_version = 1
        self._linked: dict[str, FileEntry] = {}

    def __enter__(self) -> Self:
        try:
            self._bundles_dir.mkdir(parents=True, exist_ok=True)
            remove_stale(self._bundles_dir)
            for taken in (self._bundles_dir / self._name, self._bundles_dir / (REFUSED + self._name)):
                if taken.exists():
                    raise ConfigError(
                        "bundle exists already", where=taken, hint="a bundle never changes; take a new name"
                    )
            self._folder.mkdir()
        except OSError as error:
            raise ConfigError("bundles cannot be written here", where=self._bundles_dir, got=str(error)) from error
        _in_use.add(self._folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _in_use.discard(self._folder)
        shutil.rmtree(self._folder, ignore_errors=True)

    def array(self, name: str, array: np.ndarray[Any, np.dtype[Any]]) -> None:
        """Add an array of any plain dtype; it is opened memory-mapped.

        Raises:
            TypeError: the dtype holds Python objects, which would need pickle.
        """
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r} holds Python objects")
        np.save(self.path(name + ".npy"), np.asarray(array, order="C"), allow_pickle=False)

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """Add a table as Parquet."""
        frame.write_parquet(self.path(name + ".parquet"), compression="zstd")

    def json(self, name: str, document: Any) -> None:
        """Add a small document; keys are sorted."""
        self.path(name + ".json").write_bytes(orjson.dumps(document, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2))

    def link(self, name: str, bundle: Bundle) -> None:
        """Add the file that another bundle has under this full name; it lies on the disk once, where disks allow it."""
        path = self.path(name)
        try:
            os.link(bundle.file(name), path)
        except OSError:  # another file system, or one without links
            shutil.copyfile(bundle.file(name), path)
        else:
            self._linked[name] = bundle.manifest.files[name]

    def adopt(self, name: str, file: Path) -> None:
        """Add a finished file; it is not copied if it lies on the same disk, and must not change afterwards."""
        path = self.path(name)
        try:
            os.link(file, path)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, path)

    def needs(self, format_version: int) -> None:
        """Something was written that readers of an earlier format would misread."""
        self._format_version = max(self._format_version, format_version)

    def path(self, name: str) -> Path:
        """Where to write the file `name` (with its suffix); for streaming writers, who must close it before `finish`.

        Raises:
            ValueError: the name is not a plain relative path, or is taken.
        """
        if self._folder not in _in_use:
            raise RuntimeError("bundle is finished or was never begun")
        if not is_file_name(name):
            raise ValueError(f"not a plain relative file name: {name!r}")
        path = self._folder / name
        if path.exists():
            raise ValueError(f"written twice: {name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, fields: ManifestFields) -> Path:
        """Hash, flush, check and rename; the bundle's path afterwards.

        A bundle with a failed gate gets the name `refused-<name>`: it can be inspected, `publish` raises GateFailed.

        Raises:
            BundleRefused: what was written cannot be opened again.
            ConfigError: another process took the name meanwhile.
        """
        folder = self._folder
        written = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        files = {
            name: self._linked.get(name) or FileEntry(bytes=file.stat().st_size, sha256=sha256_of(file))
            for name, file in written.items()
        }
        refused = any(gate.status == "failed" for gate in fields.gates)
        name = REFUSED + self._name if refused else self._name
        manifest = Manifest(
            **dict(fields), format_version=self._format_version, name=name, laotie=__version__, files=files
        )
        (folder / MANIFEST).write_bytes(manifest.to_json())
        sync_tree(folder)
        _check_opens(folder)
        final = self._bundles_dir / name
        try:
            folder.rename(final)
        except OSError as error:
            raise ConfigError("bundle cannot be given its name", where=final, got=str(error)) from error
        _in_use.discard(folder)
        sync_path(self._bundles_dir)
        return final


@contextmanager
def scratch(bundles_dir: Path, name: str) -> Iterator[Path]:
    """A folder beside bundles for what is too large for memory; removed afterwards, after a kill by the next writer."""
    folder = bundles_dir / f"{name}.scratch.tmp-{os.getpid()}"
    bundles_dir.mkdir(parents=True, exist_ok=True)
    remove_stale(bundles_dir)
    folder.mkdir()
    _in_use.add(folder)
    try:
        yield folder
    finally:
        _in_use.discard(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _check_opens(folder: Path) -> None:
    """Open every part once, as a reader would."""
    bundle = Bundle.open(folder, verify="sizes")
    for name in bundle.manifest.files:
        stem, _, suffix = name.rpartition(".")
        if suffix == "npy":
            bundle.array(stem)
        elif suffix == "parquet":
            pl.read_parquet_schema(bundle.file(name))
        elif suffix == "json":
            bundle.json(stem)


def remove_stale(bundles_dir: Path) -> None:
    """Remove temporary files and directories of processes that are dead."""
    for entry in bundles_dir.iterdir():
        match = _TEMPORARY.fullmatch(entry.name)
        if match is None or entry in _in_use:
            continue
        pid = int(match[1])
        if pid != os.getpid() and _is_alive(pid):
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
