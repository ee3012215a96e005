"""Instants at the edges: ISO 8601 text outside, int64 microseconds since the epoch (UTC) inside.

The library has no clock: «now» is always handed in by whoever has one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from recsys.errors import ConfigError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)


def parse_instant(text: str, *, where: object = None) -> int:
    """ISO 8601 date or instant to µs since the epoch; without an offset the text is read as UTC.

    Args:
        text: for example `2026-05-01`, `2026-05-01T20:30:00`, `2026-05-01T20:30:00+08:00`, `2026-05-01T12:30:00Z`.
        where: the option or setting the text came from, named in the error.

    Raises:
        ConfigError: the text is no ISO 8601 date or instant.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ConfigError(
            "not a time",
            where=where,
            got=repr(text),
            expected="an ISO 8601 date or instant",
            hint="write 2026-05-01 or 2026-05-01T20:30:00+08:00; without an offset it is UTC",
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return from_datetime(moment)


def format_instant(us: int) -> str:
    """µs since the epoch to ISO 8601 in UTC with all six decimals; the inverse of `parse_instant`.

    Raises:
        OverflowError: the instant lies outside the years 1 to 9999.
    """
    return to_datetime(us).isoformat(timespec="microseconds").replace("+00:00", "Z")


def to_datetime(us: int) -> datetime:
    """µs since the epoch to an aware datetime in UTC, for callers that speak datetimes."""
    return _EPOCH + us * _US


def from_datetime(moment: datetime) -> int:
    """Aware datetime to µs since the epoch, exactly.

    Raises:
        ValueError: the datetime is naive, so nobody knows which instant it means.
    """
    if moment.tzinfo is None:
        raise ValueError(f"naive datetime {moment!r}")
    return (moment - _EPOCH) // _US
