"""Opening a bundle: check first, then hand out its parts, arrays as read-only memory maps."""

from __future__ import annotations

from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import orjson
import polars as pl
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic

from recsys.bundle.durable import sha256_of
from recsys.bundle.manifest import Manifest
from recsys.bundle.mapping import Maps
from recsys.config import EngineConfig, stored_config
from recsys.errors import BundleRefused, ConfigError

_HINT: Final = "take the bundle before (laotie rollback) or build again"


class Bundle:
    """A checked, immutable bundle on disk. Threads may share it; arrays stay valid as long as they are referenced.

    Attributes:
        path: the bundle's directory.
        manifest: what it says about itself.
        maps: the memory maps of its arrays.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self.maps = Maps()

    @classmethod
    def open(cls, path: Path, verify: Literal["sizes", "hashes"] = "sizes") -> Self:
        """Open a bundle directory (not a folder of bundles: see `resolve`).

        Args:
            path: the directory with `manifest.json`.
            verify: `sizes` finds what is missing or truncated and costs nothing; `hashes` also finds changed bytes and
                swapped files, at the price of reading everything once.

        Raises:
            BundleRefused: manifest missing, broken or of an unknown format; a file missing or not as the manifest says.
        """
        manifest = Manifest.read(path)
        for name, entry in manifest.files.items():
            file = path / name
            if not file.is_file():
                raise BundleRefused("bundle lacks a file", where=file, hint=_HINT)
            size = file.stat().st_size
            if size != entry.bytes:
                raise BundleRefused(
                    "file in bundle has the wrong size", where=file, got=size, expected=entry.bytes, hint=_HINT
                )
            if verify == "hashes":
                digest = sha256_of(file)
                if digest != entry.sha256:
                    raise BundleRefused(
                        "file in bundle was changed", where=file, got=digest, expected=entry.sha256, hint=_HINT
                    )
        return cls(path, manifest)

    @property
    def config(self) -> EngineConfig:
        """The config the bundle was built with; settings that no longer exist are left out.

        Raises:
            BundleRefused: a stored setting is no longer allowed.
        """
        try:
            return stored_config(self.manifest.config, where=self.path)
        except ConfigError as error:
            raise BundleRefused(
                "config in bundle cannot be used", where=self.path, got=str(error), hint=_HINT
            ) from error

    def has(self, name: str) -> bool:
        """Whether the bundle holds this file, array, table or JSON document."""
        return any(name + suffix in self.manifest.files for suffix in ("", ".npy", ".parquet", ".json"))

    def array(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        """The array `name`, memory-mapped and read-only."""
        path = self.file(name + ".npy")
        try:
            with path.open("rb") as stream:
                version = read_magic(stream)
                read_header = read_array_header_1_0 if version == (1, 0) else read_array_header_2_0
                shape, in_columns, dtype = read_header(stream)
                if in_columns or dtype.hasobject:
                    raise ValueError(f"not a plain array in rows, but {dtype}")
                if 0 not in shape:
                    held = mmap(stream.fileno(), 0, access=ACCESS_READ)
                    return self.maps.array(name + ".npy", held, dtype, shape, stream.tell())
            array = np.empty(shape, dtype)  # nothing to map
            array.flags.writeable = False
            return array
        except (OSError, ValueError, EOFError) as error:
            raise BundleRefused("array in bundle cannot be read", where=path, got=str(error), hint=_HINT) from error

    def table(self, name: str) -> pl.DataFrame:
        """The table `name`, read whole."""
        path = self.file(name + ".parquet")
        try:
            return pl.read_parquet(path, hive_partitioning=False, glob=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise BundleRefused("table in bundle cannot be read", where=path, got=str(error), hint=_HINT) from error

    def json(self, name: str) -> Any:
        """The JSON document `name`."""
        path = self.file(name + ".json")
        try:
            return orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise BundleRefused("document in bundle cannot be read", where=path, got=str(error), hint=_HINT) from error

    def file(self, name: str) -> Path:
        """Path of a file by its full name, for readers with a format of their own.

        Raises:
            BundleRefused: the bundle has no such file (`has` asks without an error).
        """
        if name not in self.manifest.files:
            raise BundleRefused(
                "bundle has no such part",
                where=self.path,
                got=name,
                expected=", ".join(sorted(self.manifest.files)) or "nothing: it is empty",
                hint="it may come from a build that skipped this stage; see stages in its manifest",
            )
        return self.path / name
