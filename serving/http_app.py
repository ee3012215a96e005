"""The HTTP face of an engine: routes, limits, errors, request ids, logs. One event loop, one engine.

Lookups are answered on the loop itself, those that wait at the same time together (`serving.company`); writing to the
log, swapping bundles and erasing go to threads.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from recsys import __version__
from recsys.bundle import current_name
from recsys.errors import BundleRefused, InputRefused, LaotieError
from serving import wire
from serving.access import Access
from serving.admission import Turns
from serving.answers import document, explanation, live_rooms
from serving.company import Company
from serving.config import ApiKey, Role, ServingConfig
from serving.engine import Engine
from serving.erasing import erase_everywhere
from serving.event_log import LogFailed
from serving.ladder import STEPS
from serving.mapped_pages import keep as keep_mapped_pages
from serving.measures import Measures
from serving.problems import Problem
from serving.queue import IntakeQueue
from serving.snapshotting import keep as keep_snapshots
from serving.streams.following import Follower

log = logging.getLogger("laotie.serving")
Handler = Callable[["Service", Request, str], Awaitable[Any]]


class Service:
    """What the routes share."""

    def __init__(self, engine: Engine, config: ServingConfig, worker: int | None = None) -> None:
        self.engine, self.config = engine, config
        self.access = Access(config)
        self.turns = Turns(config.waiting_lookups, config.deadline_ms / 1e3)
        self.measures = Measures(worker)
        self.queue = IntakeQueue(engine, config.waiting_events, self.measures.impressions_lost.inc)
        self.company = Company(
            self.turns, lambda asked: engine.lookup_many(asked), config.users_together, self.queue.pass_by
        )
        self.refused_bundle: str | None = None  # or what is wrong with `CURRENT`

    async def body(self, request: Request) -> bytes:
        """The body, bounded in size and time."""
        coding = ",".join(request.headers.getlist("content-encoding"))
        if {one.strip().lower() for one in coding.split(",")} - {"", "identity"}:
            raise Problem(
                415, "compressed", f"Content-Encoding {coding[:32]!r} is not read here: send the body as it is"
            )
        most, parts, size = self.config.most_body_bytes, [], 0
        try:
            async with asyncio.timeout(10.0):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise Problem(413, "too_large", f"a body may have {most} bytes")
                    parts.append(part)
        except TimeoutError:
            raise Problem(408, "slow_body", "the body did not arrive within 10 s") from None
        return b"".join(parts)

    async def swap(self) -> str:
        """Take over the folder's current bundle."""
        try:
            name = await asyncio.to_thread(self.engine.swap)
        except LaotieError as error:
            self.measures.swaps.labels("refused").inc()
            log.error(json.dumps({"event": "bundle refused", "why": str(error), "serving": self.engine.loaded.name}))
            raise
        self.refused_bundle = None
        self.measures.swaps.labels("done").inc()
        log.info(json.dumps({"event": "bundle taken over", "bundle": name}))
        return name

    async def watch(self) -> None:
        """Follow the folder's `CURRENT` until cancelled; what is refused is told, and tried once."""
        while self.config.watch_current_s and self.engine.bundles is not None:
            await asyncio.sleep(self.config.watch_current_s)
            name = None
            try:
                name = current_name(self.engine.bundles)
                if name not in (None, self.engine.loaded.name, self.refused_bundle):
                    await self.swap()
            except LogFailed:
                continue  # told by `swap`; the bundle is not to blame
            except LaotieError as error:
                if name is None and self.refused_bundle != str(error):  # no bundle: `swap` was not asked
                    log.error(json.dumps({"event": "CURRENT refused", "why": str(error)}))
                self.refused_bundle = name or str(error)
            except Exception:
                log.exception(json.dumps({"event": "bug", "where": "watch", "bundle": name}))
                self.refused_bundle = name


async def lookup(service: Service, request: Request, request_id: str) -> Any:
    """Ranked live rooms of one or many users."""
    body = wire.decoded(wire.LOOKUP, await service.body(request))
    asked = wire.asked_in(body, service.config, service.engine.loaded.vocabularies)
    served = await service.company.ask(asked) if asked else []
    answers = [document(one, breakdown=body.breakdown) for one in served]
    for one in served:
        service.measures.lookups.labels(STEPS[one.asked.step] or "no").inc()
    service.measures.short.inc(sum(len(one.room_ids) < one.asked.k for one in served))
    if service.config.log_impressions:
        service.queue.later(served, request_id)
    return {"request_id": request_id, "answers": answers}


async def explain(service: Service, request: Request, request_id: str) -> Any:
    """Why a user would be shown a room now, or why not."""
    ids = service.engine.loaded.vocabularies
    user_id, room_id, k = wire.explanation_in(request.query_params, service.config, ids)
    async with service.turns.in_full(2):  # the answer to him, and the room's own: of a simpler one it would be untrue
        return {"request_id": request_id, **explanation(service.engine, user_id, room_id, k)}


async def events(service: Service, request: Request, request_id: str) -> Any:
    """Log, flush and apply a batch of events; one result per event."""
    rows = wire.events_in(await service.body(request), service.config)
    verdicts = await service.queue.put(rows)
    service.measures.count_events(rows, verdicts)
    results = [
        {"event_id": event_id, "status": status, "reason": reason}
        for (event_id, _, _), (status, reason) in zip(rows, verdicts, strict=True)
    ]
    return {"request_id": request_id, "offset": service.engine.loaded.applied, "results": results}


