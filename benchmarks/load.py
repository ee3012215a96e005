"""A load generator that costs little: keep-alive connections on plain sockets, one thread each."""

from __future__ import annotations

import socket
import threading
import time

import numpy as np


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """One HTTP/1.1 request as it goes over the wire."""
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body


def load(port: int, requests: list[bytes], connections: int, seconds: float) -> dict[str, float]:
    """Answers a second and their latencies; the generator shares the machine with the server.

    Args:
        requests: sent in turn, each connection beginning at another one.
    """
    took: list[float] = []
    failed = [0]
    until = time.perf_counter() + seconds

    def caller(first: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            i = first
            while time.perf_counter() < until:
                begun = time.perf_counter()
                line.sendall(requests[i % len(requests)])
                status = _answer(line)
                took.append((time.perf_counter() - begun) * 1e3)
                failed[0] += status != 200
                i += connections

    threads = [threading.Thread(target=caller, args=(i,)) for i in range(connections)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = np.percentile(took, [50, 99])
    return {
        "per_s": round(len(took) / (time.perf_counter() - begun)), "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1), "failed": failed[0], "answers": len(took),
    }  # fmt: skip


def _answer(line: socket.socket) -> int:
    """Read one answer to its end; its status."""
    got = b""
    while b"\r\n\r\n" not in got:
        part = line.recv(65_536)
        if not part:
            raise ConnectionError("the server closed the connection")
        got += part
    head, _, body = got.partition(b"\r\n\r\n")
    at = head.lower().index(b"content-length:")
    left = int(head[at + 15 :].split(b"\r\n", 1)[0]) - len(body)
    while left > 0:
        left -= len(line.recv(min(left, 1 << 20)))
    return int(head[9:12])
