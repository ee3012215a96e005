"""What an intake remembers beside the state of the world: as plain data and back again for snapshots; and its end."""

from __future__ import annotations

import ctypes
import time
from typing import Any, Final

from serving.intake import Intake
from serving.refund_shares import Line, Refund

_AT_ONCE: Final = 1_000
"""Keys given back while everybody else waits: a tenth of a millisecond."""


def memories_of(intake: Intake) -> dict[str, Any]:
    """Ids and keys seen, rooms shown lately, orders and waiting refunds, ends, leases and kinds of ids."""
    return {
        "ids": [[name for name, _ in part] for part in intake.ids.generations()],
        "keys": intake.keys.generations(),
        "shown": intake.shown.generations(),
        "lines": intake.orders.lines.generations(),
        "refunds": intake.orders.refunds.generations(),
        "forgotten": list(intake.orders.forgotten.items()),
        "ended": list(intake.rooms.ended.items()),
        "rooms_seen": list(intake.rooms.seen.items()),
        "ends_of_others": intake.rooms.ends_of_others.generations(),
        "lapsed": sorted(intake.rooms.lapsed),
        "leases": list(intake.rooms.leases.deadlines().items()),
        "kinds": intake.rules.kinds,
    }


def remember(intake: Intake, told: dict[str, Any]) -> None:
    """Let a new intake remember what another one did."""
    intake.ids.restore(*([(name, True) for name in part] for part in told["ids"]))
    intake.keys.restore(*([(tuple(key), value) for key, value in part] for part in told["keys"]))
    intake.shown.restore(*([(tuple(key), rooms) for key, rooms in part] for part in told["shown"]))
    intake.orders.lines.restore(
        *([(order, [_line(*line) for line in lines]) for order, lines in part] for part in told["lines"])
    )
    intake.orders.refunds.restore(
        *([(order, [Refund(*one) for one in waiting]) for order, waiting in part] for part in told["refunds"])
    )
    intake.orders.forgotten.update(told["forgotten"])
    intake.rooms.ended.update(told["ended"])
    intake.rooms.seen.update(told["rooms_seen"])
    intake.rooms.ends_of_others.restore(*([(tuple(key), at) for key, at in part] for part in told["ends_of_others"]))
    intake.rooms.lapsed.update(told["lapsed"])
    intake.rooms.leases.restore(dict(told["leases"]))
    intake.rules.kinds.update(told["kinds"])


def let_go(intake: Intake) -> None:
    """Give back, a little at a time, what an intake remembers that nobody asks any more: millions of keys given back in
    one go hold up whoever is served."""
    for memory in (intake.ids, intake.keys, intake.orders.lines, intake.orders.refunds, intake.rooms.ends_of_others):
        while memory.let_go(_AT_ONCE):
            time.sleep(0.0002)


def trim() -> None:
    """Give what is free among the memory of this process back to the system, some milliseconds: of a state that is not
    served any more little would be the end of a heap, which is all that is given back otherwise. Only with glibc."""
    free = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if free is not None:
        free(0)


def _line(user: int, host: int, at: int, amount: int, ids: list[Any]) -> Line:
    return Line(user, host, at, amount, (ids[0], ids[1]))
