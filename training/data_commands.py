"""Commands that bring data in: public data sets into event tables, event tables into the lake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli import JsonOption, show


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("import")(import_data)


def import_data(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="kuailive, kuairand, twitch-100k or online-retail.")],
    src: Annotated[Path, typer.Argument(metavar="SRC", help="The data set as downloaded and unpacked.")],
    out: Annotated[Path, typer.Option("--out", file_okay=False, metavar="EVENTS", help="New folder of event tables.")],
    as_json: JsonOption = False,
) -> None:
    """Public data set as downloaded → event tables; rows that cannot be read are counted by their reason."""
    from recsys.events.adapters import import_events

    show(import_events(form, src, out), as_json=as_json)
