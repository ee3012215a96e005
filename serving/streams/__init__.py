"""Events from a broker: Kafka topics, and streams of Valkey or Redis, behind one small protocol.

    valkey://127.0.0.1:6379/laotie-events        kafka://broker-1:9092,broker-2:9092/laotie-events

A record is the JSON an event is over HTTP, `{"event_id"?, "table", "row"}`. Whoever follows a stream keeps its position
himself, beside what he made of the records (`serving.streams.following`): the broker is asked for records after a
position and never told how far anybody has come.
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from recsys.errors import ConfigError, LaotieError
from serving.config import StreamConfig

_PACKAGE = {"kafka": "confluent_kafka", "valkey": "redis", "valkeys": "redis", "redis": "redis", "rediss": "redis"}


class StreamFailed(LaotieError):
    """The broker cannot be reached, or does not give what it was asked for; ask again later."""


class StreamRecord(NamedTuple):
    """One record: `where` it lies, unique in its stream, and its bytes (None: it has none)."""

    where: str
    body: bytes | None


class Chunk(NamedTuple):
    """Records in the order of the stream, and the position after them."""

    records: list[StreamRecord]
    position: str


class Stream(Protocol):
    """A stream as its reader sees it. One thread at a time.

    Attributes:
        name: kind and name of the stream, without addresses or secrets: under this its position is stored.
        gaps: how often the broker no longer held what comes after the position, since this object was made.
    """

    name: str
    gaps: int

    def subscribe(self, position: str | None) -> str:
        """Read what comes after this position from now on; None: from the configured start. The position taken, which
        is another one if the broker no longer holds what was asked for.

        Raises:
            StreamFailed: not reachable, or there is no such stream.
        """

    def read(self, most: int, wait_s: float) -> Chunk | None:
        """The next records, at most `most`, as soon as there is one; None: none came within `wait_s`.

        Raises:
            StreamFailed: the connection is lost; `subscribe` on a new object.
        """

    def close(self) -> None:
        """Let go of the connection."""


def connect(config: StreamConfig) -> Stream:
    """The stream of a config; nothing is sent yet.

    Raises:
        ConfigError: the package for this kind is not installed, or an option of its client is wrong.
    """
    check_installed(config)
    if urlsplit(config.url).scheme == "kafka":
        from serving.streams.kafka import KafkaStream

        return KafkaStream(config)
    from serving.streams.valkey import ValkeyStream

    return ValkeyStream(config)


def check_installed(config: StreamConfig) -> None:
    """
    Raises:
        ConfigError: the package for this kind of stream is not installed.
    """
    package = _PACKAGE[urlsplit(config.url).scheme]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            "the client of this stream is not installed",
            where="stream.url",
            got=package,
            hint="pip install 'laotie[stream]'",
        )
