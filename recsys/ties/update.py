"""The same state, one fact at a time.

An `Updater` is compiled once from a block's declaration: for every kind of fact a straight-line Python function that
touches the few columns the fact feeds. It works on flat views of the state's memory (`Cells`), where a number is read
and written faster than through an array (docs/decisions/0011-updates-are-compiled.md). Applying a fact gives what the
batch gives (`recsys.ties.batch`), whatever the order in which facts arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp2
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.compiled import compiled
from recsys.events.facts import NEVER, US_PER_DAY, FactKind
from recsys.ties.algebra import DAY_BITS, Block, Column, Kind, Rows


class Cells(NamedTuple):
    """Flat views of `Rows`, row by row: they see and make the same changes, and stay valid as long as it is in use."""

    ints: memoryview
    decayed: memoryview
    latest: memoryview


Program = Callable[[memoryview, memoryview, memoryview, int, int, int, int], None]
"""(ints, decayed, latest, row, at, count, value): lets the state at position `row` know one fact."""


def cells(rows: Rows) -> Cells:
    """Flat views of states that lie together in memory."""
    assert all(part.flags.c_contiguous for part in (rows.ints, rows.decayed, rows.latest))  # `reshape` must not copy
    return Cells(rows.ints.reshape(-1).data, rows.decayed.reshape(-1).data, rows.latest.reshape(-1).data)


class Updater:
    """Applies facts to rows of one block.

    Attributes:
        programs: by `FactKind`, the function that applies such a fact; None for kinds the block does not read.

    Not thread-safe per row: one writer.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self.programs: list[Program | None] = [None] * len(FactKind)
        for kind in block.facts:
            self.programs[kind] = _written_out(block, kind)
        self._together = {kind: _plan(block, kind) for kind in FactKind}

    def reads(self, kind: int) -> bool:
        """Whether facts of this kind touch the block."""
        return self.programs[kind] is not None

    def apply(self, rows: Rows, at_row: int, kind: int, at: int, count: int, value: int) -> None:
        """Let the state at position `at_row` know one fact.

        Args:
            rows: states of the block that lie together in memory, changed in place.
            at_row: position of the key.
            kind: `FactKind`; one the block does not read changes nothing.
            at: instant of the fact, µs.
            count, value: the fact's numbers, as in `FACT_SCHEMA`.
        """
        program = self.programs[kind]
        if program is not None:
            program(*cells(rows), at_row, at, count, value)

    def apply_many(self, rows: Rows, positions: npt.NDArray[np.int64], kind: FactKind, at: int) -> None:
        """Let several states (n,) know a fact each, all of one kind and instant, with count 1; as one after the other.

        Args:
            rows: as in `apply`.
            positions: (n,) distinct.
        """
        plan = self._together[kind]
        if plan is not None:
            _apply_many(rows.ints, rows.decayed, positions, at, plan)
        elif self.reads(kind):
            for position in positions.tolist():
                self.apply(rows, position, kind, at, 1, 0)


class _Together(NamedTuple):
    """The columns that facts of one kind and instant feed: which are sums, and whether the instant is what they are fed
    instead of a one; of decayed sums what each is fed, ones and instants, 0 for none, and its rate, −1 / half-life."""

    columns: npt.NDArray[np.int64]
    is_sum: npt.NDArray[np.bool_]
    of_instants: npt.NDArray[np.bool_]
    decayed_ones: npt.NDArray[np.float64]
    decayed_instants: npt.NDArray[np.float64]
    rates: npt.NDArray[np.float64]


def _plan(block: Block, kind: FactKind) -> _Together | None:
    """None: facts of this kind are applied one by one."""
    fed = [column for column in block.columns if kind in column.facts]
    if not fed or any(one.kind not in _TOGETHER or one.source not in ("one", "at", "count") for one in fed):
        return None
    plain = [column for column in fed if column.kind is not Kind.DECAYED]
    amounts = np.zeros((2, len(block.decays)))
    for column in fed:
        if column.kind is Kind.DECAYED:
            amounts[int(column.source == "at"), block.decay_column(column.name)] = 1.0
    return _Together(
        np.array([block.int_column(column.name) for column in plain], dtype=np.int64),
        np.array([column.kind is Kind.SUM for column in plain], dtype=np.bool_),
        np.array([column.source == "at" for column in plain], dtype=np.bool_),
        *(*amounts, -1.0 / block.half_lives_us),
    )


@compiled
def _apply_many(
    ints: npt.NDArray[np.int64], decayed: npt.NDArray[np.float64], positions: npt.NDArray[np.int64], at: int,
    plan: _Together,
) -> None:  # fmt: skip
    for row in positions:
        ref = ints[row, 0]
        for c in range(len(plan.columns)):
            column, amount = plan.columns[c], at if plan.of_instants[c] else 1
            held = ints[row, column]
            ints[row, column] = held + amount if plan.is_sum[c] else max(held, amount)
        for d in range(len(plan.rates)):
            amount_d = plan.decayed_ones[d] + plan.decayed_instants[d] * at
            factor = 1.0 if ref == NEVER else np.exp2(abs(at - ref) * plan.rates[d])
            if at > ref:
                decayed[row, d] = decayed[row, d] * factor + amount_d
            else:
                decayed[row, d] += amount_d * factor
        ints[row, 0] = max(ref, at)


