"""Other libraries on the data sets of the results page, each in bounded time, judged by our metrics.

    make peers DATA=DIR          # or: python benchmarks/peers/run.py DIR --only twitch

The peers live in environments under benchmarks/peers/.venv (their pins clash); `fit.py` runs there, on one thread and
at most MOST_CPU_S of processor time. They read the parquet that our methods are trained on and write the same lists;
what cannot be installed or does not finish is written down with its last words. Results: CACHE/peers-NAME.json, which
`laotie results --only peers` puts on the page.

On `driver` a peer is fitted on everything before the cut and scores hosts per user; at each later request the rooms
live then are ranked by it, as ours are. It learns nothing after the cut; viewers it does not know get the popularity of
the training days. Pairs: the split of `training.results.pairs`.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from recsys.evaluation.bootstrap import user_bootstrap
from recsys.evaluation.metrics import ranked_by_score, request_metrics
from recsys.instants import parse_instant, to_datetime
from training.results.pairs import judged, pairs_of, split
from training.results.rankings import DRIVER_CUT

Installed = Mapping[str, tuple[Path, str]]
HERE = Path(__file__).resolve().parent
MOST_CPU_S = 300
REQUIREMENTS = {
    "implicit ALS": "implicit",
    "implicit BPR": "implicit",
    "LightFM WARP": "lightfm",
    "RecTools EASE": "rectools",
    "RecBole LightGCN": "recbole",
    "RecBole SASRec": "recbole",
}
FORKS = {"lightfm": "lightfm-next"}
"""Taken when the original does not install; the table says so."""
ON_PAIRS = ("implicit ALS", "implicit BPR", "LightFM WARP", "RecTools EASE", "RecBole LightGCN")
ON_ROOMS = (*ON_PAIRS, "RecBole SASRec")
SETS = {"driver": ("driver", 10), "twitch": ("twitch/follows.parquet", 10), "gowalla": ("gowalla/train.parquet", 20)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(".results"))
    parser.add_argument("--venv", type=Path, default=HERE / ".venv")
    parser.add_argument("--only", default=",".join(SETS), help="data sets, with commas")
    arguments = parser.parse_args()
    installed = install(arguments.venv)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    for name in arguments.only.split(","):
        path, k = arguments.data / SETS[name][0], SETS[name][1]
        if not path.exists():
            print(f"{name}: absent")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            work = on_rooms if name == "driver" else on_pairs
            found = work(path, k, installed, Path(scratch))
        (arguments.cache / f"peers-{name}.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


def install(folder: Path) -> dict[str, tuple[Path, str]]:
    """For each requirements file its environment (their pins clash), and why it could not be made; empty if it was."""
    made = {}
    for name in dict.fromkeys(REQUIREMENTS.values()):
        why, place = _pip(folder, name), folder / name
        if why and name in FORKS and not _pip(folder, FORKS[name]):
            print(f"{name} does not install ({why}); {FORKS[name]} in its place")
            why, place = "", folder / FORKS[name]
        made[name] = place, why
    return made


def _pip(folder: Path, name: str) -> str:
    python = folder / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
    call = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"]
    wanted = str(HERE / f"requirements-{name}.txt")
    done = subprocess.run([*call, wanted], capture_output=True, text=True, check=False)
    errors = [line.strip() for line in done.stderr.splitlines() if "Error" in line]
    return "" if done.returncode == 0 else f"install failed: {(errors or ['no reason given'])[-1][:200]}"


def on_pairs(path: Path, k: int, installed: Installed, scratch: Path) -> dict[str, Any]:
    """Every peer on a set of pairs."""
    train, truth = split(pairs_of(path))
    train.write_parquet(scratch / "train.parquet")
    methods: dict[str, Any] = {}
    for peer in ON_PAIRS:
        cost = run(peer, installed, scratch, [str(k)])
        found = cost if "error" in cost else cost | judged(pl.read_parquet(scratch / "out.parquet"), truth, k)
        methods[_called(peer, installed)] = found
        print(path.parent.name, peer, {name: value for name, value in found.items() if name != "users"})
    said = (
        f"Split and metrics of `{path.parent.name}` above; one thread, at most {MOST_CPU_S} s of processor time each."
    )
    return {"methods": methods, "metrics": ["recall", "ndcg"], "k": k, "said": said}


def on_rooms(folder: Path, k: int, installed: Installed, scratch: Path) -> dict[str, Any]:
    """Every peer's hosts as an order of the rooms live at each request after the cut."""
    cut = to_datetime(parse_instant(DRIVER_CUT, where="cut"))
    watches, rooms = (pl.read_parquet(folder / f"{name}.parquet") for name in ("watches", "rooms"))
    before = watches.filter(pl.col("entered_at") < cut)
    before.select("user_id", pl.col("host_id").alias("item_id"), at="entered_at").write_parquet(
        scratch / "train.parquet"
    )
    requests, live = requests_after(watches, rooms, cut)
    requests.select("user_id").unique().write_parquet(scratch / "users.parquet")
    popular = before.group_by("host_id").agg(popular=pl.len().cast(pl.Float64))
    truth = requests.select("request_id", "room_id")
    methods: dict[str, Any] = {"popularity of the training days": _judged_rooms(
        live.join(popular, on="host_id", how="left").with_columns(score="popular"), requests, truth
    ) | {"training_cpu_s": 0.0}}  # fmt: skip
    for peer in ON_ROOMS:
        cost = run(peer, installed, scratch, [str(k), str(scratch / "users.parquet")])
        if "error" not in cost:
            said = pl.read_parquet(scratch / "out.parquet").rename({"item_id": "host_id"})
            scores = live.join(
                said.with_columns(pl.col("score").cast(pl.Float64)), on=["user_id", "host_id"], how="left"
            )
            scores = scores.join(popular, on="host_id", how="left")
            known = pl.col("score").is_not_null().any().over("request_id")
            cost |= _judged_rooms(
                scores.with_columns(score=pl.when(known).then("score").otherwise("popular")), requests, truth
            )
        methods[_called(peer, installed)] = cost
        print("driver", peer, {name: value for name, value in cost.items() if name != "users"})
    said = (
        f"{len(requests):,} requests after {DRIVER_CUT}, all rooms live at each as candidates; peers are fitted before "
        f"it, on one thread and in at most {MOST_CPU_S} s of processor time each."
    )
    return {"methods": methods, "metrics": ["ndcg", "hit", "mrr", "known", "new"], "k": k, "said": said}


