"""Building tie states against DuckDB and pandas: the same facts, the same buckets on disk, one process at a time.

    python benchmarks/ties.py [--lake L | --events N] [--buckets B] [--threads T] [--facts F]
        [--memory-mib M] [--sides laotie,duckdb,duckdb-whole,pandas]

Facts are written once as `bucket=b/` Parquet. Each side then reads them bucket by bucket and makes the same states of
the same blocks (visits, depth, commerce, relation, exposure: sums, extremes, day bitmaps, hours of the day, latest
distinct instants, decayed sums at the key's own last fact) in a process of its own; DuckDB's SQL is generated from the
declarations that drive ours and reads each bucket once, into a table. `duckdb-whole` is the naive run, one query a
block over all buckets. pandas makes the visits only. Each side works on `--threads` cores.
Bucketed sides have one memory limit: DuckDB is told it (and spills to disk beyond), and a process that took more says
so. The naive runs have none.
Checksums of all columns are compared. Reported: wall and CPU seconds, rows per second, peak memory of the process, and
the wall with the writing of the buckets, which both sides need, counted on each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from recsys.events.facts import FACT_SCHEMA, FOREVER, NEVER, US_PER_DAY, FactKind
from recsys.ties.algebra import DAY_BITS, Block, Kind
from recsys.ties.blocks import TIE_BLOCKS, blocks

T0 = 1_767_225_600_000_000
SHARES = {FactKind.ENTRY: 20, FactKind.STAY: 20, FactKind.LIKE: 3, FactKind.COMMENT: 3, FactKind.ORDER_LINE: 1,
          FactKind.FOLLOW: 1, FactKind.IMPRESSION: 52}  # fmt: skip


def facts_of_bucket(n: int, users: int, hosts: int, bucket: int, buckets: int) -> pl.DataFrame:
    """Random facts: each user returns to few hosts, some far more than others."""
    rng = np.random.default_rng(bucket)
    kinds = np.array([int(kind) for kind in SHARES])
    kind = rng.choice(kinds, n, p=np.array(list(SHARES.values())) / sum(SHARES.values()))
    user = rng.integers(0, users // buckets, n) * buckets + bucket
    own = (rng.random(n) ** 2.5 * 60).astype(np.int64)
    at = T0 + rng.integers(0, 90 * US_PER_DAY, n)
    value = np.where(kind == int(FactKind.ENTRY), at // 7_200_000_000 * 7_200_000_000, rng.integers(0, 3_000_000, n))
    return pl.DataFrame(
        {"at": at, "kind": kind, "user": user, "host": (user * 31 + own * 7919) % hosts, "room": 0,
         "count": 1 + rng.integers(0, 3, n), "value": value, "aux": 0}, schema=FACT_SCHEMA,
    )  # fmt: skip


def write_facts(folder: Path, args: argparse.Namespace) -> int:
    """Write `bucket=b/facts.parquet` from a lake or at random; how many facts."""
    total = 0
    if args.lake is not None:
        from recsys.events import build_vocabularies, clean, open_events, tie_facts, user_parts

        events = clean(open_events(args.lake))
        vocabularies = build_vocabularies(events, as_of_us=FOREVER)
        args.buckets = user_parts(events, args.buckets)
    for bucket in range(args.buckets):
        if args.lake is not None:
            facts = tie_facts(events, vocabularies, before_us=FOREVER, bucket=(bucket, args.buckets))
        else:
            facts = facts_of_bucket(args.events // args.buckets, args.events // 100, 20_000, bucket, args.buckets)
        (folder / f"bucket={bucket}").mkdir()
        facts.sort("at").write_parquet(folder / f"bucket={bucket}" / "facts.parquet", compression="zstd")
        total += len(facts)
    return total


def run_laotie(folder: Path, buckets: int, threads: int) -> dict[str, int]:
    from recsys.ties.batch import states_of
    from training.executor import OneByOne, Threads

    declared = [getattr(blocks(), name) for name in TIE_BLOCKS]
    columns = ["at", "kind", "user", "host", "count", "value"]

    def work(bucket: int) -> dict[str, int]:
        facts = pl.read_parquet(folder / f"bucket={bucket}" / "facts.parquet", columns=columns).rechunk()
        found = {}
        for name, state in states_of(declared, facts).items():
            parts = {f"{name}_ints": state.rows.ints, f"{name}_decayed": np.rint(state.rows.decayed.sum(0) * 16)}
            parts[f"{name}_latest"] = np.where(state.rows.latest == NEVER, 0, state.rows.latest)
            known = np.where(np.isin(state.rows.ints, (NEVER, FOREVER)), 0, state.rows.ints)
            parts[f"{name}_ints"] = known
            found |= {key: int(part.astype(np.int64).sum()) for key, part in parts.items()} | {name: len(state)}
        return found

    sums: dict[str, int] = {}
    for found in (OneByOne() if threads == 1 else Threads(threads)).run(work, buckets):
        for key, value in found.items():
            sums[key] = (sums.get(key, 0) + value) % 2**61
    return sums


def sql_of(block: Block, source: str) -> str:
    """One block as a query: a first aggregation finds what the second refers to."""

    def kinds(of: frozenset[FactKind], where: str = "") -> str:
        return f"{where}kind IN ({','.join(str(int(kind)) for kind in sorted(of))})"

    refs = ["max(ts) AS ref"]
    columns = ["any_value(ref) AS ref_at"]
    for column in block.columns:
        fed = kinds(column.facts, "WHERE ")
        beyond = f"greatest(value - {2 * block.slot_ms}, 0)"
        amount = {"one": "1", "at": "ts", "count": "n", "value": "value", "beyond": beyond}[column.source]
        match column.kind:
            case Kind.SUM:
                columns.append(f"coalesce(sum({amount}) FILTER ({fed}), 0)::BIGINT AS {column.name}")
            case Kind.MIN | Kind.MAX:
                columns.append(f"coalesce({column.kind.value}({amount}) FILTER ({fed}), 0) AS {column.name}")
            case Kind.HOURS:
                slot = f"(ts % {US_PER_DAY}) // {US_PER_DAY // column.size}"
                columns += [
                    f"count(*) FILTER ({fed} AND {slot} = {i}) AS {column.name}_{i}" for i in range(column.size)
                ]
            case Kind.DAYS:
                refs.append(f"max(ts // {US_PER_DAY}) FILTER ({fed}) AS {column.name}_day")
                back = f"({column.name}_day - ts // {US_PER_DAY})"
                bit = f"1::BIGINT << greatest(0, least({back}, {DAY_BITS - 1}))"
                columns.append(f"coalesce(any_value({column.name}_day), 0) AS {column.name}_last")
                bits = f"coalesce(bit_or({bit}) FILTER ({fed} AND {back} < {DAY_BITS}), 0) AS {column.name}_bits"
                columns.append(bits)
            case Kind.LATEST:
                kept = f"max(DISTINCT {amount}, {column.size}) FILTER ({fed} AND {amount} > 0)"
                columns.append(f"coalesce({kept}, []::BIGINT[]) AS {column.name}")
            case Kind.DECAYED:
                rate = 1 / (column.half_life_days * US_PER_DAY)
                weight = f"{amount} * pow(2.0, (ts - ref) * {rate!r})"
                columns.append(f"coalesce(sum({weight}) FILTER ({fed}), 0) AS {column.name}")
    fed = f"SELECT key, kind, ts, n, value FROM {source} WHERE {kinds(block.facts)}"
    return (
        f"WITH f AS MATERIALIZED ({fed}), r AS (SELECT key, {', '.join(refs)} FROM f GROUP BY key) "
        f"SELECT key, {', '.join(columns)} FROM f JOIN r USING (key) GROUP BY key"
    )


def run_duckdb(folder: Path, buckets: int, *, whole: bool, threads: int, memory_mib: int) -> dict[str, int]:
    import duckdb

    connection = duckdb.connect()
    if not whole:
        connection.execute(f"SET memory_limit = '{memory_mib}MiB'")
    connection.execute(f"SET threads = {threads}; SET preserve_insertion_order = false;")
    sums: dict[str, int] = {}
    said = 'user::BIGINT << 32 | host AS key, kind, "at" AS ts, "count" AS n, value'
    for bucket in ["*"] if whole else range(buckets):
        read = f"SELECT {said} FROM read_parquet('{folder}/bucket={bucket}/*.parquet') WHERE user >= 0 AND host >= 0"
        connection.execute(f"CREATE OR REPLACE TEMP {'VIEW' if whole else 'TABLE'} facts AS {read}")
        for name in TIE_BLOCKS:
            block = getattr(blocks(), name)
            connection.execute(f"CREATE OR REPLACE TEMP TABLE s AS {sql_of(block, 'facts')}")
            ints = " + ".join(f"sum({column})::HUGEINT" for column in block.ints)
            found = [(f"{name}_ints", ints), (name, "count(*)")]
            found += [(f"{name}_latest", f"sum(list_sum({column}))::HUGEINT") for column in block.latest]
            decayed = " + ".join(f"round(sum({column}) * 16)::HUGEINT" for column in block.decays)
            found += [(f"{name}_decayed", decayed)] if decayed else []
            row = connection.execute(f"SELECT {', '.join(expression for _, expression in found)} FROM s").fetchone()
            for (key, _), value in zip(found, row or (), strict=True):
                sums[key] = (sums.get(key, 0) + int(value or 0)) % 2**61
    return sums


def run_pandas(folder: Path, buckets: int) -> dict[str, int]:
    import pandas as pd

    rows = 0
    for bucket in range(buckets):
        facts = pd.read_parquet(folder / f"bucket={bucket}" / "facts.parquet")
        facts = facts[facts["kind"].isin([1, 2])]
        facts["key"] = facts["user"].astype("int64") * 2**32 + facts["host"]
        facts["age"] = facts.groupby("key")["at"].transform("max") - facts["at"]
        entries, stays = facts[facts["kind"] == 1].copy(), facts[facts["kind"] == 2].copy()
        for column in blocks().visits.columns:
            if column.kind is Kind.DECAYED:
                of = entries if FactKind.ENTRY in column.facts else stays
                amount = 1 if column.source == "one" else of["value"].clip(lower=0)
                of[column.name] = amount * np.exp2(-of["age"] / (column.half_life_days * US_PER_DAY))
        entries["day"] = entries["at"] // US_PER_DAY
        entries["bit"] = np.left_shift(
            1, (entries.groupby("key")["day"].transform("max") - entries["day"]).clip(upper=62)
        )
        entries["slot"] = entries["at"] % US_PER_DAY // (US_PER_DAY // 8)
        decayed = {name: "sum" for name in entries.columns if name.startswith("entries_")}
        made = entries.groupby("key").agg({"at": ["count", "min", "max"], "day": "max", **decayed})
        for slot in range(8):
            made[f"hours_{slot}"] = entries[entries["slot"] == slot].groupby("key").size()
        distinct = entries.drop_duplicates(["key", "day"])
        made["bits"] = distinct.groupby("key")["bit"].sum()
        latest = entries[["key", "value"]].drop_duplicates().sort_values("value", ascending=False)
        made["attended"] = latest.groupby("key")["value"].agg(lambda values: list(values[:6]))
        decayed = {name: "sum" for name in stays.columns if name.endswith(("_7d", "_30d"))}
        stayed = stays.groupby("key").agg({"value": ["count", "sum"], "at": "max", **decayed})
        rows += len(pd.concat([made, stayed], axis=1))
    return {"visits": rows}


def run_side(side: str, folder: Path, buckets: int, threads: int, memory_mib: int) -> dict[str, object]:
    """One side in this process."""
    begin, cpu = time.perf_counter(), time.process_time()
    match side:
        case "laotie":
            sums = run_laotie(folder, buckets, threads)
        case "pandas":
            sums = run_pandas(folder, buckets)
        case _:
            sums = run_duckdb(folder, buckets, whole=side == "duckdb-whole", threads=threads, memory_mib=memory_mib)
    # of this process alone: what getrusage says begins at what the caller had
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return {"wall_s": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu, "peak_mib": peak, "sums": sums}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", type=Path)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--buckets", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sides", default="laotie,duckdb,duckdb-whole,pandas")
    parser.add_argument("--facts", type=Path, help="keep the facts here, and take them from here if they are there")
    parser.add_argument("--memory-mib", type=int, default=1024)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(run_side(args.side, args.folder, args.buckets, args.threads, args.memory_mib)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        if args.facts is not None:
            args.facts.mkdir(exist_ok=True)
            scratch = str(args.facts)
        held = sorted(Path(scratch).glob("bucket=*/facts.parquet"))
        fresh = not held
        n, args.buckets = (_rows(held), len(held)) if held else (write_facts(Path(scratch), args), args.buckets)
        bucketing = time.perf_counter() - begin
        print(f"{n:,} facts in {args.buckets} buckets, {'written' if fresh else 'found'} in {bucketing:.1f} s")
        results: dict[str, dict[str, float]] = {}
        sums: dict[str, dict[str, int]] = {}
        for side in args.sides.split(","):
            call = [sys.executable, __file__, "--side", side, "--folder", scratch, "--buckets", str(args.buckets)]
            call += ["--threads", str(args.threads), "--memory-mib", str(args.memory_mib)]
            done = subprocess.run(call, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{side}: failed: {done.stderr.strip().splitlines()[-1][:200]}")
                continue
            results[side] = json.loads(done.stdout)
            sums[side] = results[side].pop("sums")  # type: ignore[assignment]
            r = results[side]
            print(f"{side:13} wall {r['wall_s']:7.1f} s  cpu {r['cpu_s']:7.1f} s  {n / r['wall_s'] / 1e6:5.2f} M rows/s"
                  f"  peak {r['peak_mib']:6.0f} MiB{_over(side, r['peak_mib'], args.memory_mib)}"
                  + (f"  with bucketing {bucketing + r['wall_s']:.1f} s" if fresh else ""), flush=True)  # fmt: skip
        ours = results.get("laotie")
        for side, r in results.items():
            if ours and side != "laotie":
                whole = (r["wall_s"] + bucketing) / (ours["wall_s"] + bucketing)
                print(f"{side} / laotie: wall {r['wall_s'] / ours['wall_s']:.2f}, cpu {r['cpu_s'] / ours['cpu_s']:.2f}"
                      + (f", wall with bucketing {whole:.2f}" if fresh else ""))  # fmt: skip
                far = {k: (v, sums["laotie"].get(k)) for k, v in sums[side].items() if _differ(k, v, sums["laotie"])}
                print(f"  same states: {far or 'yes'}")


def _over(side: str, peak_mib: float, memory_mib: int) -> str:
    return f", over the limit of {memory_mib}" if side in ("laotie", "duckdb") and peak_mib > memory_mib else ""


def _rows(files: list[Path]) -> int:
    return sum(int(pl.scan_parquet(file).select(pl.len()).collect().item()) for file in files)


def _differ(key: str, value: int, ours: dict[str, int]) -> bool:
    tolerance = 1e-6 * abs(value) + 64 if key.endswith("_decayed") else 0
    return abs(value - ours.get(key, 0)) > tolerance


if __name__ == "__main__":
    main()