_TOGETHER = (Kind.SUM, Kind.MAX, Kind.DECAYED)


def _written_out(block: Block, kind: FactKind) -> Program:
    """The declaration of the columns that `kind` feeds, written out as statements."""
    body = [f"i = row * {len(block.ints)}", "ref = I[i]"]
    fed: dict[int, str] = {}
    for column in block.columns:
        if kind in column.facts:
            if column.kind is Kind.DECAYED:
                fed[block.decay_column(column.name)] = _amount(column, block)
            else:
                body += _statements(block, column)
    if block.decays:
        body += _decays(block, fed)
    body.append("if at > ref: I[i] = at")
    source = f"def {block.name}_{kind.name.lower()}(I, D, L, row, at, count, value):\n    " + "\n    ".join(body)
    names: dict[str, Any] = {"exp2": exp2, "mark_day": _mark_day, "insert_latest": _insert_latest}
    exec(compile(source, f"<updater of {block.name}>", "exec"), names)
    program: Program = names[f"{block.name}_{kind.name.lower()}"]
    return program


def _statements(block: Block, column: Column) -> list[str]:
    amount = _amount(column, block)
    match column.kind:
        case Kind.SUM:
            return [f"I[i + {block.int_column(column.name)}] += {amount}"]
        case Kind.MAX | Kind.MIN:
            cell, sign = f"I[i + {block.int_column(column.name)}]", ">" if column.kind is Kind.MAX else "<"
            return [f"x = {amount}", f"if x {sign} {cell}: {cell} = x"]
        case Kind.HOURS:
            slot = f"at % {US_PER_DAY} // {US_PER_DAY // column.size}"
            return [f"I[i + {block.int_column(f'{column.name}_0')} + {slot}] += 1"]
        case Kind.DAYS:
            last = block.int_column(f"{column.name}_last")
            again = f"if x == I[i + {last}]: I[i + {last + 1}] |= 1"
            return [f"x = at // {US_PER_DAY}", again, f"else: mark_day(I, i + {last}, x)"]
        case Kind.LATEST:
            place = f"row * {block.latest_width} + {block.latest_slices[column.name].start}"
            return [f"x, l = {amount}, {place}", f"if x > 0 and x != L[l]: insert_latest(L, l, {column.size}, x)"]
        case Kind.DECAYED:
            raise ValueError("decayed columns are carried forward together")


def _decays(block: Block, fed: dict[int, str]) -> list[str]:
    """All decayed columns carried to the fact's instant, or the fact's amounts carried to theirs."""
    rates = [-1.0 / half_life for half_life in block.half_lives_us.tolist()]
    body = [f"d = row * {len(rates)}", f"if ref == {NEVER}:", "    pass"]
    body += [f"    D[d + {c}] += {amount}" for c, amount in fed.items()]
    body += ["elif at > ref:", "    age = at - ref"]
    for c, rate in enumerate(rates):
        more = f" + {fed[c]}" if c in fed else ""
        body.append(f"    D[d + {c}] = D[d + {c}] * exp2(age * {rate!r}){more}")
    body += ["else:", "    age = ref - at"]
    body += [f"    D[d + {c}] += {amount} * exp2(age * {rates[c]!r})" for c, amount in fed.items()]
    return body


def _amount(column: Column, block: Block) -> str:
    beyond = f"max(0, value - {2 * block.slot_ms})"
    return {"one": "1", "at": "at", "count": "count", "value": "value", "beyond": beyond}[column.source]


def _mark_day(ints: memoryview, place: int, day: int) -> None:
    """Set the bit of a day other than the anchor in the bitmap that starts at `place` (anchor day, bits)."""
    last = ints[place]
    if last == NEVER or day - last >= DAY_BITS:
        ints[place], ints[place + 1] = day, 1
    elif day > last:
        ints[place] = day
        ints[place + 1] = ((ints[place + 1] << (day - last)) | 1) & (2**DAY_BITS - 1)
    elif last - day < DAY_BITS:
        ints[place + 1] |= 1 << (last - day)


def _insert_latest(kept: memoryview, place: int, size: int, instant: int) -> None:
    """Insert an instant into the descending list of distinct ones at `place`, dropping the smallest."""
    if instant <= kept[place + size - 1]:
        return
    values = kept[place : place + size].tolist()
    if instant in values:
        return
    values.append(instant)
    values.sort(reverse=True)
    for i in range(size):
        kept[place + i] = values[i]
