"""`laotie validate`: is this folder of event tables usable, and which rows are set aside."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from recsys.events.quarantine import clean
from recsys.events.reading import open_events
from recsys.events.report import QualityReport


def validate(folder: Path, *, now: datetime | None) -> QualityReport:
    """Check the tables of `folder`; `to_json` of the answer is the document of `laotie validate --json`.

    Args:
        now: the wall clock, with time zone; None: no row is too late.

    Raises:
        InputRefused: the folder or one of its tables cannot be used at all.
    """
    return clean(open_events(folder), now=now).quality
