"""How long until a published bundle answers, beside merely reading the same bytes: ratios, measured in one go.

    python benchmarks/bundle_load.py --users 50000 --ties 30

Each side runs in a process of its own, several times in turn, on files the system has in memory; what is timed begins
after the imports and ends when the world can be asked:

    ours           open (sizes checked), vocabularies, models, live index, states mapped; then one lookup
    ours, hashes   the same with every byte hashed
    numpy          np.load of every array of the bundle into memory; no world, no answer
    polars         the same arrays as one Parquet file a state (zstd, as exports are), read and turned into numpy

Peak memory is the process's largest resident set less that after the imports (Linux only). Mapped pages that were read
count as resident, though the system may take them back.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

SIDES = ("ours", "ours, hashes", "numpy", "polars")


def ours(bundle: Path, *, hashes: bool) -> Callable[[], None]:
    """Load, and give one answer."""
    from serving.asked import Asked
    from serving.config import ServingConfig
    from serving.engine import Engine

    config = ServingConfig(verify="hashes" if hashes else "sizes")

    def run() -> None:
        with Engine.open(bundle, None, config) as engine:
            engine.lookup(Asked(engine.loaded.vocabularies.users.id(0), 20))

    return run


def with_numpy(bundle: Path) -> Callable[[], None]:
    """Every array read into memory."""
    return lambda: _keep([np.load(path) for path in sorted(bundle.rglob("*.npy"))])


def with_polars(parquet: Path) -> Callable[[], None]:
    """The same arrays from Parquet."""

    def run() -> None:
        frames = [pl.read_parquet(path) for path in sorted(parquet.glob("*.parquet"))]
        _keep([column.to_numpy() for frame in frames for column in frame.get_columns()])

    return run


def _keep(_: object) -> None:
    """Everything is held at the same time."""


def as_parquet(bundle: Path, out: Path) -> None:
    """The arrays of a bundle, those of equal length and folder together as columns of one Parquet file."""
    out.mkdir()
    groups: dict[tuple[str, int], dict[str, pl.Series]] = {}
    for path in sorted(bundle.rglob("*.npy")):
        array = np.load(path)
        if not array.size:
            continue
        flat = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
        columns = groups.setdefault((f"{path.parent}/{path.stem.rpartition('_')[0]}", len(flat)), {})
        for i in range(flat.shape[1]):
            columns[f"{path.stem}_{i}"] = pl.Series(np.ascontiguousarray(flat[:, i]))
    for n, columns in enumerate(groups.values()):
        pl.DataFrame(columns).write_parquet(out / f"{n:03d}.parquet", compression="zstd")


def one(side: str, bundle: Path, parquet: Path) -> dict[str, float]:
    """One side in this process."""
    run = {
        "ours": lambda: ours(bundle, hashes=False),
        "ours, hashes": lambda: ours(bundle, hashes=True),
        "numpy": lambda: with_numpy(bundle),
        "polars": lambda: with_polars(parquet),
    }[side]()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    held = _memory_mb("VmRSS")
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    run()
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"s": took, "cpu_s": cpu, "peak_mb": _memory_mb("VmHWM") - held}


def _memory_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Measure and print one JSON document."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--users", type=int, default=50_000)
    options.add_argument("--hosts", type=int, default=5_000)
    options.add_argument("--ties", type=int, default=30)
    options.add_argument("--bundle", type=Path, default=None, help="a bundle instead of a synthetic one")
    options.add_argument("--times", type=int, default=3)
    options.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options.add_argument("--parquet", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.side:
        print(json.dumps(one(given.side, given.bundle, given.parquet)))
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        bundle = given.bundle
        if bundle is None:
            from synthetic_bundle import synthetic

            bundle = synthetic(root / "b", users=given.users, hosts=given.hosts, ties=given.ties) / "synthetic"
        as_parquet(bundle, root / "parquet")
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for _ in range(given.times):
            for side in SIDES:
                command = [sys.executable, __file__, "--side", side, "--bundle", str(bundle)]
                ran = subprocess.run([*command, "--parquet", str(root / "parquet")], capture_output=True, check=True)
                runs[side].append(json.loads(ran.stdout))
        found = {
            side: {name: round(statistics.median(run[name] for run in of), 3) for name in of[0]}
            for side, of in runs.items()
        }
        size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
        against = {side: round(found["ours"]["s"] / found[side]["s"], 2) for side in SIDES[1:]}
        document = {"bundle_mb": round(size / 1e6, 1), "median of": given.times, **found, "ours against": against}
        print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
