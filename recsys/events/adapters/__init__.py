"""Public data sets as downloaded → event tables. One module per format says what becomes of each file and column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recsys.errors import ConfigError, InputRefused
from recsys.events.adapters.kuailive import kuailive
from recsys.events.adapters.kuairand import kuairand
from recsys.events.adapters.online_retail import online_retail
from recsys.events.adapters.twitch import twitch_100k
from recsys.events.adapters.writing import ImportReport, SourceCount, TableWriter, new_folder

__all__ = ["FORMATS", "ImportReport", "SourceCount", "import_events"]

FORMATS: dict[str, Callable[[Path, TableWriter], None]] = {
    "kuailive": kuailive,
    "kuairand": kuairand,
    "twitch-100k": twitch_100k,
    "online-retail": online_retail,
}
"""Name on the command line → what writes the tables."""


def import_events(form: str, src: Path, out: Path) -> ImportReport:
    """Write the event tables of a public data set.

    Args:
        form: a name of `FORMATS`.
        src: the folder as downloaded and unpacked (or the one file, where the set is one).
        out: folder of event tables; new or empty. It appears whole or not at all.

    Returns:
        rows read, used and set aside of every source file, and rows written to every table.

    Raises:
        ConfigError: no such format.
        InputRefused: `src` does not hold the data set, or `out` is not empty.
    """
    if form not in FORMATS:
        raise ConfigError("no such format", where="FORMAT", got=form, expected=", ".join(FORMATS))
    if not src.exists():
        raise InputRefused("no such data set", where=src, hint="give the folder as it was downloaded and unpacked")
    report = ImportReport(form)
    with new_folder(out) as folder:
        FORMATS[form](src, TableWriter(folder, report))
    return report
