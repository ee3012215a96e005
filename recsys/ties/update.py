"""The same state, one fact at a time.

An `Updater` is compiled once from a block's declaration: for every kind of fact the few columns it touches. Applying a
fact costs microseconds and gives what the batch gives (`recsys.ties.batch`), whatever the order in which facts arrive.
"""

from __future__ import annotations

from math import exp2

import numpy as np

from recsys.events.facts import NEVER, US_PER_DAY, FactKind
from recsys.ties.algebra import DAY_BITS, Block, Kind, Rows

_Step = tuple[Kind, int, str, int]


class Updater:
    """Applies facts to rows of one block.

    Not thread-safe per row: one writer.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self._rates = [-1.0 / h for h in block.half_lives_us]
        self._two_slots_ms = 2 * block.slot_ms
        self._programs: list[tuple[tuple[_Step, ...], tuple[tuple[int, str], ...]] | None] = [None] * len(FactKind)
        for kind in block.facts:
            self._programs[kind] = self._compile(kind)

    def reads(self, kind: int) -> bool:
        """Whether facts of this kind touch the block."""
        return self._programs[kind] is not None

    def apply(self, rows: Rows, at_row: int, kind: int, at: int, count: int, value: int) -> None:
        """Let the state at position `at_row` know one fact.

        Args:
            rows: states of the block, changed in place.
            at_row: position of the key.
            kind: `FactKind`, one the block reads.
            at: instant of the fact, µs.
            count, value: the fact's numbers, as in `FACT_SCHEMA`.
        """
        program = self._programs[kind]
        if program is None:
            return
        steps, decays = program
        ints = rows.ints[at_row]
        ref = int(ints[0])
        for how, column, source, size in steps:
            if how is Kind.HOURS:
                ints[column + (at % US_PER_DAY) // (US_PER_DAY // size)] += 1
                continue
            if how is Kind.DAYS:
                _mark_day(ints, column, at // US_PER_DAY)
                continue
            amount = self._amount(source, at, count, value)
            if how is Kind.SUM:
                ints[column] += amount
            elif how is Kind.MAX:
                if amount > ints[column]:
                    ints[column] = amount
            elif how is Kind.MIN:
                if amount < ints[column]:
                    ints[column] = amount
            elif amount > 0:
                _insert_latest(rows.latest[at_row, column : column + size], amount)
        if self._rates:
            decayed = rows.decayed[at_row]
            if ref == NEVER:
                weight_age = 0
            elif at > ref:
                for i, rate in enumerate(self._rates):
                    decayed[i] *= exp2((at - ref) * rate)
                weight_age = 0
            else:
                weight_age = ref - at
            for i, source in decays:
                amount = self._amount(source, at, count, value)
                decayed[i] += amount * exp2(weight_age * self._rates[i]) if weight_age else amount
        if at > ref:
            ints[0] = at

    def _amount(self, source: str, at: int, count: int, value: int) -> int:
        if source == "one":
            return 1
        if source == "at":
            return at
        if source == "count":
            return count
        if source == "value":
            return value
        return max(0, value - self._two_slots_ms)

    def _compile(self, kind: FactKind) -> tuple[tuple[_Step, ...], tuple[tuple[int, str], ...]]:
        steps: list[_Step] = []
        decays: list[tuple[int, str]] = []
        for column in self.block.columns:
            if kind not in column.facts:
                continue
            match column.kind:
                case Kind.DECAYED:
                    decays.append((self.block.decay_column(column.name), column.source))
                case Kind.LATEST:
                    steps.append((column.kind, self.block.latest_slices[column.name].start, column.source, column.size))
                case Kind.HOURS:
                    steps.append((column.kind, self.block.int_column(f"{column.name}_0"), column.source, column.size))
                case Kind.DAYS:
                    steps.append((column.kind, self.block.int_column(f"{column.name}_last"), column.source, 0))
                case _:
                    steps.append((column.kind, self.block.int_column(column.name), column.source, 0))
        return tuple(steps), tuple(decays)


def _mark_day(ints: np.ndarray, column: int, day: int) -> None:
    """Set the day's bit in the bitmap that starts at `column` (anchor day, bits)."""
    last = int(ints[column])
    if last == NEVER or day - last >= DAY_BITS:
        ints[column], ints[column + 1] = day, 1
    elif day > last:
        ints[column] = day
        ints[column + 1] = ((int(ints[column + 1]) << (day - last)) | 1) & (2**DAY_BITS - 1)
    elif last - day < DAY_BITS:
        ints[column + 1] |= 1 << (last - day)


def _insert_latest(kept: np.ndarray, instant: int) -> None:
    """Insert an instant into a descending list of distinct ones, dropping the smallest."""
    if instant <= kept[-1]:
        return
    values = kept.tolist()
    if instant in values:
        return
    values.append(instant)
    values.sort(reverse=True)
    kept[:] = values[:-1]
