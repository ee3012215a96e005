"""Refunds joined to their orders as both arrive: the rules of `recsys.events.refunds`, one order at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from recsys.bundle import Bundle
from recsys.events.facts import NEVER, FactKind
from recsys.events.known import Known
from recsys.events.vocabularies import Vocabularies
from serving.seen import Lately

Fact = tuple[int, int, int, int, int, int, int, int]
_DISPUTES = ("counterfeit", "dispute")


class Line(NamedTuple):
    user: int
    host: int
    at: int
    amount: int
    ids: tuple[Any, Any]  # (host id, user id): orders shares of equal size


class Refund(NamedTuple):
    host: int  # −1: not named
    at: int
    amount: int | None
    kind: str | None


class Orders:
    """Lines of recent orders, and the refunds that wait for theirs. One writer; at least `horizon` orders are kept.

    A refund that waits takes effect with the first line that arrives for it; lines of the same instant that arrive
    later are not divided among any more (the batch sees them together).
    """

    def __init__(self, horizon: int) -> None:
        self.older: Callable[[int], list[Line]] = _none
        """Lines of an order (row) that are in the bundle, whether or not somebody told of them lately."""
        self.forgotten: dict[int, int] = {}
        """User rows that were erased → when, µs: what is given back of orders until then counts for the host alone."""
        self.lines: Lately[int, list[Line]] = Lately(horizon)
        self.refunds: Lately[int, list[Refund]] = Lately(horizon)

    @property
    def waiting(self) -> int:
        """Orders that refunds wait for."""
        return len(self.refunds)

    def line(self, order: int, user: int, host: int, at: int, amount: int, ids: tuple[Any, Any]) -> list[Fact]:
        """Remember an order line; facts of the refunds that waited for it."""
        lines = [*(self.lines.get(order) or ()), Line(user, host, at, amount, ids)]
        self.lines.put(order, lines)
        waiting = self.refunds.get(order)
        if not waiting:
            return []
        facts: list[Fact] = []
        still = []
        for refund in waiting:
            made = _shares(order, self._kept(lines), refund)
            facts += made
            if not made:
                still.append(refund)
        self.refunds.drop(order)
        if still:
            self.refunds.put(order, still)
        return facts

    def refund(self, order: int, host: int, at: int, amount: int | None, kind: str | None) -> list[Fact]:
        """Facts of a refund; none when its order is not known, then it waits."""
        asked = Refund(host, at, amount, kind)
        # told of lately or in the bundle, often both: as many of equal lines as the side that has more of them
        lines = Counter(self.older(order)) | Counter(self.lines.get(order) or ())
        facts = _shares(order, self._kept(list(lines.elements())), asked)
        if not facts:
            self.refunds.put(order, [*(self.refunds.get(order) or ()), asked])
        return facts

    def _kept(self, lines: list[Line]) -> list[Line]:
        if not self.forgotten:
            return lines
        return [line._replace(user=-1) if line.at <= self.forgotten.get(line.user, NEVER) else line for line in lines]


def _none(_: int) -> list[Line]:
    return []


class OlderLines:
    """Order lines a bundle holds, by order; call it with an order row. Costs a search, and at first a sort."""

    def __init__(self, bundle: Bundle, ids: Vocabularies) -> None:
        self._ids = ids
        lines = Known.load(bundle.path).lines if bundle.has("known_lines.arrow") else None
        self._lines = lines if lines is not None and lines.height else None
        if self._lines is not None:
            self._order = self._lines["order_id"].arg_sort()
            self._sorted = self._lines["order_id"].gather(self._order)

    def __call__(self, order: int) -> list[Line]:
        if self._lines is None:
            return []
        external = self._ids.orders.id(order)
        first, last = (self._sorted.search_sorted(external, side) for side in ("left", "right"))
        found = self._lines[self._order[first:last]].select("user_id", "host_id", "at", "amount_minor")
        users, hosts = self._ids.users, self._ids.hosts
        return [
            Line(users.row(user), hosts.row(host), at, amount, (host, user)) for user, host, at, amount in found.rows()
        ]


def _shares(order: int, lines: list[Line], refund: Refund) -> list[Fact]:
    """One fact per (user, host) of the order, in proportion to gross amounts; the remainder goes to the largest."""
    mine = [line for line in lines if refund.host in (-1, line.host)]
    if not mine:
        return []
    effect = max(refund.at, min(line.at for line in mine))
    gross: dict[tuple[int, int], int] = {}
    ids: dict[tuple[int, int], tuple[Any, Any]] = {}
    for line in mine:
        if line.at <= effect:
            pair = (line.user, line.host)
            gross[pair] = gross.get(pair, 0) + line.amount
            ids[pair] = line.ids
    order_of = sorted(gross, key=lambda pair: (-gross[pair], ids[pair]))
    total = max(sum(gross.values()), 1)
    kind = FactKind.DISPUTE if refund.kind in _DISPUTES else FactKind.REFUND
    amounts = dict(gross)
    if refund.amount is not None:
        amounts = {pair: refund.amount * gross[pair] // total for pair in order_of}
        amounts[order_of[0]] += refund.amount - sum(amounts.values())
    return [(effect, kind, user, host, -1, 1, amounts[user, host], order) for user, host in order_of]
