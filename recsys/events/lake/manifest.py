"""What a lake holds: the list of its files, and nothing is in the lake that is not in the list.

The list is one small file, `_lake.json`, swapped atomically: a reader sees the lake before an ingestion or after it,
an interrupted one leaves files nobody lists, and the next one removes them.

Every ingestion has a number, the lake's *offset*. Rows carry the number of the ingestion that brought them in the
column `_seq`, so that a build can ask for what came after the offset of the bundle it continues.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys.bundle.durable import replace_text
from recsys.errors import InputRefused
from recsys.id_kinds import IdKind

SCHEMA_VERSION: Final = 2
"""Newest version this code knows; it reads every version up to it and writes the oldest that can hold the lake.

1: files. 2: erased users, whom a reader of version 1 would let in again.
"""
LAKE_FILE: Final = "_lake.json"
SEQ: Final = "_seq"
ALL_DATES: Final = "all"
"""Date partition of rows without a time, or with one outside the years events can have."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LakeFile(_Record):
    """One Parquet file.

    `first_seq`, `last_seq`: the ingestions its rows came with; `first_us`, `last_us`: the span of every time in them
    (null: none).
    """

    path: str
    table: str
    date: str
    bucket: int
    rows: int
    first_seq: int
    last_seq: int
    first_us: int | None = None
    last_us: int | None = None

    @property
    def partition(self) -> tuple[str, str, int]:
        """Table, date and bucket."""
        return self.table, self.date, self.bucket


class LakeManifest(_Record):
    """Everything in `_lake.json`.

    `seq` is the offset: the number of the last ingestion. `generation` counts the swaps of this list. `sources` are
    digests of tables that were ingested whole. `logs`: identity of a service's log → offset up to which it is
    in the lake. `erased` are users whose rows up to an instant were taken out and are refused (`recsys.erasure`):
    pseudonym → µs. `retired` are files replaced by the last compaction, kept for readers that began before it.
    """

    schema_version: int = 1
    lake_id: str
    buckets: int = Field(ge=1)
    seq: int = 0
    generation: int = 0
    id_kinds: dict[str, IdKind] = {}
    sources: tuple[str, ...] = ()
    logs: dict[str, int] = {}
    erased: dict[str, int] = {}
    files: tuple[LakeFile, ...] = ()
    retired: tuple[str, ...] = ()

    @classmethod
    def new(cls, buckets: int) -> LakeManifest:
        """The list of an empty lake."""
        return cls(lake_id=uuid.uuid4().hex, buckets=buckets)

    @property
    def source_name(self) -> str:
        """How bundles name this lake among their offsets."""
        return f"lake-{self.lake_id}"

    def write(self, lake: Path) -> None:
        """Swap the list of `lake` for this one."""
        replace_text(lake / LAKE_FILE, orjson.dumps(self.model_dump(mode="json")).decode())

    @classmethod
    def read(cls, lake: Path) -> LakeManifest:
        """The list of a lake.

        Raises:
            InputRefused: there is none, it is damaged, or of a version this code does not know.
        """
        path = lake / LAKE_FILE
        try:
            document = orjson.loads(path.read_bytes())
            version = document["schema_version"]
        except (OSError, orjson.JSONDecodeError, TypeError, KeyError) as error:
            raise InputRefused("not a lake", where=path, got=error, hint="make one with laotie ingest") from error
        if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
            raise InputRefused("schema of the lake is unknown", where=path, got=version,
                               expected=f"1 to {SCHEMA_VERSION}", hint="a newer laotie reads it")  # fmt: skip
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InputRefused("the list of a lake is damaged", where=path, got=error.errors()[0]["msg"]) from error


def is_lake(folder: Path) -> bool:
    """Whether the folder is a lake (and not a plain folder of event tables)."""
    return (folder / LAKE_FILE).is_file()
