"""The nightly delta against a rebuild: states as of the end of a lake, from those of the day before.

    python benchmarks/delta.py --lake L [--days 1] [--threads 2]

The last days of the lake are taken as its last ingestion. Yesterday's states are made and written first (not timed).
Then two processes make today's states: one from the whole history, one from yesterday's states (memory-mapped) and the
partitions that have changed. Both begin with opening the lake and end with states in memory; checksums of all integer
columns are compared. Reported: wall and CPU seconds, peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

from recsys.config import BuildConfig, EngineConfig
from recsys.events import Vocabularies, build_vocabularies, clean, last_fact_us
from recsys.events.lake.manifest import LakeManifest
from recsys.events.lake.view import LakeView
from recsys.events.reading import from_lake
from recsys.ties.algebra import BlockState, Rows
from recsys.ties.blocks import blocks
from training.delta import KnownStates, advance
from training.states import Snapshot, snapshot

NOW_US = 4 * 10**15
NOW = datetime.fromtimestamp(NOW_US / 1e6, UTC)
PARTS = ("ints", "decayed", "latest")


def view_of(lake: Path, days: int) -> tuple[LakeView, int]:
    """The lake as if its last days had come with ingestion 2, and the instant at which they begin, µs."""
    manifest = LakeManifest.read(lake)
    last = max(file.date for file in manifest.files if file.table == "watches" and file.date[:1] == "2")
    first = date.fromisoformat(last) - timedelta(days=days - 1)
    files = tuple(
        file.model_copy(update={"first_seq": 2, "last_seq": 2}) if file.date >= first.isoformat()
        and file.date[:1] == "2" else file
        for file in manifest.files
    )  # fmt: skip
    cut = int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp()) * 1_000_000
    return LakeView(lake, manifest.model_copy(update={"files": files, "seq": 2})), cut


def whole(view: LakeView, config: EngineConfig, as_of_us: int | None) -> tuple[Snapshot, Vocabularies]:
    """States from the whole history."""
    events = clean(from_lake(view), now=NOW)
    as_of = (last_fact_us(events) or 0) + 1 if as_of_us is None else as_of_us
    vocabularies = build_vocabularies(events, as_of_us=as_of)
    return snapshot(events, vocabularies, config, as_of), vocabularies


def write_known(folder: Path, shot: Snapshot, vocabularies: Vocabularies) -> None:
    """Yesterday's states as files."""
    for name, state in shot.states.items():
        np.save(folder / f"{name}_keys.npy", state.keys)
        for part in PARTS:
            np.save(folder / f"{name}_{part}.npy", getattr(state.rows, part))
    vocabularies.save(folder)


def read_known(folder: Path, cut: int) -> KnownStates:
    """The same, memory-mapped as those of a bundle are."""
    states = {}
    for block in blocks().all:
        arrays = [
            np.load(folder / f"{block.name}_{part}.npy", mmap_mode="r")
            for part in PARTS
            if _some(folder, block.name, part)
        ]
        keys = np.load(folder / f"{block.name}_keys.npy")
        rows = Rows(*arrays) if len(arrays) == 3 else Rows(*(np.load(folder / f"{block.name}_{p}.npy") for p in PARTS))
        states[block.name] = BlockState(block, keys, rows)
    return KnownStates(states, Vocabularies.load(folder), cut, 1, NOW_US)


def _some(folder: Path, name: str, part: str) -> bool:
    return bool(np.load(folder / f"{name}_{part}.npy", mmap_mode=None).size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=["prepare", "rebuild", "delta"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(run_side(args)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        results = {}
        for side in ("prepare", "rebuild", "delta"):
            call = [sys.executable, __file__, "--lake", str(args.lake), "--days", str(args.days), "--side", side]
            call += ["--threads", str(args.threads), "--folder", scratch]
            results[side] = json.loads(subprocess.run(call, stdout=subprocess.PIPE, check=True).stdout)
            r = results[side]
            print(f"{side:8} wall {r['wall_s']:6.1f} s  cpu {r['cpu_s']:6.1f} s  peak {r['peak_mib']:6.0f} MiB"
                  f"  {r['facts'] or ''}", flush=True)  # fmt: skip
        full, delta = results["rebuild"], results["delta"]
        print(f"delta / rebuild: wall {delta['wall_s'] / full['wall_s']:.3f}, cpu {delta['cpu_s'] / full['cpu_s']:.3f};"
              f" same states: {'yes' if delta['sums'] == full['sums'] else 'NO'}")  # fmt: skip


def run_side(args: argparse.Namespace) -> dict[str, object]:
    """One side in this process."""
    begin, cpu = time.perf_counter(), time.process_time()
    config = EngineConfig(build=BuildConfig(threads=args.threads))
    view, cut = view_of(args.lake, args.days)
    facts: int | str = ""
    if args.side == "delta":
        as_of = int((args.folder / "as_of").read_text())
        advanced = advance(read_known(args.folder, cut), view, config, as_of, NOW_US)
        assert advanced is not None
        shot, facts = advanced.shot, f"{advanced.facts:,} facts added"
    else:
        shot, vocabularies = whole(view, config, cut if args.side == "prepare" else None)
    wall, used = time.perf_counter() - begin, time.process_time() - cpu
    if args.side == "prepare":
        write_known(args.folder, shot, vocabularies)
    elif args.side == "rebuild":
        (args.folder / "as_of").write_text(str(shot.as_of_us))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sums = {f"{name}": [len(s), *(int(part) for part in s.rows.ints.sum(axis=0))] for name, s in shot.states.items()}
    return {"wall_s": wall, "cpu_s": used, "peak_mib": peak, "facts": facts, "sums": sums}


if __name__ == "__main__":
    main()
