"""How a bundle comes to be served: opened, brought up to the end of the log, and given over from the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Final

import orjson

from recsys.bundle import Bundle
from recsys.errors import BundleRefused, GateFailed
from recsys.events.log_tables import ERASE, log_source
from recsys.events.single_rows import CLOCK_TOLERANCE_US
from recsys.live.artefact import load
from recsys.pipeline.rehearsal import rehearse
from serving.config import ServingConfig
from serving.event_log import EventLog, Record
from serving.intake import Intake
from serving.loaded import LOG_SOURCE, Loaded
from serving.refund_shares import OlderLines
from serving.snapshots import restore

Turn = Callable[[], AbstractContextManager[None]]
"""What is entered while records are taken."""
_AT_ONCE: Final = 256
"""Records whose viewers' states are fetched together."""
A_TURN: Final = 32
"""Records taken before somebody else gets his turn: a millisecond."""
_FEW: Final = 256
"""Records that lookups and events can wait for: some ten milliseconds."""


def load_rehearsed(
    path: Path, config: ServingConfig, log: EventLog | None, now_us: int, turn: Turn = nullcontext
) -> Loaded:
    """`load_bundle` for who answers with it: its first lookups wait for nothing that happens once in a process."""
    loaded = load_bundle(path, config, log, now_us, turn)
    rehearse(loaded.live.world, max(now_us, loaded.bundle.manifest.window.as_of_us))
    return loaded


def load_beside(path: Path, config: ServingConfig, log: Path | None, now_us: int, turn: Turn) -> Loaded:
    """`load_rehearsed` while another bundle is served, by a connection to the log of its own: up to its end but for a
    few records of what was logged meanwhile; where more arrives than can be taken, but for those of one round."""
    if log is None:
        return load_rehearsed(path, config, None, now_us)
    own = EventLog(log)
    try:
        loaded = load_rehearsed(path, config, own, now_us, turn)
        behind = own.last - loaded.applied
        while behind > _FEW:
            _take_all(loaded, own.read(loaded.applied, loaded.applied + behind), turn)
            before, behind = behind, own.last - loaded.applied
            if behind >= before:
                break
        return loaded
    finally:
        own.close()


def load_bundle(
    path: Path, config: ServingConfig, log: EventLog | None, now_us: int, turn: Turn = nullcontext
) -> Loaded:
    """Open a bundle and bring it up to the end of the log.

    Args:
        path: a bundle directory.
        now_us: every live room starts with a fresh lease from here, µs.
        turn: entered for a few records of the log at a time, where others are served meanwhile.

    Raises:
        BundleRefused: it cannot be opened or read.
        GateFailed: one of its gates failed.
    """
    bundle = Bundle.open(path, verify=config.verify)
    failed = bundle.manifest.failed_gates
    if failed:
        raise GateFailed("bundle did not pass its gates", where=path, got="; ".join(gate.name for gate in failed))
    live, vocabularies = load(bundle)
    scattered = not bundle.maps.read_ahead("state/", config.read_ahead_mb << 20)
    if scattered:
        bundle.maps.read_scattered("state/")
    intake = Intake(
        live,
        vocabularies,
        dedup_horizon=config.dedup_horizon,
        lease_us=round(config.lease_s * 1e6),
    )
    intake.orders.older = OlderLines(bundle, vocabularies)
    intake.as_of_us = bundle.manifest.window.as_of_us
    offsets = bundle.manifest.offsets
    loaded = Loaded(bundle, live, vocabularies, intake, offsets.get(LOG_SOURCE), scattered=scattered)
    if log is not None:
        if config.most_fresh_mb:
            live.world.ties.space.bound(config.most_fresh_mb << 20, log.path.parent)
        if any(name.startswith(log_source("")) for name in offsets):
            loaded.offset = offsets.get(log_source(log.log_id), 0)
        last = log.last
        begin = restore(loaded, log)
        if begin is None:
            begin = _first_needed(loaded, log, config)
            for record in log.of_table(ERASE, begin):
                loaded.obey(orjson.loads(record.row))
        _take_all(loaded, log.read(begin, last), turn)
        loaded.applied = last
    intake.rooms.keep_alive(now_us)
    return loaded


def _take_all(loaded: Loaded, told: Iterator[Record], turn: Turn) -> None:
    while some := list(islice(told, _AT_ONCE)):
        loaded.fetch_entrants(some)
        for start in range(0, len(some), A_TURN):
            with turn():
                for record in some[start : start + A_TURN]:
                    loaded.take(record)


def _first_needed(loaded: Loaded, log: EventLog, config: ServingConfig) -> int:
    """The offset above which records are read: some that the bundle contains, to be remembered, and all it does not.

    Raises:
        BundleRefused: they are not in the log any more.
    """
    contained = min(log.last, loaded.offset or 0)
    pruned = log.pruned_upto
    if contained < pruned:
        raise BundleRefused(
            "the log does not reach back to this bundle",
            where=loaded.bundle.path,
            got=f"records above {pruned}",
            expected=f"records above {contained}",
            hint="serve a later bundle; laotie prune keeps what those on the shelf need",
        )
    begin = max(pruned, contained - config.dedup_horizon)
    if contained and not loaded.bundle.manifest.window.whole:  # facts of contained records may still be to come
        since = loaded.intake.as_of_us - CLOCK_TOLERANCE_US
        begin = max(pruned, min(begin, log.first_received(since, begin) - 1))
    return begin


def hand_over_leases(old: Loaded, new: Loaded) -> None:
    """Rooms whose lease ran out under the old bundle do not come back with the new one."""
    for before in old.intake.rooms.lapsed:
        room = new.vocabularies.rooms.row(old.vocabularies.rooms.id(before))
        if room in new.live.world.index:
            new.live.end_rooms([room])
            new.intake.rooms.leases.end(room)
            new.intake.rooms.lapsed.add(room)
