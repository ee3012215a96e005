"""The manifest: what a bundle is, from which data, how good, and the hash of every file in it.

In Python instants are int µs since the epoch; in `manifest.json` they are ISO 8601 text. Readers ignore fields they do
not know, so a field may be added without a new format version; a field may never change its meaning within one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, field_validator

from recsys.errors import BundleRefused, ConfigError
from recsys.instants import format_instant, parse_instant

FORMAT_VERSION: Final = 2
"""Newest version this code knows; it reads every version up to it and writes the oldest that can hold the bundle.

1: plain files. 2: tie states may lie in two layers (`recsys.ties.stored`).
"""
MANIFEST: Final = "manifest.json"

_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*(/[A-Za-z0-9_][A-Za-z0-9_.=-]*)*")
_BUNDLE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def is_file_name(name: str) -> bool:
    """Whether `name` is a plain relative path of ASCII parts: no `..`, no leading dot or slash, not the manifest."""
    return _FILE_NAME.fullmatch(name) is not None and name != MANIFEST


def is_bundle_name(name: str) -> bool:
    """Whether `name` can name a bundle: one ASCII path part, neither a temporary name nor a file of the shelf."""
    return _BUNDLE_NAME.fullmatch(name) is not None and ".tmp-" not in name and name not in ("CURRENT", "HISTORY")


def _read_instant(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_instant(value)
    except ConfigError as error:
        raise ValueError("not an ISO 8601 instant") from error


Instant = Annotated[int, BeforeValidator(_read_instant), PlainSerializer(format_instant, when_used="json")]
"""µs since the epoch in Python, ISO 8601 UTC in JSON."""

Status = Literal["passed", "failed", "skipped"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, ser_json_inf_nan="strings")


class FileEntry(_Record):
    """Size and SHA-256 (hex) of one file."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class DataWindow(_Record):
    """Which facts the bundle knows: those with time < as_of, so `to` is the instant before; `from` is the start of the
    first broadcast, None where nothing was learnt from any. `last` is the last fact there was to read, also where it
    was too late for the bundle; None: not told."""

    from_us: Instant | None = Field(default=None, validation_alias="from", serialization_alias="from")
    to_us: Instant | None = Field(default=None, validation_alias="to", serialization_alias="to")
    as_of_us: Instant = Field(validation_alias="as_of", serialization_alias="as_of")
    last_us: Instant | None = Field(default=None, validation_alias="last", serialization_alias="last")

    @property
    def whole(self) -> bool:
        """Whether the bundle knows every fact there was to read."""
        return self.last_us is not None and self.last_us < self.as_of_us


class StageResult(_Record):
    """What became of a stage or model; `why` is required unless it passed."""

    name: str
    status: Status
    why: str = ""


class GateResult(_Record):
    """A gate's verdict; `value` is None exactly if the metric is missing, and then the gate is skipped."""

    name: str
    metric: str
    status: Status
    value: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    why: str = ""


class ManifestFields(_Record):
    """The part of a manifest that the builder knows; the writer adds the rest."""

    created_at_us: Instant = Field(validation_alias="created_at", serialization_alias="created_at")
    """When the build began; handed in, as the library has no clock. The only field two equal builds differ in."""
    config: dict[str, Any]
    """The resolved config: `EngineConfig.model_dump(mode="json")`."""
    window: DataWindow
    offsets: dict[str, int] = {}
    """Last offset per event source that is contained; the online overlay replays what lies above it."""
    counts: dict[str, int] = {}
    metrics: dict[str, float] = {}
    """Flat; gates refer to these keys. What is not finite is kept as text and fails its gate."""
    stages: tuple[StageResult, ...] = ()
    gates: tuple[GateResult, ...] = ()


class Manifest(ManifestFields):
    """Everything in `manifest.json`."""

    format_version: int
    name: str
    laotie: str
    """Version of the engine that wrote the bundle."""
    files: dict[str, FileEntry]

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if not is_file_name(name):
                raise ValueError(f"file name {name!r} leaves the bundle or is not plain")
        return files

    @property
    def failed_gates(self) -> tuple[GateResult, ...]:
        """Gates that keep this bundle from being published."""
        return tuple(gate for gate in self.gates if gate.status == "failed")

    def to_json(self) -> bytes:
        """Canonical text: keys sorted, indented, one newline at the end."""
        document = orjson.loads(self.model_dump_json(by_alias=True))  # this way round NaN becomes text, not null
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def read(cls, bundle: Path) -> Self:
        """Read and check `manifest.json` of a bundle directory.

        Raises:
            BundleRefused: it is missing, broken, or of a format version this code does not know.
        """
        path = bundle / MANIFEST
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise BundleRefused(
                "not a bundle",
                where=bundle,
                got=f"no readable {MANIFEST}",
                hint="give a directory made by laotie build",
            ) from error
        try:
            document = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise BundleRefused("manifest is broken", where=path, got=str(error), hint=_REBUILD) from error
        version = document.get("format_version") if isinstance(document, dict) else None
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= FORMAT_VERSION:
            raise BundleRefused(
                "bundle format is unknown",
                where=path,
                got=f"format_version {version!r}",
                expected=f"1 to {FORMAT_VERSION}",
                hint="a bundle of a newer laotie needs a newer laotie",
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
            raise BundleRefused("manifest is broken", where=path, got=faults, hint=_REBUILD) from error


_REBUILD: Final = "take the bundle before (laotie rollback) or build again"