async def rooms(service: Service, request: Request, request_id: str) -> Any:
    """The rooms live now, a page of them."""
    limit, after = wire.page_in(request.query_params)
    return {"request_id": request_id, **live_rooms(service.engine, limit, after)}


async def erase(service: Service, request: Request, request_id: str) -> Any:
    """Erase a user: nothing of him is served from the first moment; a receipt when he is out of every file too."""
    user_id = wire.typed_id(request.path_params["user_id"], service.engine.loaded.vocabularies.users, "user_id")
    try:
        receipt = await asyncio.to_thread(erase_everywhere, service.engine, user_id, service.config.lake)
    except (InputRefused, BundleRefused, OSError) as error:
        raise Problem(409, "not_erased_everywhere", f"nothing of the user is served any more, but {error}") from error
    return {"request_id": request_id, **receipt}


async def reload(service: Service, request: Request, request_id: str) -> Any:  # noqa: ARG001 -- a handler
    """Take over the folder's current bundle now."""
    try:
        return {"request_id": request_id, "bundle": await service.swap()}
    except LaotieError as error:
        raise Problem(409, "bundle_refused", str(error)) from error


async def readyz(service: Service, request: Request, request_id: str) -> Any:  # noqa: ARG001 -- a handler
    """Whether lookups are answered, from which bundle, how old it and the feed are."""
    follower = service.measures.follower
    stream = {} if follower is None else {"stream": follower.vitals()}
    return {"ready": True, **service.engine.vitals(), **stream}


async def livez(service: Service, request: Request, request_id: str) -> Any:  # noqa: ARG001 -- a handler
    """Whether the process answers at all."""
    return {"live": True}


async def metrics(service: Service, request: Request, request_id: str) -> Any:  # noqa: ARG001 -- a handler
    """What the service counts, for Prometheus."""
    return Response(service.measures.text(service.engine), media_type="text/plain; version=0.0.4")


def _endpoint(service: Service, handler: Handler, role: Role | None) -> Callable[[Request], Awaitable[Response]]:
    """A handler with all that is the same for every route."""
    route = handler.__name__

    async def answer(request: Request) -> Response:
        begun = time.perf_counter()
        request_id = request.headers.get("x-request-id", "")
        if not (0 < len(request_id) <= 64 and request_id.isascii() and request_id.isprintable()):
            request_id = uuid.uuid4().hex
        caller: ApiKey | None = None
        headers = {"x-request-id": request_id}
        try:
            if role is not None:
                caller = service.access.admit(request.headers, role)
            made = await handler(service, request, request_id)
            response = made if isinstance(made, Response) else _json(made, 200)
        except Problem as problem:
            response = _json(problem.document(request_id), problem.status)
            if problem.retry_after_s is not None:
                headers["retry-after"] = str(max(1, round(problem.retry_after_s)))
            if problem.status in (429, 503):
                service.measures.refused.labels(problem.code).inc()
        except LogFailed as error:
            log.error(json.dumps({"event": "log failed", "request_id": request_id, "why": str(error)}))
            response = _json(Problem(503, "log_failed", error.what).document(request_id), 503)
        except Exception:
            log.exception(json.dumps({"event": "bug", "request_id": request_id, "route": route}))
            response = _json(Problem(500, "bug", "internal error").document(request_id), 500)
        response.headers.update(headers)
        took = time.perf_counter() - begun
        service.measures.requests.labels(route, response.status_code).inc()
        service.measures.seconds.labels(route).observe(took)
        if log.isEnabledFor(logging.INFO):
            said = {"event": "request", "request_id": request_id, "route": route, "status": response.status_code}
            log.info(json.dumps(said | {"caller": caller.name if caller else None, "ms": round(took * 1e3, 2)}))
        return response

    answer.__name__, answer.__doc__ = route, handler.__doc__
    return answer


def _json(document: Any, status: int) -> Response:
    return Response(orjson.dumps(document), status_code=status, media_type="application/json")


def create_app(engine: Engine, config: ServingConfig, path: Path | None = None, worker: int | None = None) -> FastAPI:
    """The application; of several workers, that of number `worker`. Its lifespan starts the intake, the watch over
    `CURRENT` and the following of the configured stream, whose positions lie in the engine's log at `path`, and ends
    all three.
    """
    service = Service(engine, config, worker)
    follower = None
    if config.stream is not None and path is not None:
        follower = Follower(engine, path, config.stream, service.measures.count_events)
        service.measures.follower = follower

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if follower is not None:
            follower.start()
        running = (
            service.company.run(),
            service.queue.run(),
            service.watch(),
            keep_snapshots(engine, config),
            keep_mapped_pages(engine, config),
        )
        tasks = [asyncio.create_task(one) for one in running]
        try:
            yield
        finally:
            if follower is not None:
                await asyncio.to_thread(follower.stop)
            await service.queue.drain()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(
        title="Laotie", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.service = service
    from serving.routes import ROUTES

    for route in ROUTES:
        app.add_api_route(
            route.path,
            _endpoint(service, route.handler, route.role),
            methods=[route.method],
            summary=(route.handler.__doc__ or "").strip().rstrip("."),
            responses=route.responses,
            openapi_extra=route.openapi,
            response_class=Response,
            operation_id=route.handler.__name__,
        )

    async def no_route(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        response = _json(Problem(status, "no_route", "no such path or method").document(uuid.uuid4().hex), status)
        response.headers.update(getattr(error, "headers", None) or {})  # Allow
        return response

    app.add_exception_handler(HTTPException, no_route)
    return app
