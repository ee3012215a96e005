"""The service's log into the lake: every record once, however often it is asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path

from recsys.events.lake.erasing import erase_from_lake
from recsys.events.lake.grouping import RUNS
from recsys.events.lake.ingest import IngestReport, add, open_lake
from recsys.events.lake.manifest import LakeManifest
from recsys.events.log_tables import erasures_in, export_log, identity_of
from recsys.events.reading import open_events
from recsys.progress import Progress, silent


def ingest_log(log: Path, lake: Path, *, buckets: int | None = None, progress: Progress = silent) -> IngestReport:
    """Bring the records of a service's log that the lake does not have into it; the lake is made if it is not there.

    The offset of the last record is stored in the same swap of the lake's list as the rows: a repetition starts where
    the last one ended, and an interrupted one has not happened. Rows without a key (two equal likes) are told apart by
    their records; a row with a key that the lake has from elsewhere is not written again. Users whom the service was
    told to erase are taken out of the lake as well.

    Args:
        log: the file of `laotie serve --log`; a service may have it open.
        lake, buckets: as in `ingest`.

    Raises:
        InputRefused: the log cannot be read, ids are of another kind than in the lake, or `lake` holds other things.
        ConfigError: `buckets` is no power of two, or another number than the lake has.
    """
    with open_lake(lake, buckets, lambda: 1) as old, tempfile.TemporaryDirectory(prefix=RUNS, dir=lake) as folder:
        tail = Path(folder)
        log_id = identity_of(log)
        export = export_log(log, tail, old.logs.get(log_id, 0), dict(old.id_kinds))
        more = {"logs": {**old.logs, log_id: export.offset}}
        if not export.rows:
            old.model_copy(update={**more, "generation": old.generation + 1}).write(lake)
            report = IngestReport(str(lake), old.seq, old.buckets)
        else:
            tables = open_events(tail, any_table=True)
            report = add(lake, old, str(log), tables, tables.scans, more, progress, once=frozenset(export.rows))
        report.log, report.log_offset, report.left_out = log_id, export.offset, export.left_out
    known = LakeManifest.read(lake).erased
    erased = [one for one in erasures_in(log) if known.get(one.user, one.at_us - 1) < one.at_us]
    if erased:
        report.erased = erase_from_lake(lake, erased)["rows"]
    return report
