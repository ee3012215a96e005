"""Generate a world and print the calibration table of docs/simulator.md, with speed and peak memory.

.venv/bin/python benchmarks/simulator_calibration.py --users 5000 --hosts 15000 --days 60 --seed 7
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path

from recsys.events.simulator import load_world, simulate
from recsys.events.simulator.calibration import compare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="private_domain", help="a name in configs/worlds, or a YAML file")
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--hosts", type=int, default=15_000)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--speed-only", action="store_true", help="do not measure the figures: for worlds of any size")
    asked = parser.parse_args()
    world = load_world(asked.world)
    with tempfile.TemporaryDirectory() as folder:
        report = simulate(
            world,
            users=asked.users,
            hosts=asked.hosts,
            days=asked.days,
            seed=asked.seed,
            out=Path(folder) / "events",
            processes=asked.processes,
        )
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        peak_mb = max(usage.ru_maxrss for usage in usages) / 1024
        size_mb = report.size_bytes / 1e6
        print(f"{report.events:,} events, {size_mb:.0f} MB, {report.seconds:.1f} s wall, {cpu_s:.1f} s CPU")
        print(f"{report.events / cpu_s:,.0f} events per CPU second, peak {peak_mb:.0f} MB in one process\n")
        if asked.speed_only:
            return 0
        print("| figure | target | tolerance | measured | met | how it is measured |")
        print("|---|---|---|---|---|---|")
        figures = compare(report.out, world.rhythm.utc_offset_hours)
        for figure in figures:
            target, met = figure.target, "yes" if figure.met else "no"
            print(
                f"| {target.name} | {target.target:g} | ± {target.tolerance:g} | {figure.measured:.3f} | {met} "
                f"| {target.source}: {target.definition} |"
            )
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
