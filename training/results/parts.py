"""Parts of the results: each runs in a process of its own, is measured, and is kept with the hash of what it read.

A part whose inputs and settings have not changed is not run again; an interrupted run goes on where it stopped. The
sources are not part of the hash (any edit would cost hours), but every record names theirs, and the page says which
parts were measured with other sources than the present ones.
"""

from __future__ import annotations

import hashlib
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import orjson

Work = Callable[..., Mapping[str, Any]]


@dataclass(frozen=True)
class Part:
    """One piece of work.

    Args:
        name: unique; also the name of its record.
        work: a function of a module (it is sent to another process); its keyword arguments are `settings`, paths among
            them, and it returns plain data.
        settings: what decides the result beside the inputs.
        inputs: files and folders that are read; a part one of whose inputs is not there is absent, not failed.
    """

    name: str
    work: Work
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[Path] = ()

    @property
    def absent(self) -> list[str]:
        """Names of the inputs that are not there."""
        return [path.name for path in self.inputs if not path.exists()]

    def fingerprint(self) -> str:
        """Hash of the settings (paths excepted) and of the bytes of all inputs."""
        said = {name: value for name, value in self.settings.items() if not isinstance(value, Path)}
        hashed = hashlib.sha256(orjson.dumps([self.name, said], option=orjson.OPT_SORT_KEYS, default=str))
        for path in self.inputs:
            hashed.update(_hash_of(path).encode())
        return hashed.hexdigest()


def result_of(part: Part, cache_folder: Path, *, fresh: bool = False) -> dict[str, Any]:
    """The record of a part: kept from before if nothing has changed, else made now.

    Returns:
        `fingerprint`, `sources`, `cpu_s`, `wall_s`, `peak_memory_mib` of the whole part, `load` (one-minute load
        average at its end), and `result`.
    """
    path, wanted = cache_folder / f"{part.name}.json", part.fingerprint()
    if not fresh and path.is_file():
        kept: dict[str, Any] = orjson.loads(path.read_bytes())
        if kept["fingerprint"] == wanted:
            return kept
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        measured = pool.submit(_measured, part.work, dict(part.settings)).result()
    record = {"part": part.name, "fingerprint": wanted, "sources": sources_hash(), **measured}
    cache_folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    partial.write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
    partial.replace(path)
    return orjson.loads(path.read_bytes())  # type: ignore[no-any-return]


def _measured(work: Work, settings: dict[str, Any]) -> dict[str, Any]:
    begun = time.monotonic()
    result = work(**settings)
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "cpu_s": sum(usage.ru_utime + usage.ru_stime for usage in (own, children)),
        "wall_s": time.monotonic() - begun,
        "peak_memory_mib": max(own.ru_maxrss, children.ru_maxrss) / 1024,
        "load": os.getloadavg()[0],
        "result": result,
    }


@cache
def sources_hash() -> str:
    """Hash of all sources that a result may depend on."""
    root = Path(__file__).parents[2]
    hashed = hashlib.sha256()
    for path in sorted(path for package in ("recsys", "training") for path in (root / package).rglob("*.py")):
        if "results" not in path.relative_to(root).parts:
            hashed.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return hashed.hexdigest()[:12]


def _hash_of(path: Path) -> str:
    hashed = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            hashed.update(file.relative_to(path).as_posix().encode())
            with file.open("rb") as handle:
                while block := handle.read(1 << 20):
                    hashed.update(block)
    return hashed.hexdigest()
