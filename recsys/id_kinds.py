"""The two kinds of external ids: what a column, a value or a text may stand for."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import polars as pl

from recsys.errors import InputRefused

IdKind: TypeAlias = Literal["int", "str"]
_INTEGER = re.compile("-?[0-9]{1,19}")


def id_kind(dtype: pl.DataType) -> IdKind | None:
    """The kind of ids a column of this type holds; None for a column of type Null.

    Raises:
        InputRefused: neither an integer nor a text type.
    """
    if dtype.is_integer():
        return "int"
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return "str"
    if isinstance(dtype, pl.Null):
        return None
    raise InputRefused("a column of this type cannot hold ids", got=dtype, expected="integers or strings")


def is_of_kind(external: int | str, kind: IdKind | None) -> bool:
    """Whether an id is of this kind; None: no id fixed it yet, so any is."""
    return kind is None or isinstance(external, str) == (kind == "str")


def id_in(text: str, kind: IdKind | None) -> int | str | None:
    """The id that a text stands for among ids of this kind; None: they are integers of 64 bits and this is none."""
    if kind != "int":
        return text
    number = int(text) if _INTEGER.fullmatch(text) else 2**63
    return number if -(2**63) <= number < 2**63 else None
