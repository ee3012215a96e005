"""Bounded memories: what was seen lately, in two generations, so that forgetting costs nothing."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lately(Generic[K, V]):
    """A dictionary that holds at least the last `horizon` keys and at most twice as many.

    When the young generation is full it becomes the old one and the old one is forgotten. Not thread-safe: one writer.
    """

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

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
        if len(self._young) >= self.horizon and key not in self._young:
            self._old, self._young = self._young, {}
        self._young[key] = value

    def add(self, key: K, value: V) -> bool:
        """`put` of a key that is not held; False, and nothing changes, when it is."""
        young = self._young
        if key in young or key in self._old:
            return False
        if len(young) >= self.horizon:
            self._old, self._young = young, {}
            young = self._young
        young[key] = value
        return True

    def drop(self, key: K) -> None:
        """Forget one key now."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def generations(self) -> list[list[tuple[K, V]]]:
        """The old generation and the young one, as pairs in the order they were put."""
        return [list(self._old.items()), list(self._young.items())]

    def restore(self, old: Iterable[tuple[K, V]], young: Iterable[tuple[K, V]]) -> None:
        """Remember what `generations` of another memory told, and nothing else."""
        self._old, self._young = dict(old), dict(young)
