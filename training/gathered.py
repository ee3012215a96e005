"""The states that parts of users make, put together block by block, in memory that does not follow the history.

The ties of a large platform do not fit into memory: 100 million of them are 60 GB of columns. So the states of each
part go to the disk as they come, and each block is then put together piece by piece in the order of its keys: the rows
of one range of keys are read of every part, merged, and written. What results are plain files, mapped into memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from recsys.ties.algebra import Block, BlockState, Ints, Rows, empty_state
from recsys.ties.merging import merge_all

PIECE_BYTES = 64 * 2**20
"""Of a block, put together at once."""
_SAMPLED = 1_000
"""Keys of each part by which the ranges of keys are chosen."""
_OF_USERS = ("tie", "user")
"""Levels at which no two parts share a key; at the others there are few keys."""


@dataclass(frozen=True)
class _OnDisk:
    """States of a part, in files; `keys` are mapped, rows are read when asked for and not kept."""

    block: Block
    stem: Path
    keys: Ints

    def __len__(self) -> int:
        return len(self.keys)

    def cut(self, begin: int, end: int) -> BlockState:
        keys, ints, decayed, latest = (
            _read(_file(self.stem, part), begin, end) for part in empty_state(self.block).arrays()
        )
        return BlockState(self.block, keys, Rows(ints, decayed, latest))


class Gathered:
    """States of parts that share no user.

    Args:
        folder: where states are kept, as files `<block>_<part of the state>.npy`; None: all in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._held: dict[str, list[BlockState]] = {}
        self._on_disk: dict[str, list[_OnDisk]] = {}

    def add(self, states: Mapping[str, BlockState]) -> None:
        """The states of one more part, by block name."""
        for name, state in states.items():
            if self._folder is None or state.block.level not in _OF_USERS:
                self._held.setdefault(name, []).append(state)
                continue
            kept = self._on_disk.setdefault(name, [])
            stem = self._folder / f"{name}.{len(kept)}"
            for part, array in state.arrays().items():
                np.save(_file(stem, part), array)
            kept.append(_OnDisk(state.block, stem, _mapped(_file(stem, "keys"))))

    def names(self) -> list[str]:
        """The blocks of the parts."""
        return [*self._held, *self._on_disk]

    def take(self, block: Block) -> BlockState:
        """The states of all parts in one block, keys ascending; what was kept of the parts is let go of."""
        if self._folder is None or block.name in self._held:
            return merge_all(block, self._held.pop(block.name))
        parts, stem = self._on_disk.pop(block.name), self._folder / block.name
        _put_together(block, parts, stem)
        for path in self._folder.glob(f"{block.name}.*.npy"):
            path.unlink()
        keys, ints, decayed, latest = (_mapped(_file(stem, part)) for part in empty_state(block).arrays())
        return BlockState(block, keys, Rows(ints, decayed, latest))


def _put_together(block: Block, parts: list[_OnDisk], stem: Path) -> None:
    n, written = sum(len(part) for part in parts), 0
    with ExitStack() as files:
        streams = {}
        for name, array in empty_state(block).arrays().items():
            streams[name] = files.enter_context(_file(stem, name).open("wb"))
            shape = (n, *array.shape[1:])
            header = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(streams[name], header)
        for begins, ends in pairwise(_cuts(block, parts)):
            piece = merge_all(block, [part.cut(*cut) for part, *cut in zip(parts, begins, ends, strict=True)])
            written += len(piece)
            for name, array in piece.arrays().items():
                streams[name].write(np.ascontiguousarray(array).data)
    if written != n:
        raise ValueError(f"parts share keys: {n} states of block {block.name} became {written}")


def _cuts(block: Block, parts: list[_OnDisk]) -> Iterator[list[int]]:
    """Where each part is cut so that between two cuts lie the same keys of all, about `PIECE_BYTES` of states."""
    n_bytes = sum(len(part) for part in parts) * 8 * (1 + len(block.ints) + len(block.decays) + block.latest_width)
    sampled = np.sort(np.concatenate([part.keys[:: 1 + len(part) // _SAMPLED] for part in parts]))
    pieces = max(1, min(n_bytes // PIECE_BYTES, len(sampled)))
    yield [0] * len(parts)
    for i in range(1, pieces):
        yield [int(np.searchsorted(part.keys, sampled[len(sampled) * i // pieces])) for part in parts]
    yield [len(part) for part in parts]


def _file(stem: Path, part: str) -> Path:
    return Path(f"{stem}_{part}.npy")


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape and type of the array in a file, and where it begins."""
    with path.open("rb") as stream:
        npy.read_magic(stream)
        shape, _, dtype = npy.read_array_header_1_0(stream)
        return shape, dtype, stream.tell()


def _read(path: Path, begin: int, end: int) -> npt.NDArray[Any]:
    """Rows of the array in a file."""
    shape, dtype, at = _header(path)
    width = math.prod(shape[1:])
    offset = at + begin * width * dtype.itemsize
    return np.fromfile(path, dtype, (end - begin) * width, offset=offset).reshape(end - begin, *shape[1:])


def _mapped(path: Path) -> npt.NDArray[Any]:
    """The array of a file, mapped; one without elements cannot be."""
    shape, dtype, _ = _header(path)
    return np.empty(shape, dtype) if 0 in shape else np.load(path, mmap_mode="r").view(np.ndarray)
