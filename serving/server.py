"""Processes: one worker in this process, or several that share a listening socket, the mapped bundle and the log."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import multiprocessing.process
import multiprocessing.synchronize
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]

from recsys.errors import ConfigError, LaotieError
from serving.config import ServingConfig
from serving.engine import Engine, clock_us
from serving.streams import check_installed

SWITCH_S = 0.001
"""Longest a thread keeps the interpreter while another waits: the log's thread must not hold up the event loop."""


def listening(config: ServingConfig) -> socket.socket:
    """A socket bound to the configured address.

    Raises:
        ConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((config.host, config.port))
    except OSError as error:
        bound.close()
        raise ConfigError("cannot listen", where=f"{config.host}:{config.port}", got=error) from error
    bound.listen(1024)
    bound.set_inheritable(True)
    return bound


def url_of(host: str, port: int) -> str:
    """The address to ask a service at."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _leave(*_: object) -> None:
    """SIGTERM while uvicorn does not listen to it: process 1 of a container would not be ended by it. Also what uvicorn
    raises again when it has ended. An exception would be swallowed where the compiler calls back; nothing is served
    then, and what is on the disk bears kill -9."""
    os._exit(0)


def run(bundle: Path, log: Path, config: ServingConfig, announce: Callable[[str], None]) -> None:
    """Serve until told to stop (SIGINT, SIGTERM).

    Args:
        bundle: a bundle, or a folder of bundles whose `CURRENT` is then followed.
        log: the event log, shared by all workers.
        announce: told the address once requests are answered, by the first worker that can.

    Raises:
        BundleRefused, GateFailed, ConfigError: nothing was served.
    """
    signal.signal(signal.SIGTERM, _leave)
    if config.stream is not None:
        check_installed(config.stream)
    bound = listening(config)
    address = url_of(config.host, bound.getsockname()[1])
    if config.workers == 1:
        work(bundle, log, config, bound, lambda: announce(address))
        return
    Engine.open(bundle, log, config).close()  # a bundle that cannot be served is refused here, once, and clearly
    context = multiprocessing.get_context("spawn")
    ready = context.Event()

    def started(number: int) -> multiprocessing.process.BaseProcess:
        worker = context.Process(target=_worker, args=(bundle, log, config, bound, number, ready), daemon=True)
        worker.start()
        return worker

    stopping = announced = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    workers = [started(number) for number in range(config.workers)]
    while not stopping:
        time.sleep(0.2)
        if not announced and ready.is_set():
            announce(address)
            announced = True
        for number, worker in enumerate(workers):
            if not worker.is_alive() and not stopping:
                logging.getLogger("laotie.serving").error("worker %d died (%s); started anew", number, worker.exitcode)
                workers[number] = started(number)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(timeout=10)


def _worker(
    bundle: Path,
    log: Path,
    config: ServingConfig,
    bound: socket.socket,
    number: int,
    ready: multiprocessing.synchronize.Event,
) -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="laotie: %(levelname)s %(name)s: %(message)s")
    try:
        work(bundle, log, config, bound, ready.set, number=number)
    except LaotieError as error:
        logging.getLogger("laotie.serving").error("worker %d cannot serve: %s", number, error)
        time.sleep(1.0)


def settle_memory() -> None:
    """What a bundle and the memories of the intake hold is not searched for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def work(
    bundle: Path,
    log: Path,
    config: ServingConfig,
    bound: socket.socket,
    ready: Callable[[], None],
    clock: Callable[[], int] = clock_us,
    number: int | None = None,
) -> None:
    """One worker (of several: which): load, then answer on the given socket until told to stop."""
    from serving.http_app import create_app

    sys.setswitchinterval(SWITCH_S)
    engine = Engine.open(bundle, log, config, clock)
    settle_memory()
    threadpool_limits(1)  # a lookup's products are small: a second thread doubles the processor time and saves none
    settings = uvicorn.Config(
        create_app(engine, config, log, number),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        limit_concurrency=None,
        lifespan="on",
    )
    ready()
    try:
        uvicorn.Server(settings).run(sockets=[bound])
    finally:
        engine.close()
