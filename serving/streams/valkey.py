"""A stream of Valkey or Redis (5 and later): entries with one field `event`, read by id, no consumer group.

    XADD laotie-events * event '{"event_id": "e1", "table": "rooms", "row": {…}}'

The position is the id of the last entry read. Memory: `batch` entries at a time.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from recsys.errors import ConfigError
from serving.config import StreamConfig
from serving.streams import Chunk, StreamFailed, StreamRecord

_BEGINNING = "0-0"
_ASK_S = 5.0


class ValkeyStream:
    """See `serving.streams.Stream`.

    Args:
        config: `valkey://[user:password@]host[:port]/stream[?db=n]`, `valkeys://` over TLS; what has a meaning of its
            own in an address is percent-encoded in user and password. `options` are arguments of redis-py's client and
            win over ours.

    Raises:
        ConfigError: the address or an option is unusable.
    """

    def __init__(self, config: StreamConfig) -> None:
        url = urlsplit(config.url)
        self._stream, self._start, self._at = url.path.strip("/"), config.start, _BEGINNING
        self.name, self.gaps = f"valkey:{self._stream}", 0
        try:
            settings: dict[str, Any] = {
                "host": url.hostname or "127.0.0.1",
                "port": url.port or 6379,
                "username": None if url.username is None else unquote(url.username),
                "password": None if url.password is None else unquote(url.password),
                "db": int(parse_qs(url.query).get("db", ["0"])[0]),
                "ssl": url.scheme in ("valkeys", "rediss"),
                "protocol": 2,
                "socket_connect_timeout": _ASK_S,
                "socket_timeout": config.wait_s + _ASK_S,
                "retry": Retry(NoBackoff(), 0),  # whoever follows the stream tries again, and counts
            }
        except ValueError as error:
            raise ConfigError(
                "the address of the stream cannot be read",
                where="stream.url",
                got=error,
                expected="numbers as port and db: valkey://host:6379/stream?db=0",
            ) from error
        try:
            self._client = redis.Redis(**settings | config.options)
        except (TypeError, ValueError) as error:
            raise ConfigError("the client refuses a setting", where="stream.options", got=error) from error

    def subscribe(self, position: str | None) -> str:
        """See `serving.streams.Stream`."""
        last = self._last()
        if position is None:
            self._at = last if self._start == "latest" else _BEGINNING
        elif _number(position) > _number(last):  # another stream under the same name
            self.gaps += 1
            self._at = _BEGINNING
        else:
            self._at = position
        return self._at

    def read(self, most: int, wait_s: float) -> Chunk | None:
        """See `serving.streams.Stream`."""
        try:
            found: Any = self._client.xread({self._stream: self._at}, count=most, block=max(1, round(wait_s * 1e3)))
            if not found:
                return None
            entries = found[0][1]
            # Still there after the read: nothing between it and the first entry was trimmed away unread.
            if self._at != _BEGINNING and not self._client.xrange(self._stream, self._at, self._at, count=1):
                self.gaps += 1
        except redis.RedisError as error:
            raise StreamFailed("entries cannot be read", where=self.name, got=error) from error
        self._at = entries[-1][0].decode()
        return Chunk([StreamRecord(name.decode(), (said or {}).get(b"event")) for name, said in entries], self._at)

    def close(self) -> None:
        """See `serving.streams.Stream`."""
        self._client.close()

    def _last(self) -> str:
        try:
            if not self._client.exists(self._stream):
                return _BEGINNING
            told: Any = self._client.xinfo_stream(self._stream)
        except redis.RedisError as error:
            raise StreamFailed("the server does not answer", where=self.name, got=error) from error
        return str(told["last-generated-id"].decode())


def _number(entry: str) -> tuple[int, int]:
    time, _, nth = entry.partition("-")
    return int(time), int(nth)
