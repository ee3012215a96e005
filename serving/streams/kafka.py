"""A Kafka topic as a stream: all its partitions, assigned by hand, no consumer group, nothing committed to the broker.

The position is JSON: partition → next offset. Memory: librdkafka fetches ahead at most `queued.max.messages.kbytes`.
"""

from __future__ import annotations

import logging
import time
from typing import Any
from urllib.parse import urlsplit

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from recsys.errors import ConfigError
from serving.config import StreamConfig
from serving.streams import Chunk, StreamFailed, StreamRecord

_ASK_S = 5.0
_NEW_PARTITIONS_S = 30.0
_quiet = logging.getLogger("laotie.serving.kafka")


class KafkaStream:
    """See `serving.streams.Stream`.

    Args:
        config: `kafka://broker[,broker]/topic`; `options` are librdkafka's settings and win over ours.
    """

    def __init__(self, config: StreamConfig) -> None:
        url = urlsplit(config.url)
        self._topic, self._start = url.path.strip("/"), config.start
        self.name, self.gaps = f"kafka:{self._topic}", 0
        self._down: str | None = None
        self._next: dict[int, int] = {}
        self._asked_at = 0.0
        settings: dict[str, Any] = {
            "bootstrap.servers": url.netloc,
            "group.id": "laotie",  # the client wants one; no group is joined
            "enable.auto.commit": False,
            "auto.offset.reset": "error",  # told, not mended in silence
            "queued.max.messages.kbytes": 16_384,
            "queued.min.messages": max(2 * config.batch, 10_000),
            "fetch.queue.backoff.ms": 20,  # else a full queue pauses fetching for a second
            "reconnect.backoff.max.ms": 2_000,
            "error_cb": self._on_error,
            "logger": _quiet,
        }
        try:
            self._consumer = Consumer(settings | config.options)
        except (KafkaException, TypeError, ValueError) as error:
            raise ConfigError("Kafka refuses a setting", where="stream.options", got=error) from error

    def subscribe(self, position: str | None) -> str:
        """See `serving.streams.Stream`."""
        held = {} if position is None else {int(part): int(at) for part, at in orjson.loads(position).items()}
        self._next = {}
        for partition in self._partitions():
            low, high = self._bounds(partition)
            if partition in held:
                lost = not low <= held[partition] <= high
                self.gaps += lost
                self._next[partition] = low if lost else held[partition]
            else:  # nothing was read yet, or the partition is new
                self._next[partition] = high if position is None and self._start == "latest" else low
        self._consumer.assign([TopicPartition(self._topic, part, at) for part, at in self._next.items()])
        self._asked_at = time.monotonic()
        return self._position()

    def read(self, most: int, wait_s: float) -> Chunk | None:
        """See `serving.streams.Stream`."""
        if time.monotonic() - self._asked_at > _NEW_PARTITIONS_S:
            self._asked_at = time.monotonic()
            if set(self._partitions()) - set(self._next):
                self.subscribe(self._position())
        first = self._consumer.poll(wait_s)
        if self._down is not None:
            raise StreamFailed("no broker answers", where=self.name, got=self._down)
        if first is None:
            return None
        records, overtaken = [], False
        for message in [first, *self._consumer.consume(most - 1, 0)]:
            error = message.error()
            if error is None:
                records.append(self._record(message))
            elif error.code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):
                overtaken = True
            else:
                raise StreamFailed("records cannot be read", where=self.name, got=error)
        if overtaken:
            self.subscribe(self._position())
        return Chunk(records, self._position())

    def close(self) -> None:
        """See `serving.streams.Stream`."""
        self._consumer.close()

    def _record(self, message: Message) -> StreamRecord:
        partition, offset, value = message.partition(), message.offset(), message.value()
        assert partition is not None and offset is not None  # it came from a broker
        self._next[partition] = offset + 1
        return StreamRecord(f"{partition}@{offset}", value.encode() if isinstance(value, str) else value)

    def _position(self) -> str:
        return orjson.dumps({str(part): self._next[part] for part in sorted(self._next)}).decode()

    def _partitions(self) -> list[int]:
        try:
            topic = self._consumer.list_topics(self._topic, timeout=_ASK_S).topics[self._topic]
        except KafkaException as error:
            raise StreamFailed("no broker answers", where=self.name, got=error) from error
        if topic.error is not None or not topic.partitions:
            raise StreamFailed("no such topic", where=self.name, got=topic.error or "no partitions")
        return sorted(topic.partitions)

    def _bounds(self, partition: int) -> tuple[int, int]:
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=_ASK_S)
        except KafkaException as error:
            raise StreamFailed("no broker answers", where=self.name, got=error) from error
        return int(low), int(high)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._down = str(error)
