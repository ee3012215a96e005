"""External ids and dense rows.

External ids are int64 or strings and live at the edges (event tables, requests, answers). Inside the engine a user,
host, room or order is a dense row. A vocabulary is append-only, so a row never changes its meaning within a lineage of
bundles.

File formats, both uncompressed and recognised by their first bytes:

    ints     `.npy`, int64, shape (2, n): [0] the ids ascending, [1] the row of each; memory-mapped
    strings  Arrow IPC, one column `id` in row order
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.errors import BundleRefused, InputRefused
from recsys.id_kinds import IdKind, id_kind

IntArray: TypeAlias = npt.NDArray[np.int64]

_LOOKUP_SPAN = 8  # a direct table is used while the ids span at most this many times their number
_MOST_MET = 100_000  # ids kept at hand, as searching a mapped file costs microseconds
_NPY_MAGIC, _IPC_MAGIC = b"\x93NUMPY", b"ARROW1"


class Vocabulary:
    """Append-only map between external ids and dense rows 0 … n-1.

    All ids are of one kind, fixed by the first id added. One writer; readers may look rows up concurrently, an id
    becomes visible to them only when it has its row.
    """

    def __init__(self) -> None:
        self.kind: IdKind | None = None
        self._sorted: IntArray = np.empty(0, np.int64)  # int ids of the base, ascending
        self._order: IntArray = np.empty(0, np.int64)  # row of each
        self._by_row: IntArray | None = None  # int ids of the base in row order, made when asked for
        self._lookup: IntArray | None = None  # id - smallest id -> row, when the ids are compact
        self._text: pl.Series = pl.Series("id", [], pl.String)  # string ids of the base in row order
        self._text_rows: dict[str, int] | None = None
        self._base = 0
        self._met: dict[int | str, int] = {}  # int ids of the base asked for one at a time of late, and their rows
        self._added: dict[int | str, int] = {}
        self._added_ids: list[int | str] = []
        self._forgotten: list[int] = []  # rows whose ids are unknown again: those ids have the row −1 in `_added`

    def __len__(self) -> int:
        return self._base + len(self._added_ids)

    def rows(self, ids: pl.Series) -> IntArray:
        """Rows of `ids`, int64 of the same length; -1 where the id is unknown or null.

        Raises:
            InputRefused: the ids are of the other kind.
        """
        found = np.full(len(ids), -1, np.int64)
        values = self._values(ids)
        if values is None or not len(self):
            return found
        valid = values.is_not_null().to_numpy()
        if self.kind == "int":
            numbers = values.fill_null(0).to_numpy()
            found = np.where(valid, self._base_rows(numbers), -1)
        elif self._base:
            table = pl.DataFrame({"id": self._text, "row": np.arange(self._base)}).lazy()
            joined = values.alias("id").to_frame().lazy().join(table, on="id", how="left", maintain_order="left")
            found = joined.collect()["row"].fill_null(-1).to_numpy().astype(np.int64)
        if self._forgotten:
            found = np.where(np.isin(found, self._forgotten), -1, found)
        if self._added:
            for position in np.flatnonzero(valid & (found < 0)).tolist():
                found[position] = self._added.get(values[position], -1)
        return found

    def extend(self, ids: pl.Series) -> IntArray:
        """Rows of `ids`; unknown ids are appended in the order in which they are first seen.

        Raises:
            InputRefused: the ids are of the other kind, or one of them is null.
        """
        values = self._values(ids)
        if not len(ids):
            return np.empty(0, np.int64)
        if values is None or values.null_count():
            raise InputRefused("an id is null", where=ids.name or None, hint="drop rows without an id first")
        fresh = values.unique(maintain_order=True)
        fresh = fresh.filter(pl.Series(self.rows(fresh) < 0))
        if len(fresh):
            self.kind = "int" if values.dtype == pl.Int64 else "str"
            if not len(self):
                self._set_base(fresh)
            else:
                for external in fresh.to_list():
                    self._append(external)
        return self.rows(values)

    def row(self, external: int | str) -> int:
        """The row of one id, -1 when unknown (an id of the other kind is unknown too)."""
        row = self._added.get(external, self._met.get(external))
        if row is not None:
            return row
        if not self._base:
            return -1
        if self.kind == "int":
            if not isinstance(external, int) or not -(2**63) <= external < 2**63:
                return -1
            at = int(self._sorted.searchsorted(external))
            if at == self._base or self._sorted.item(at) != external:
                return -1
            self._met = self._met if len(self._met) < _MOST_MET else {}
            return self._met.setdefault(external, self._order.item(at))
        if self._text_rows is None:
            self._text_rows = {text: n for n, text in enumerate(self._text.to_list())}
        return self._text_rows.get(external, -1) if isinstance(external, str) else -1

    def rows_listed(self, external: list[int | str]) -> list[int]:
        """`row` of each id, at a fraction of its cost where they were met before."""
        found = map(self._added.get, external, map(self._met.get, external))
        return [self.row(one) if row is None else row for one, row in zip(external, found, strict=True)]

    def forget(self, row: int) -> None:
        """Nobody has the id of this row any more: it is unknown, and gets a new row when it is added again."""
        external = self.id(row)
        self._added[external] = -1
        self._forgotten.append(row)

    @property
    def forgotten(self) -> list[int]:
        """The rows whose ids were taken from them."""
        return list(self._forgotten)

    def add(self, external: int | str) -> int:
        """The row of one id, appended if unknown.

        Raises:
            InputRefused: the id is of the other kind, or an integer beyond int64.
        """
        row = self.row(external)
        if row >= 0:
            return row
        kind: IdKind = "int" if isinstance(external, int) and not isinstance(external, bool) else "str"
        if kind == "str" and not isinstance(external, str):
            raise InputRefused("not an id", got=repr(external), expected="an int or a str")
        if isinstance(external, int) and not -(2**63) <= external < 2**63:
            raise InputRefused("an id does not fit into 64 bits", got=external, hint="give such ids as strings")
        self._check_kind(kind)
        self.kind = kind
        return self._append(external)

    def ids(self, rows: npt.NDArray[np.integer]) -> pl.Series:
        """External ids of `rows` (Int64 or String, same length).

        Raises:
            IndexError: a row outside 0 … n-1.
        """
        wanted = np.asarray(rows, np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"rows {wanted.min()} … {wanted.max()} of a vocabulary of {len(self)}")
        if self.kind == "str":
            text = pl.concat([self._text, pl.Series("id", self._added_ids, pl.String)])
            return text.gather(pl.Series(wanted, dtype=pl.UInt32))
        numbers, added = np.empty(len(wanted), np.int64), wanted >= self._base
        numbers[~added] = self._base_by_row()[wanted[~added]]
        numbers[added] = [self._added_ids[row] for row in (wanted[added] - self._base).tolist()]
        return pl.Series("id", numbers)

    def listed(self, rows: npt.NDArray[np.integer]) -> list[int | str]:
        """What `ids` gives, as a list, without its cost per id ever added; IndexError as there."""
        wanted = rows.tolist()
        least, base, added = min(wanted, default=0), self._base, self._added_ids
        if least >= base:
            return [added[row - base] for row in wanted]
        if self.kind == "int" and least >= 0 and max(wanted, default=0) < base:
            return list(self._base_by_row()[rows].tolist())
        if self.kind == "int" or least < 0:
            return [self.id(row) for row in wanted]
        known = iter(self._text.gather([row for row in wanted if row < self._base]).to_list())
        return [next(known) if row < self._base else self._added_ids[row - self._base] for row in wanted]

    def id(self, row: int) -> int | str:
        """The external id of one row.

        Raises:
            IndexError: a row outside 0 … n-1.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a vocabulary of {len(self)}")
        if row >= self._base:
            return self._added_ids[row - self._base]
        return int(self._base_by_row()[row]) if self.kind == "int" else str(self._text[row])

    def added(self) -> list[int | str]:
        """The ids added since the vocabulary was loaded, in row order."""
        return list(self._added_ids)

    def table(self, id_name: str, row_name: str, dtype: pl.DataType) -> pl.DataFrame:
        """All ids with their rows (`id_name` of type `dtype`, `row_name` Int64), for joins.

        Raises:
            InputRefused: `dtype` holds ids of the other kind.
        """
        self._check_kind(id_kind(dtype))
        if not len(self):
            return pl.DataFrame(schema={id_name: dtype, row_name: pl.Int64()})
        ids = self.ids(np.arange(len(self)))
        return pl.DataFrame({id_name: ids, row_name: np.arange(len(self), dtype=np.int64)})

    def save(self, path: Path) -> None:
        """Write the vocabulary as one uncompressed file."""
        if self.kind == "str":
            self.ids(np.arange(len(self))).to_frame("id").write_ipc(path, compression="uncompressed")
            return
        ids = self.ids(np.arange(len(self))).to_numpy()
        order = np.argsort(ids, kind="stable")
        with path.open("wb") as file:
            np.save(file, np.stack([ids[order], order.astype(np.int64)]), allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote; integer ids stay memory-mapped.

        Raises:
            BundleRefused: the file is missing, truncated or not a vocabulary.
        """
        made = cls()
        try:
            with path.open("rb") as file:
                magic = file.read(6)
            if magic == _NPY_MAGIC:
                both = np.load(path, mmap_mode="r", allow_pickle=False)
                if both.ndim != 2 or both.shape[0] != 2 or both.dtype != np.int64:
                    raise ValueError(f"an array of {both.shape} {both.dtype} is not a vocabulary")
                both = both.view(np.ndarray)  # reading one number of a memmap costs a microsecond
                made._sorted, made._order, made._base = both[0], both[1], both.shape[1]
                made.kind = "int" if made._base else None
            elif magic == _IPC_MAGIC:
                made._text = pl.read_ipc(path)["id"]
                made._base, made.kind = len(made._text), "str" if len(made._text) else None
            else:
                raise ValueError(f"unknown first bytes {magic!r}")
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise BundleRefused("a vocabulary cannot be read", where=path, got=error) from error
        return made

    def _values(self, ids: pl.Series) -> pl.Series | None:
        """`ids` as Int64 or String; None when the column has no type."""
        kind = id_kind(ids.dtype)
        if kind is None:
            return None
        if len(ids):
            self._check_kind(kind)
        return ids.cast(pl.Int64 if kind == "int" else pl.String)

    def _check_kind(self, kind: IdKind | None) -> None:
        if kind is not None and self.kind is not None and kind != self.kind:
            names = {"int": "integers", "str": "strings"}
            raise InputRefused("ids of the other kind", got=names[kind], expected=names[self.kind],
                               hint="write this id column in one type everywhere")  # fmt: skip

    def _set_base(self, ids: pl.Series) -> None:
        if self.kind == "int":
            numbers = ids.to_numpy()
            self._order = np.argsort(numbers, kind="stable").astype(np.int64)
            self._sorted = numbers[self._order]
        else:
            self._text, self._text_rows = ids.alias("id"), None
        self._by_row, self._lookup, self._met = None, None, {}
        self._base = len(ids)

    def _append(self, external: int | str) -> int:
        self._added_ids.append(external)
        row = self._added[external] = len(self) - 1
        return row

    def _base_rows(self, numbers: IntArray) -> IntArray:
        if not self._base:
            return np.full(len(numbers), -1, np.int64)
        low, high = int(self._sorted[0]), int(self._sorted[-1])
        if self._lookup is None and high - low < _LOOKUP_SPAN * self._base and len(numbers) > 1_000:
            lookup = np.full(high - low + 1, -1, np.int64)
            lookup[self._sorted - low] = self._order
            self._lookup = lookup
        if self._lookup is not None:
            inside = (numbers >= low) & (numbers <= high)
            return np.where(inside, self._lookup[np.where(inside, numbers - low, 0)], -1)
        at = np.minimum(self._sorted.searchsorted(numbers), self._base - 1)
        return np.where(self._sorted[at] == numbers, self._order[at], -1)

    def _base_by_row(self) -> IntArray:
        if self._by_row is None:
            by_row = np.empty(self._base, np.int64)
            by_row[self._order] = self._sorted
            self._by_row = by_row
        return self._by_row
