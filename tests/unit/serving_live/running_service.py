"""The real service on an ephemeral loopback port: `laotie serve` in a process of its own, or its application here."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn

from serving.client import HttpClient
from serving.config import ServingConfig
from serving.engine import Engine
from serving.http_app import create_app

COMMAND = "from recsys.cli import main; main()"


@dataclass
class Running:
    """The process and where it listens."""

    process: subprocess.Popen[str]
    url: str

    def client(self, api_key: str | None = None) -> HttpClient:
        return HttpClient(self.url, api_key, timeout_s=20.0)

    def kill(self) -> None:
        """kill −9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=20)


@contextmanager
def running(bundle: Path, log: Path, *options: str) -> Iterator[Running]:
    """Start, wait for the first answer, and stop it in the end."""
    command = [
        sys.executable,
        "-c",
        COMMAND,
        "serve",
        "--bundle",
        str(bundle),
        "--log",
        str(log),
        "--port",
        "0",
        *options,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    found: list[str] = []
    said: list[str] = []

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            address = re.search(r"on (http://\S+)", line)
            if address:
                found.append(address[1])

    reader = threading.Thread(target=listen, daemon=True)
    reader.start()
    try:
        for _ in range(600):
            if found:
                try:
                    if httpx.get(found[0] + "/readyz", timeout=20.0, trust_env=False).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
            assert process.poll() is None, "".join(said)
            time.sleep(0.05)
        else:
            raise AssertionError("the service did not start: " + "".join(said))
        yield Running(process, found[0])
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(timeout=5)
        if process.stderr is not None:
            process.stderr.close()


@contextmanager
def serving(engine: Engine, config: ServingConfig) -> Iterator[str]:
    """The application on an ephemeral loopback port, in a thread."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen(128)
    server = uvicorn.Server(uvicorn.Config(create_app(engine, config), log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        for _ in range(400):
            if server.started:
                break
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        bound.close()
        engine.close()
