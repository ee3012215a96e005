"""A bundle of a large platform, made in a minute: a small synthetic one whose viewers are repeated.

    python benchmarks/large_bundle.py SHELF [--users 1000000] [--hosts 50000] [--ties 40]

Every state of a tie or viewer is written once per repetition, with real sizes on disk and in memory; what numbers say
repeats. Use it with `benchmarks/soak.py --bundle SHELF`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap
from synthetic_bundle import synthetic

from recsys.bundle import Bundle, BundleWriter, ManifestFields, publish, resolve
from recsys.ids import Vocabulary
from recsys.ties.blocks import blocks

MODEL = 2_000
"""Viewers that are repeated."""


def large(shelf: Path, *, users: int, hosts: int, ties: int) -> Path:
    """Write and publish it; `users` is rounded down to a multiple of `MODEL`."""
    with tempfile.TemporaryDirectory(dir=shelf.parent) as folder:
        small = Bundle.open(
            resolve(synthetic(Path(folder) / "small", users=MODEL, hosts=hosts, ties=ties, neighbours=200))
        )
        repeated = {b.name: b.level for b in blocks().all if b.level in ("tie", "user")}
        with BundleWriter(shelf, f"large-{users}") as writer:
            for name in small.manifest.files:
                state = name.split("/")[-1].rsplit("_", 1)[0] if name.startswith("state/") else None
                target = writer.path(name)
                if name == "users.ids":
                    ids = np.arange(users // MODEL * MODEL, dtype=np.int64)
                    with target.open("wb") as file:
                        np.save(file, np.stack([ids, ids]))
                    assert len(Vocabulary.load(target)) == len(ids)
                elif state in repeated:
                    _repeat(target, small.array(name.removesuffix(".npy")), users // MODEL, repeated[state])
                else:
                    shutil.copy(small.file(name), target)
            fields = small.manifest.model_dump(include=set(ManifestFields.model_fields))
            writer.finish(ManifestFields(**fields))
    publish(shelf, f"large-{users}")
    return shelf


def _repeat(target: Path, array: npt.NDArray[np.generic], times: int, level: str) -> None:
    """The array `times` times; of keys, those of the next viewers each time."""
    out = open_memmap(target, mode="w+", dtype=array.dtype, shape=(len(array) * times, *array.shape[1:]))
    step = 0 if array.ndim != 1 else MODEL << 32 if level == "tie" else MODEL
    for i in range(times):
        part = slice(i * len(array), (i + 1) * len(array))
        out[part] = array + step * i if step else array  # type: ignore[operator]
    out.flush()


def main() -> None:
    """Write the bundle and say how large it is."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("shelf", type=Path)
    options.add_argument("--users", type=int, default=1_000_000)
    options.add_argument("--hosts", type=int, default=50_000)
    options.add_argument("--ties", type=int, default=40)
    given = options.parse_args()
    given.shelf.parent.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    bundle = Bundle.open(resolve(large(given.shelf, users=given.users, hosts=given.hosts, ties=given.ties)))
    sizes = sum(entry.bytes for entry in bundle.manifest.files.values())
    n = len(bundle.array("state/visits_keys"))
    print(f"{n:,} ties, {sizes / 2**30:.1f} GiB, written and hashed in {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
