"""Commands that bring data in: public data sets into event tables, event tables into the lake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli import JsonOption, progress_of, show


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("import")(import_data)
    app.command("ingest")(ingest)
    app.command("compact")(compact)


def import_data(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="kuailive, kuairand, twitch-100k or online-retail.")],
    src: Annotated[Path, typer.Argument(metavar="SRC", help="The data set as downloaded and unpacked.")],
    out: Annotated[Path, typer.Option("--out", file_okay=False, metavar="EVENTS", help="New folder of event tables.")],
    as_json: JsonOption = False,
) -> None:
    """Public data set as downloaded → event tables; rows that cannot be read are counted by their reason."""
    from recsys.events.adapters import import_events

    show(import_events(form, src, out), as_json=as_json)


def ingest(
    ctx: typer.Context,
    events: Annotated[
        Path | None,
        typer.Argument(metavar="[EVENTS]", exists=True, help="Folder of event tables, unless --log is given."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option("--log", exists=True, dir_okay=False, help="Event log of the service instead.")
    ] = None,
    *,
    lake: Annotated[Path, typer.Option("--lake", file_okay=False, help="Folder of the lake; made if it is not there.")],
    buckets: Annotated[
        int | None, typer.Option("--buckets", min=1, help="Buckets of users of a new lake, a power of two.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Event tables, or the service's log, into the bucketed lake; may be repeated and interrupted, no row twice."""
    from recsys.errors import ConfigError
    from recsys.events.lake.from_log import ingest_log
    from recsys.events.lake.ingest import ingest as run

    with progress_of(ctx) as progress:
        if log is not None and events is None:
            report = ingest_log(log, lake, buckets=buckets, progress=progress)
        elif events is not None and log is None:
            report = run(events, lake, buckets=buckets, progress=progress)
        else:
            raise ConfigError(
                "what to ingest is not clear",
                got="neither" if log is None else "both",
                expected="a folder of event tables, or --log",
            )
    show(report, as_json=as_json)


def compact(
    lake: Annotated[Path, typer.Argument(metavar="LAKE", exists=True, file_okay=False)],
    most_files: Annotated[int, typer.Option("--most-files", min=1, help="Files a partition may keep.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Write partitions of a lake that have many files as one file each."""
    from recsys.events.lake.compaction import compact as run

    show(run(lake, most_files=most_files), as_json=as_json)
