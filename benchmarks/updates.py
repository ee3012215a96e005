"""What one fact costs a state: the compiled statements, and a loop over the declared columns in their place.

    python benchmarks/updates.py

Both do the same arithmetic in the same order and must leave the same memory; processor time, the least of several
rounds, summed over the blocks that a fact of the kind feeds. `arrays`: the compiled statements on numpy arrays instead
of flat views. See docs/decisions/0011-updates-are-compiled.md.
"""

from __future__ import annotations

import json
import os
import time
from math import exp2
from typing import Any

import numpy as np

from recsys.events.facts import NEVER, US_PER_DAY, FactKind
from recsys.ties.algebra import Block, Column, Kind, Rows, identity
from recsys.ties.blocks import blocks
from recsys.ties.update import Program, Updater, _insert_latest, _mark_day, cells

KEYS, FACTS, ROUNDS = 1_000, 20_000, 5
BEGIN_US = 1_700_000_000_000_000
_CODES = {kind: code for code, kind in enumerate((Kind.SUM, Kind.MAX, Kind.MIN, Kind.HOURS, Kind.DAYS, Kind.LATEST))}


def place_of(block: Block, column: Column) -> int:
    """Where a column begins in its part of the row."""
    if column.kind is Kind.LATEST:
        return int(block.latest_slices[column.name].start)
    suffix = {Kind.HOURS: "_0", Kind.DAYS: "_last"}.get(column.kind, "")
    return block.int_column(column.name + suffix)


def looped(block: Block, kind: FactKind) -> Program:
    """The program of a kind as a loop over the columns it feeds."""
    columns = [column for column in block.columns if kind in column.facts]
    steps = [(_CODES[c.kind], place_of(block, c), c.source, c.size) for c in columns if c.kind is not Kind.DECAYED]
    rates = [-1.0 / half_life for half_life in block.half_lives_us.tolist()]
    fed = {block.decay_column(c.name): c.source for c in columns if c.kind is Kind.DECAYED}
    carried = [(place, rate, fed.get(place)) for place, rate in enumerate(rates)]
    n_ints, n_latest, n_decays, beyond = len(block.ints), block.latest_width, len(rates), 2 * block.slot_ms

    def program(ints: Any, decayed: Any, latest: Any, row: int, at: int, count: int, value: int) -> None:
        i, d = row * n_ints, row * n_decays
        ref = ints[i]
        amounts = {"one": 1, "at": at, "count": count, "value": value, "beyond": max(0, value - beyond)}
        for how, place, source, size in steps:
            amount = amounts[source]
            if how == 0:
                ints[i + place] += amount
            elif how == 1:
                if amount > ints[i + place]:
                    ints[i + place] = amount
            elif how == 2:
                if amount < ints[i + place]:
                    ints[i + place] = amount
            elif how == 3:
                ints[i + place + at % US_PER_DAY // (US_PER_DAY // size)] += 1
            elif how == 4:
                _mark_day(ints, i + place, at // US_PER_DAY)
            elif amount > 0:
                _insert_latest(latest, row * n_latest + place, size, amount)
        if ref == NEVER:
            for place, source in fed.items():
                decayed[d + place] += amounts[source]
        elif at > ref:
            age = at - ref
            for place, rate, fed_by in carried:
                then = decayed[d + place] * exp2(age * rate)
                decayed[d + place] = then if fed_by is None else then + amounts[fed_by]
        else:
            age = ref - at
            for place, source in fed.items():
                decayed[d + place] += amounts[source] * exp2(age * rates[place])
        if at > ref:
            ints[i] = at

    return program


def cost_us(program: Program, held: tuple[Any, Any, Any]) -> float:
    """Processor time of a fact, µs."""
    begun = time.process_time()
    for i in range(FACTS):
        at = BEGIN_US + i * 1_000_000
        program(*held, i % KEYS, at, 1, at)
    return (time.process_time() - begun) / FACTS * 1e6


def flat(rows: Rows) -> tuple[Any, Any, Any]:
    return rows.ints.reshape(-1), rows.decayed.reshape(-1), rows.latest.reshape(-1)


def measured(kind: FactKind) -> dict[str, float]:
    """µs of a fact over the blocks it feeds, by way."""
    total = {"compiled": 0.0, "looped": 0.0, "arrays": 0.0}
    for block in blocks().all:
        compiled = Updater(block).programs[kind]
        if compiled is None or block.name == "arrivals":  # fed with first entries only
            continue
        states = {way: identity(block, KEYS) for way in total}
        ways: dict[str, tuple[Program, tuple[Any, Any, Any]]] = {
            "compiled": (compiled, cells(states["compiled"])),
            "looped": (looped(block, kind), cells(states["looped"])),
            "arrays": (compiled, flat(states["arrays"])),
        }
        least = dict.fromkeys(total, float("inf"))
        for _ in range(ROUNDS):
            for way, (program, held) in ways.items():
                least[way] = min(least[way], cost_us(program, held))
        for way, us in least.items():
            total[way] += us
            for ours, theirs in zip(flat(states["compiled"]), flat(states[way]), strict=True):
                np.testing.assert_array_equal(ours, theirs, err_msg=f"{block.name} {way}")
    return {way: round(us, 1) for way, us in total.items()}


def main() -> None:
    """Measure and print one JSON document."""
    found: dict[str, Any] = {"load": os.getloadavg()[0]}
    for kind in (FactKind.ENTRY, FactKind.STAY, FactKind.COMMENT, FactKind.ORDER_LINE):
        found[kind.name] = measured(kind)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
