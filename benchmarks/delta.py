"""The nightly delta against a rebuild: states as of the end of a lake, from those of the day before.

    python benchmarks/delta.py --lake L [--days 1] [--threads 2]

The last days of the lake are taken as its last ingestion. Yesterday's states are made and written first (not timed).
Then two processes make today's states: one from the whole history, one from yesterday's states (memory-mapped) and the
partitions that have changed. Both begin with opening the lake and end with the states on the disk, hashed and flushed
as a bundle is; checksums of all integer columns are compared. Reported: wall and CPU seconds of making and of writing
them, peak memory, bytes written.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from recsys.bundle import Bundle, BundleWriter, DataWindow, ManifestFields
from recsys.config import BuildConfig, EngineConfig
from recsys.events import Vocabularies, build_vocabularies, clean, last_fact_us
from recsys.events.lake.manifest import LakeManifest
from recsys.events.lake.view import LakeView
from recsys.events.reading import from_lake
from recsys.ties.blocks import blocks
from recsys.ties.layers import State
from recsys.ties.stored import load_states, save_states
from training.delta import KnownStates, advance
from training.states import Snapshot, snapshot

NOW_US = 4 * 10**15
NOW = datetime.fromtimestamp(NOW_US / 1e6, UTC)


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


def whole(view: LakeView, config: EngineConfig, as_of_us: int | None, scratch: Path) -> tuple[Snapshot, Vocabularies]:
    """States from the whole history."""
    events = clean(from_lake(view), now=NOW)
    as_of = (last_fact_us(events) or 0) + 1 if as_of_us is None else as_of_us
    vocabularies = build_vocabularies(events, as_of_us=as_of)
    return snapshot(events, vocabularies, config, as_of, scratch=scratch), vocabularies


def write(folder: Path, name: str, shot: Snapshot, vocabularies: Vocabularies, base: Bundle | None = None) -> Path:
    """The states as a bundle: name, as-of and what they need to be continued."""
    with BundleWriter(folder, name) as writer:
        writer.json("world", {"columns": save_states(writer, shot.states, base, shot.lying)})
        writer.array("standings", shot.standings)
        vocabularies.save(writer.path("users.ids").parent)
        window = DataWindow(as_of_us=shot.as_of_us)
        return writer.finish(ManifestFields(created_at_us=NOW_US, config=EngineConfig().model_dump(), window=window))


def read_known(base: Bundle) -> KnownStates:
    """The same, memory-mapped."""
    states = load_states(base, blocks(), base.json("world")["columns"])
    vocabularies = Vocabularies.load(base.file("users.ids").parent)
    return KnownStates(states, base.array("standings"), vocabularies, base.manifest.window.as_of_us, 1, NOW_US)


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
            print(f"{side:8} made: wall {r['made_s']:6.1f} s, cpu {r['made_cpu_s']:6.1f} s;  written: wall"
                  f" {r['wall_s'] - r['made_s']:5.1f} s, {r['written_mb']:6,.0f} MB;  both: wall {r['wall_s']:6.1f} s,"
                  f" cpu {r['cpu_s']:6.1f} s;  peak {r['peak_mib']:6.0f} MiB  {r['facts']}", flush=True)  # fmt: skip
        full, delta = results["rebuild"], results["delta"]
        shares = ", ".join(
            f"{name} {delta[key] / full[key]:.3f}" for name, key in (("wall", "wall_s"), ("cpu", "cpu_s"))
        )
        print(f"delta / rebuild: {shares}; same states: {'yes' if delta['sums'] == full['sums'] else 'NO'}")


def run_side(args: argparse.Namespace) -> dict[str, object]:
    """One side in this process."""
    begin, cpu = time.perf_counter(), time.process_time()
    config = EngineConfig(build=BuildConfig(threads=args.threads))
    view, cut = view_of(args.lake, args.days)
    facts, base = "", None
    if args.side == "delta":
        base = Bundle.open(args.folder / "prepare")
        as_of = Bundle.open(args.folder / "rebuild").manifest.window.as_of_us
        advanced = advance(read_known(base), view, config, as_of, NOW_US)
        assert advanced is not None
        shot, vocabularies, facts = advanced.shot, advanced.vocabularies, f"{advanced.facts:,} facts added"
    else:
        lying = args.folder / f"lying-{args.side}"
        lying.mkdir()
        shot, vocabularies = whole(view, config, cut if args.side == "prepare" else None, lying)
    made, made_cpu = time.perf_counter() - begin, time.process_time() - cpu
    path = write(args.folder, args.side, shot, vocabularies, base)
    if shot.lying is not None:
        shutil.rmtree(shot.lying)
    wall, used = time.perf_counter() - begin, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    written = sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and file.stat().st_nlink == 1)
    sums = {name: [len(state), *total_of(state)] for name, state in shot.states.items()}
    return {"made_s": made, "made_cpu_s": made_cpu, "wall_s": wall, "cpu_s": used, "peak_mib": peak, "facts": facts,
            "written_mb": written / 1e6, "sums": sums}  # fmt: skip


def total_of(state: State) -> list[int]:
    """Sums of the integer columns."""
    _, ints = state.scan(lambda rows: rows.ints)
    return [int(total) for total in ints.sum(axis=0)]


if __name__ == "__main__":
    main()