def _called(peer: str, installed: Installed) -> str:
    """The peer's name in the table, with the fork that stands in for it."""
    needs = REQUIREMENTS[peer]
    return f"{peer} ({FORKS[needs]})" if installed[needs][0].name == FORKS.get(needs) else peer


def requests_after(watches: pl.DataFrame, rooms: pl.DataFrame, cut: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Entries after the cut into a room that was live already, and the rooms live at each.

    Returns:
        requests (request_id, user_id, room_id, at, known) and live (request_id, user_id, room_id, host_id).
    """
    numbered = watches.sort("entered_at", "user_id", "room_id").with_columns(at="entered_at")
    earlier = pl.col("at") > pl.col("at").min().over("user_id", "host_id")
    asked = numbered.with_columns(known=earlier).filter(pl.col("at") >= cut)
    spans = rooms.select("room_id", "host_id", "started_at", "ended_at")
    asked = asked.join(spans.select("room_id", "started_at", "ended_at"), on="room_id").filter(
        (pl.col("started_at") < pl.col("at")) & ~(pl.col("ended_at") < pl.col("at")).fill_null(False)
    )
    requests = asked.select("user_id", "room_id", "at", "known").with_row_index("request_id")
    both = requests.select("request_id", "user_id", "at").join_where(
        spans,
        pl.col("started_at") < pl.col("at"),
        pl.col("ended_at").fill_null(pl.lit(cut).dt.offset_by("100y")) >= pl.col("at"),
    )
    return requests, both.select("request_id", "user_id", "room_id", "host_id")


def _judged_rooms(scores: pl.DataFrame, requests: pl.DataFrame, truth: pl.DataFrame) -> dict[str, Any]:
    measured = request_metrics(ranked_by_score(scores.select("request_id", "room_id", "score")), truth)
    joined = requests.select("request_id", "user_id", "known").join(measured, on="request_id")
    ndcg = pl.col("ndcg_at_10")
    frame = joined.select(
        "user_id",
        ndcg=ndcg,
        hit="hit_at_1",
        mrr="mrr",
        known=pl.when("known").then(ndcg),
        new=pl.when(~pl.col("known")).then(ndcg),
    )
    return {"metrics": user_bootstrap(frame, ["ndcg", "hit", "mrr", "known", "new"]).to_dicts()}


def run(peer: str, installed: Installed, scratch: Path, more: list[str]) -> dict[str, Any]:
    """Run a peer in its environment: `training_cpu_s` and `peak_memory_mib` of its process, or `error`."""
    venv, why = installed[REQUIREMENTS[peer]]
    if why:
        return {"error": why}
    (scratch / "out.parquet").unlink(missing_ok=True)
    call = [
        str(venv / "bin" / "python"),
        str(HERE / "fit.py"),
        peer,
        str(scratch / "train.parquet"),
        str(scratch / "out.parquet"),
    ]
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | one
    with (scratch / "stderr").open("w+") as words:
        process = subprocess.Popen(
            [*call, *more], stdout=words, stderr=words, env=environment, cwd=scratch, preexec_fn=_bounded
        )
        _, status, usage = os.wait4(process.pid, 0)
        words.seek(0)
        last = [line.strip() for line in words if line.strip()]
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode < 0:
        return {"error": f"stopped after {MOST_CPU_S} s of processor time"}
    if process.returncode or not (scratch / "out.parquet").exists():
        return {"error": f"failed: {(last or ['no message'])[-1][:200]}"}
    return {"training_cpu_s": usage.ru_utime + usage.ru_stime, "peak_memory_mib": usage.ru_maxrss / 1024}


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S + 5))


if __name__ == "__main__":
    main()
