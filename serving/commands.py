"""Online commands of `laotie`: each checks its arguments, then imports what is heavy and calls one function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli import BundleOption, JsonOption, KOption, OutFileOption, options_of, progress_of, show
from recsys.instants import parse_instant

LogOption = Annotated[Path, typer.Option("--log", exists=True, dir_okay=False, help="Event log of the service.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", exists=True, help="YAML, see configs/serving.yaml.")]


def register(app: typer.Typer) -> None:
    """Add the online commands to the command line."""
    for command in (lookup, replay, serve, doctor, erase, export_log, snapshot, prune):
        app.command(command.__name__.replace("_", "-"))(command)


def lookup(
    bundle: BundleOption,
    user: Annotated[str, typer.Option("--user", help="External id of the viewer.")],
    at: Annotated[str | None, typer.Option("--at", metavar="T", help="ISO 8601; default: the bundle's as-of.")] = None,
    k: KOption = 20,
    as_json: JsonOption = False,
) -> None:
    """Ranked live rooms of one viewer, with strength and reasons."""
    from recsys.bundle import Bundle, resolve

    at_us = None if at is None else parse_instant(at, where="--at")
    opened = Bundle.open(resolve(bundle))

    from serving.lookup import lookup as run

    show(run(opened, user, at_us=at_us, k=k), as_json=as_json)


def replay(
    ctx: typer.Context,
    bundle: BundleOption,
    events: Annotated[Path, typer.Option("--events", exists=True, help="Folder of event tables with later facts.")],
    requests: Annotated[
        Path, typer.Option("--requests", exists=True, help="Parquet: request_id, user_id, at, live_room_ids?")
    ],
    out: OutFileOption,
    k: KOption = 100,
    as_json: JsonOption = False,
) -> None:
    """Answer past requests in time order as the service would have."""
    from recsys.bundle import Bundle, resolve

    opened = Bundle.open(resolve(bundle))

    from serving.replay import replay as run

    with progress_of(ctx) as progress:
        result = run(opened, events, requests, out, k=k, progress=progress)
    show(result, as_json=as_json)


def serve(
    ctx: typer.Context,
    bundle: BundleOption,
    log: Annotated[
        Path | None, typer.Option("--log", help="Event log (SQLite); default: events.db beside the bundle.")
    ] = None,
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Anything but loopback needs API keys.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65_535, help="0: any free port.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes sharing bundle and log.")] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", metavar="URL", help="Also follow kafka://… or valkey://…/stream.")
    ] = None,
) -> None:
    """Serve a bundle over HTTP, live to the second; a newly published one is taken over without a pause."""
    import logging

    from recsys.bundle import resolve
    from serving.config import load_serving_config

    settings = load_serving_config(config, {"host": host, "port": port, "workers": workers, "stream": stream})
    found = resolve(bundle)
    if not options_of(ctx).quiet:
        logging.getLogger("laotie.serving").setLevel(logging.INFO if options_of(ctx).debug else logging.WARNING)

    from serving.server import run

    where = log if log is not None else found.parent / "events.db"
    run(bundle, where, settings, lambda address: typer.echo(f"laotie: serving {found.name} on {address}", err=True))


def doctor(
    bundle: BundleOption,
    log: Annotated[Path | None, typer.Option("--log", help="Event log; default: events.db beside the bundle.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check all that serving needs: packages, settings, bundle, log, disk; exit 3 on a fault."""
    from serving.doctor import examine

    report = examine(bundle, log, config)
    show(report, as_json=as_json)
    report.raise_faults()


def erase(
    bundle: BundleOption,
    log: LogOption,
    user: Annotated[str, typer.Option("--user", help="External id of the user.")],
    lake: Annotated[
        Path | None, typer.Option("--lake", exists=True, file_okay=False, help="Lake the bundles are built from.")
    ] = None,
    as_json: JsonOption = True,
) -> None:
    """Erase a user: at once from every service on the log, then from log, bundles and lake; prints a receipt."""
    from serving.engine import Engine
    from serving.erasing import erase_everywhere
    from serving.lookup import typed_id

    with Engine.open(bundle, log) as engine:
        show(erase_everywhere(engine, typed_id(user, engine.loaded.vocabularies.users), lake), as_json=as_json)


def export_log(
    log: LogOption,
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder of event tables to add files to.")],
    after: Annotated[int, typer.Option("--after", min=0, help="Only what lies above this offset.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write what the log holds as event tables, served answers as impressions; prints the last offset."""
    from recsys.events.log_tables import export_log as run

    show(run(log, out, after), as_json=as_json)


def snapshot(
    bundle: BundleOption,
    log: LogOption,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what the log made of the bundle beside the log, so that the next start reads the rest only."""
    from serving.config import load_serving_config
    from serving.snapshotting import make

    show(make(bundle, log, load_serving_config(config)), as_json=as_json)


def prune(
    bundle: Annotated[Path, typer.Option("--bundle", exists=True, file_okay=False, help="The folder of bundles.")],
    log: LogOption,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove records of the log that every bundle on the shelf contains, less the deduplication horizon."""
    from serving.config import load_serving_config
    from serving.snapshotting import prune as run

    show(run(bundle, log, load_serving_config(config)), as_json=as_json)
