"""Snapshots of the overlay: what a worker made of the log so far, so that the next one need not repeat it.

A snapshot lies beside the log (`EVENTS.db.overlay`), made of the state that moved, the memories of the intake and the
offset up to which records are in it. It holds nothing that the log and the bundle do not: it is used if it belongs to
this log, this bundle, this version and is whole (SHA-256), and otherwise the log is read from the bundle's offset. It
is made by a process of its own (`laotie snapshot`), which loads as a worker does; serving never waits for it.

    first line: laotie overlay, format, offset, SHA-256 of the rest
    rest:       uint64 length of the document, document (MessagePack), arrays (npz)
"""

from __future__ import annotations

import fcntl
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from recsys import __version__
from recsys.bundle.durable import replace_bytes
from recsys.events.log_tables import ERASE
from recsys.live.overlay import lay_over, layout, overlay_of
from serving.event_log import EventLog
from serving.loaded import Loaded
from serving.memories import memories_of, remember

FORMAT: Final = 4
_MAGIC: Final = b"laotie overlay"


def path_of(log: Path) -> Path:
    """Where the snapshot of a log's overlay lies."""
    return log.with_name(log.name + ".overlay")


def identity(loaded: Loaded, log: EventLog) -> dict[str, Any]:
    """What a snapshot must have been made from to be used."""
    manifest = loaded.bundle.manifest
    return {
        "laotie": __version__,
        "bundle": manifest.name,
        "manifest": hashlib.sha256(manifest.to_json()).hexdigest(),
        "log": log.log_id,
        "layout": layout(loaded.live),
    }


def write(loaded: Loaded, log: EventLog) -> Path | None:
    """Write the state atomically and flush it; None if it holds a user erased meanwhile, then there is no snapshot.

    Raises:
        OSError: it cannot be written; the one before is untouched.
    """
    arrays, document = overlay_of(loaded.live)
    ids = loaded.vocabularies
    in_bundle = len(ids.users) - len(ids.users.added())
    if any(row >= in_bundle for row in ids.users.forgotten):  # read from the log before his rows were overwritten
        drop(log.path)
        return None
    told = {
        "identity": identity(loaded, log),
        "offset": loaded.applied,
        "ids": [getattr(ids, name).added() for name in ("users", "hosts", "rooms", "orders")],
        "world": document,
        "intake": memories_of(loaded.intake),
        "erased": loaded.erased,
        "last_received_us": loaded.last_received_us,
    }
    head = msgspec.msgpack.encode(told)
    body = io.BytesIO()
    body.write(len(head).to_bytes(8, "little"))
    body.write(head)
    np.savez(body, **arrays)  # type: ignore[arg-type]
    raw = body.getbuffer()
    path = path_of(log.path)
    replace_bytes(path, _first_line(loaded.applied, raw) + b"\n", raw)
    if log.of_table(ERASE, log.last, after=loaded.applied):  # its bytes must not outlive him
        path.unlink(missing_ok=True)
        return None
    return path


def restore(loaded: Loaded, log: EventLog) -> int | None:
    """Lay the snapshot of the log's overlay over a freshly loaded bundle; its offset, None: there is none to use."""
    found = _read(path_of(log.path))
    if found is None:
        return None
    told, arrays = found
    if told["identity"] != identity(loaded, log) or not 0 < told["offset"] <= log.last:
        return None
    ids = loaded.vocabularies
    for row, _ in told["intake"]["forgotten"]:  # before he comes back under a new row
        ids.users.forget(row)
    for name, added in zip(("users", "hosts", "rooms", "orders"), told["ids"], strict=True):
        vocabulary = getattr(ids, name)
        for external in added:
            vocabulary.add(external)
    lay_over(loaded.live, arrays, told["world"])
    remember(loaded.intake, told["intake"])
    loaded.erased = dict(told["erased"])
    loaded.last_received_us = told["last_received_us"]
    loaded.applied = told["offset"]
    return loaded.applied


def offset_of(log: Path) -> int:
    """Up to which record the snapshot beside a log says it goes, 0: there is none."""
    try:
        with path_of(log).open("rb") as stream:
            words = stream.readline(200).split()
    except OSError:
        return 0
    return int(words[3]) if len(words) == 5 and words[3].isdigit() else 0


def drop(log: Path) -> None:
    """Remove the snapshot; the next start reads the log instead."""
    path_of(log).unlink(missing_ok=True)


@contextmanager
def alone(log: Path) -> Iterator[bool]:
    """Whether nobody else is making a snapshot of this log; while true, nobody else will."""
    with path_of(log).with_suffix(".overlay-lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Document and arrays of a whole snapshot of a known format, None of anything else."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    line, _, rest = raw.partition(b"\n")
    words = line.split()
    if len(words) != 5 or not words[3].isdigit() or line != _first_line(int(words[3]), rest):
        return None
    length = int.from_bytes(rest[:8], "little")
    told = msgspec.msgpack.decode(rest[8 : 8 + length], strict=False)
    with np.load(io.BytesIO(rest[8 + length :]), allow_pickle=False) as arrays:
        return told, dict(arrays)


def _first_line(offset: int, rest: bytes | memoryview) -> bytes:
    return b"%s %d %d %s" % (_MAGIC, FORMAT, offset, hashlib.sha256(rest).hexdigest().encode())
