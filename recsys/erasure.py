"""Erased users: how files remember whom to refuse without holding his id.

An erasure is a pseudonym and an instant. Facts of that user at or before the instant are refused wherever they turn up
again (an old export, a late event); later facts are those of a newcomer who happens to have the same id. The pseudonym
is a hash without a secret: nobody reads the id from it, but whoever guesses the id can tell that it was erased.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl


class Erasure(NamedTuple):
    """`user`: pseudonym; `at_us`: facts up to and with this instant are gone, µs since the epoch."""

    user: str
    at_us: int

    @classmethod
    def of(cls, user_id: int | str, at_us: int) -> Erasure:
        """The erasure of a user known by id."""
        return cls(pseudonym(user_id), at_us)


def pseudonym(user_id: int | str) -> str:
    """32 hex digits; the integer 7 and the text "7" are two users."""
    kind = "int" if isinstance(user_id, int) else "str"
    return hashlib.sha256(f"laotie-erased:{kind}:{user_id}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def erased_until(users: pl.Series, erased: Mapping[str, int]) -> pl.Series:
    """For each user id the instant up to which his facts are gone, µs; null: never. Costs a hash a distinct id."""
    if not erased:
        return pl.repeat(None, len(users), dtype=pl.Int64, eager=True)
    distinct = users.drop_nulls().unique()
    found: dict[Any, int] = {one: at for one in distinct.to_list() if (at := erased.get(pseudonym(one))) is not None}
    if not found:
        return pl.repeat(None, len(users), dtype=pl.Int64, eager=True)
    table = pl.DataFrame({"id": pl.Series(list(found), dtype=users.dtype), "at": list(found.values())})
    return users.alias("id").to_frame().join(table, on="id", how="left", maintain_order="left")["at"]
