"""What an intake remembers at a small cost: what was seen lately, in two generations, so that forgetting costs nothing;
and a number a row."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lately(Generic[K, V]):
    """A dictionary that holds at least the last `horizon` keys and at most twice as many.

    When the young generation is full it becomes the old one and the old one is forgotten: no longer found, and given
    back a key at a time, for half a million at once hold up everybody for some 50 ms. Not thread-safe: one writer.
    """

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._forgotten: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __contains__(self, key: K) -> bool:
        return key in self._young or key in self._old

    def get(self, key: K) -> V | None:
        """The value last put under this key, None if it was forgotten or never put."""
        found = self._young.get(key)
        return found if found is not None else self._old.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember; the oldest generation goes when the young one is full."""
        if key not in self._young:
            self._make_room()
        self._young[key] = value

    def add(self, key: K, value: V) -> bool:
        """`put` of a key that is not held; False, and nothing changes, when it is."""
        if key in self._young or key in self._old:
            return False
        self._make_room()
        self._young[key] = value
        return True

    def _make_room(self) -> None:
        if len(self._young) >= self.horizon:
            self._forgotten, self._old, self._young = self._old, self._young, {}
        elif self._forgotten:
            self._forgotten.popitem()

    def drop(self, key: K) -> None:
        """Forget one key now."""
        for generation in (self._young, self._old, self._forgotten):
            generation.pop(key, None)

    def let_go(self, most: int) -> bool:
        """Forget keys, so many at most; whether there were as many."""
        for generation in (self._forgotten, self._old, self._young):
            while generation and most:
                generation.popitem()
                most -= 1
        return not most

    def generations(self) -> list[list[tuple[K, V]]]:
        """The old generation and the young one, as pairs in the order they were put."""
        return [list(self._old.items()), list(self._young.items())]

    def restore(self, old: Iterable[tuple[K, V]], young: Iterable[tuple[K, V]]) -> None:
        """Remember what `generations` of another memory told, and nothing else."""
        self._old, self._young = dict(old), dict(young)


class ByRow:
    """A dictionary from rows to numbers that holds nothing but the numbers, one after the other: a dictionary takes
    some 70 bytes more a row, of rooms that ended for as long as the bundle is served. One writer.

    Args:
        typecode: of the numbers, as in `array.array`.
        nothing: stands for a row without a number, and is none.
    """

    def __init__(self, typecode: str, nothing: int) -> None:
        self._numbers = array(typecode)
        self._nothing = nothing

    def __contains__(self, row: int) -> bool:
        return self.get(row) is not None

    def __getitem__(self, row: int) -> int:
        found = self.get(row)
        if found is None:
            raise KeyError(row)
        return found

    def __setitem__(self, row: int, number: int) -> None:
        more = row + 1 - len(self._numbers)
        if more > 0:
            self._numbers.extend([self._nothing] * more)
        self._numbers[row] = number

    def get(self, row: int) -> int | None:
        """The number of a row ≥ 0, None if it has none."""
        if row < len(self._numbers):
            found: int = self._numbers[row]
            if found != self._nothing:
                return found
        return None

    def items(self) -> Iterator[tuple[int, int]]:
        """Rows that have a number, ascending, and their numbers."""
        return ((row, number) for row, number in enumerate(self._numbers) if number != self._nothing)

    def update(self, told: Iterable[tuple[int, int]]) -> None:
        """Give rows these numbers."""
        for row, number in told:
            self[row] = number
