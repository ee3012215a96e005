"""Writing so that a power cut leaves the old or the new, never something between (POSIX)."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync_path(path: Path) -> None:
    """Flush a file, or the entries of a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Flush every file below `root`, then every directory, `root` last."""
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            sync_path(Path(folder, name))
        sync_path(Path(folder))


def replace_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all, and flush it."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file of these parts, one after the other, whole or not at all, and flush it.

    Raises:
        OSError: it cannot be written; the one before is untouched.
    """
    fresh = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with fresh.open("wb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_path(path.parent)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder against other processes; the system frees it if the holder dies."""
    with (folder / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
