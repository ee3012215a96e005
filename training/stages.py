"""Stages that are not run again while nothing they depend on has changed: after an interrupt, or in a repeated build.

A stage has a key: a hash of its inputs (the files read, the keys of the stages before it, the settings it looks at) and
of the program's own source. What it made is kept under that key beside the bundles, in the format of a bundle, so that
it appears whole or not at all; and what is used further is always what was read back, whether the stage ran now or
earlier. Once a bundle is published, what its stages made in earlier builds is removed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import orjson

import recsys
import training
from recsys.bundle import Bundle, BundleWriter, DataWindow, ManifestFields
from recsys.bundle.durable import exclusive, sha256_of
from recsys.bundle.shelf import STAGES
from recsys.bundle.writer import scratch
from recsys.errors import BundleRefused
from recsys.events import Events
from recsys.events.reading import files_of_tables

Made = TypeVar("Made")
Save = Callable[[BundleWriter, Made], ManifestFields]


@dataclass
class Stages:
    """Runs stages, or takes what they made before.

    Args:
        bundles: the folder of bundles; None: nothing is kept and every stage runs.
        inputs: what every stage depends on, as plain data.

    `ran`, `reused`: the names of stages, in order.
    """

    bundles: Path | None = None
    inputs: Mapping[str, object] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    _used: set[str] = field(default_factory=set, repr=False)

    def run(
        self, name: str, inputs: object, make: Callable[[], Made], save: Save[Made], load: Callable[[Bundle], Made]
    ) -> tuple[Made, Bundle | None]:
        """What the stage makes, and where it is kept.

        Args:
            inputs: what this stage depends on beside `Stages.inputs`, as plain data.
            save: writes what was made into a bundle that is being written.
            load: reads it again.
        """
        if self.bundles is None:
            self.ran.append(name)
            return make(), None
        folder = self.bundles / STAGES
        kept = f"{name}-{_digest([name, code_digest(), self.inputs, inputs])[:32]}"
        self._used.add(kept)
        held = _opened(folder / kept)
        if held is None:
            made = make()
            with BundleWriter(folder, kept) as writer:
                fields = save(writer, made)
                held = Bundle.open(writer.finish(fields))
            del made
            self.ran.append(name)
        else:
            self.reused.append(name)
        return load(held), held

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path | None]:
        """A folder for what a stage makes and cannot hold in memory, until it is kept; None if nothing is kept."""
        if self.bundles is None:
            yield None
        else:
            with scratch(self.bundles / STAGES, name) as folder:
                yield folder

    def tidy(self) -> None:
        """Remove what earlier builds made in the stages that this one used."""
        if self.bundles is None or not (self.bundles / STAGES).is_dir():
            return
        names = {name.rpartition("-")[0] for name in self._used}
        with exclusive(self.bundles / STAGES):
            for entry in (self.bundles / STAGES).iterdir():
                if entry.name not in self._used and entry.name.rpartition("-")[0] in names:
                    shutil.rmtree(entry, ignore_errors=True)


def key_of(held: Bundle | None) -> str:
    """What identifies what a stage made, for the inputs of those that build on it; empty if nothing is kept."""
    return "" if held is None else held.path.name


def inputs_of(events: Events, folder: Path) -> dict[str, object]:
    """What identifies the rows a build reads: the files of a lake (they never change), else the content of all files.

    The clock counts only by the rows it sets aside.

    Args:
        folder: where the events were read.
    """
    late = {table: quality.quarantined.get("later_than_now", 0) for table, quality in events.quality.tables.items()}
    lake = events.lake
    if lake is not None:
        listed = sorted((file.path, file.rows, file.first_seq) for file in lake.manifest.files)
        return {"late": late, "lake": lake.manifest.lake_id, "seq": lake.manifest.seq, "files": _digest(listed)}
    files = [path for paths in files_of_tables(folder)[0].values() for path in paths]
    return {"late": late, "files": {str(path.relative_to(folder)): sha256_of(path) for path in files}}


@cache
def code_digest() -> str:
    """A hash of this program's source: what another version made is not taken for its own."""
    whole = hashlib.sha256()
    for package in (recsys, training):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            whole.update(path.read_bytes())
    return whole.hexdigest()


def fields_of(as_of_us: int, **more: object) -> ManifestFields:
    """The manifest of what a stage made."""
    given = {"created_at_us": 0, "config": {}, "window": DataWindow(as_of_us=as_of_us)}
    return ManifestFields.model_validate(given | more)


def _opened(path: Path) -> Bundle | None:
    """What a stage made; None if there is nothing, or if it is damaged."""
    if not path.is_dir():
        return None
    try:
        return Bundle.open(path)
    except BundleRefused:
        shutil.rmtree(path, ignore_errors=True)
        return None


def _digest(document: object) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()
