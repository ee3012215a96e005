"""Offline evaluation on a time cut: train before it, answer after it, judge on every room live at each request.

A request is every (sampled) entry after the cut into a room that was live already; the room entered is the right one;
all rooms live at that instant are candidates. State moves on with every fact, models stay as trained. The learnt ranker
is judged beside the memory formula and windowed popularity on the same requests.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from recsys.config import EngineConfig
from recsys.errors import ConfigError, InputRefused
from recsys.evaluation.bootstrap import paired_difference
from recsys.evaluation.metrics import metric_names, ranked_by_score, request_metrics
from recsys.evaluation.probabilities import judge
from recsys.evaluation.reach import mean_fan_reach
from recsys.evaluation.strata import metric_table, wide
from recsys.events import (
    Events,
    clean,
    extend_vocabularies,
    fact_stream,
    last_fact_us,
    open_events,
    room_table,
    tie_facts,
    user_table,
)
from recsys.events.facts import FactKind
from recsys.instants import format_instant
from recsys.live.artefact import assemble
from recsys.live.state import LiveState
from recsys.models.baselines import memory, popularity
from recsys.pipeline.features import FEATURES, of_known_hosts
from recsys.pipeline.lookup import lookup
from recsys.pipeline.request import Request
from recsys.pipeline.scoring import scored
from recsys.pipeline.sources import private_hosts
from recsys.progress import Progress, silent
from training.broadcasts import judged_demand
from training.build import Trained, train
from training.compare import Scorer
from training.evaluation import Evaluation
from training.exposure import ExposureLog, host_tiers
from training.judged_heads import JudgedHeads
from training.latest import STRATA, with_strata
from training.log import moved_through, requests_of
from training.pages import evaluation_page
from training.report import write_report

JUDGED_SHARE = 0.2
"""Latest share of the data window that is judged when no cut is given."""
MOST_REQUESTS = 20_000
ASKED_TOGETHER = 256
"""Requests whose candidates other rankers score in one go."""


def evaluate(
    events: Path,
    *,
    out: Path | None,
    config: EngineConfig,
    as_of_us: int | None,
    now_us: int,
    progress: Progress = silent,
    compare: bool = False,
) -> Evaluation:
    """Train before the cut, judge after it.

    Args:
        events: folder of event tables with watches and rooms.
        out: folder for `evaluation.json`, `.md` and `.html`, or None.
        config: resolved config.
        as_of_us: the cut, µs; None: the latest fifth of the window is judged.
        now_us: the clock, read by the caller.
        compare: also train and judge what the served ranker is compared with (`training.compare`); takes minutes.

    Raises:
        InputRefused: no watches or rooms, or no request after the cut.
        ConfigError: the cut lies outside the data.
    """
    cleaned = clean(open_events(events), now=datetime.fromtimestamp(now_us / 1e6, UTC))
    if "watches" not in cleaned.tables or "rooms" not in cleaned.tables:
        raise InputRefused(
            "nothing to judge on", where=events, got=sorted(cleaned.tables), expected="watches and rooms"
        )
    cut, end = _cut(cleaned, as_of_us)
    if out is not None:  # before the work, not when it is done
        out.mkdir(parents=True, exist_ok=True)
    begun = time.process_time()
    trained = train(cleaned, config, cut, progress, compare=compare)
    spent = time.process_time() - begun
    live = assemble(trained.parts)
    extend_vocabularies(trained.vocabularies, cleaned)
    rooms = room_table(cleaned, trained.vocabularies)
    live.register_rooms(rooms)
    facts = fact_stream(cleaned, trained.vocabularies, from_us=cut, before_us=end)
    told = tie_facts(cleaned, trained.vocabularies, before_us=end, bucket=None)
    demand = judged_demand(live.world, trained.counts["users"], rooms, told, cut, config.build.seed, progress)
    judged = _Judged(live, config, trained.rivals, host_tiers(cleaned, trained.vocabularies))
    judged.run(facts, progress)
    body = judged.report(trained, cleaned, rooms, facts, config.build.seed)
    body |= {
        "as_of_us": cut,
        "training_cpu_s": spent,
        "demand": demand,
        "quality": cleaned.quality.to_json(),
        "stages": [s.model_dump() for s in trained.stages],
    }
    result = Evaluation(body)
    if out is not None:
        (out / "evaluation.json").write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2))
        (out / "evaluation.md").write_text(result.text() + "\n", encoding="utf-8")
        write_report(out / "evaluation.html", evaluation_page, body)
    return result


def _cut(events: Events, as_of_us: int | None) -> tuple[int, int]:
    last = last_fact_us(events)
    first = events.tables["rooms"].select(pl.col("started_at").min()).collect().item()
    if last is None or first is None:
        raise InputRefused("there are no facts to judge on", got="0 usable rows", expected="at least one broadcast")
    cut = last - int((last - first) * JUDGED_SHARE) if as_of_us is None else as_of_us
    if not first < cut <= last:
        span = f"{format_instant(first)} … {format_instant(last)}"
        raise ConfigError(
            "the cut lies outside the data",
            where="--as-of",
            got=format_instant(cut),
            expected=span,
            hint="choose an --as-of in between, or none: then the last part is judged",
        )
    return cut, last + 1


class _Judged:
    """Requests after the cut, and what every method said of them."""

    def __init__(
        self,
        live: LiveState,
        config: EngineConfig,
        rivals: Mapping[str, Scorer],
        tiers: Sequence[str | None],
    ) -> None:
        self.live, self.world, self.k = live, live.world, config.pipeline.k
        self.rng = np.random.default_rng(config.build.seed)
        self.scores: dict[str, list[npt.NDArray[np.float64]]] = {"laotie": [], "memory": [], "popularity": []}
        self.scores |= {name: [] for name in rivals}
        self.rivals, self.waiting = rivals, list[npt.NDArray[np.float32]]()
        self.rooms: list[npt.NDArray[np.int64]] = []
        self.requests: list[dict[str, Any]] = []
        self.fans: list[tuple[int, int, int, int]] = []
        self.shown: list[tuple[int, int, int]] = []
        self.private: list[tuple[int, float, bool]] = []
        self.heads, self.exposure = JudgedHeads(self.world, self.rng), ExposureLog(tiers)

    def run(self, facts: pl.DataFrame, progress: Progress) -> None:
        is_entry = (facts["kind"] == int(FactKind.ENTRY)).to_numpy()
        taken = is_entry & (self.rng.random(len(facts)) < MOST_REQUESTS / max(int(is_entry.sum()), 1))
        asked = requests_of(facts, taken)
        for i, fact in enumerate(moved_through(self.live, facts)):
            for user, room, _ in asked.get(i, ()):
                if room in self.world.index:
                    self._ask(fact[0], user, room)
            if i % 2048 == 0:
                progress("judging", i / len(facts))
        self._ask_rivals()
        progress("judging", 1.0)

    def _ask(self, at: int, user: int, room: int) -> None:
        world, request = self.world, len(self.requests)
        epoch = world.index.publish()
        viewer = world.models.viewer(world.ties, world.blocks, user, len(world.standings), at)
        rooms = epoch.rooms
        said = scored(world, user, viewer, rooms, at)
        values = said.values[:, said.row]
        self.rooms.append(rooms)
        self.scores["laotie"].append(said.score)
        self.scores["memory"].append(memory(FEATURES, values))
        self.scores["popularity"].append(popularity(FEATURES, values))
        if self.rivals:
            self.waiting.append(values.T.astype(np.float32))
            if len(self.waiting) >= ASKED_TOGETHER:
                self._ask_rivals()
        right = int(np.flatnonzero(rooms == room)[0])
        if weights := said.domain_weights():
            self.private.append((user, weights["private"], bool(of_known_hosts(said.values)[said.row[right]])))
        self.exposure.log(user, values, said.score, right, epoch.hosts)
        read = {name: float(values[FEATURES.index(name), right]) for name in _READ}
        read["last_seen_days"] = read.pop("tie_hours_since_entry") / 24.0
        read["known"] = read.pop("tie_entries") > 0
        read["follows"] = read.pop("tie_followed") > 0.5
        self.requests.append({"request_id": request, "user_id": user, "right": room, **read})
        self.heads.log(at, user)
        private = private_hosts(world, user)
        fans = epoch.join(private)
        if len(fans.positions):
            for position, asked in zip(fans.positions.tolist(), fans.asked.tolist(), strict=True):
                self.fans.append((request, user, int(private[asked]), int(rooms[position])))
            answer = lookup(world, Request(user, at, self.k, explain=False))
            self.shown += [(request, i, int(shown)) for i, shown in enumerate(answer.rooms, start=1)]

    def _ask_rivals(self) -> None:
        if self.waiting:
            rows = np.concatenate(self.waiting)
            ends = np.cumsum([len(part) for part in self.waiting])[:-1]
            for name, score in self.rivals.items():
                self.scores[name] += np.split(score(rows), ends)
            self.waiting = []

    def report(
        self, trained: Trained, events: Events, rooms: pl.DataFrame, facts: pl.DataFrame, seed: int
    ) -> dict[str, Any]:
        if not self.requests:
            raise InputRefused(
                "no request to judge",
                got="no entry into a live room after the cut",
                hint="give an earlier --as-of; watches and rooms are needed",
            )
        requests = pl.DataFrame(self.requests).join(
            user_table(events, trained.vocabularies).select(pl.col("user").alias("user_id"), "city_tier"),
            on="user_id",
            how="left",
        )
        truth = requests.select("request_id", pl.col("right").alias("room_id"))
        lengths = [len(part) for part in self.rooms]
        asked = pl.DataFrame(
            {"request_id": np.repeat(np.arange(len(lengths)), lengths), "room_id": np.concatenate(self.rooms)}
        )
        strata = with_strata(requests)
        tables, per_method = [], {}
        for method, parts in self.scores.items():
            ranked = ranked_by_score(asked.with_columns(score=pl.Series(np.concatenate(parts))), seed=seed)
            measured = request_metrics(ranked, truth)
            names = metric_names(measured)
            per_method[method] = strata.join(measured, on="request_id")
            table = metric_table(per_method[method], STRATA, names, seed=seed)
            tables.append(wide(table).with_columns(method=pl.lit(method)))
        gains = _gains(per_method, seed)
        return {
            "requests": len(requests),
            "users": requests["user_id"].n_unique(),
            "rooms": float(np.mean(lengths)),
            "metrics": pl.concat(tables).to_dicts(),
            "gains": gains,
            "heads": self.heads.documents(rooms, facts, seed),
            "private_weight": self._private_weight(seed),
            "fan_reach": self._reach(seed),
            "exposure": self.exposure.document(seed),
        }

    def _private_weight(self, seed: int) -> dict[str, Any]:
        """The private weight judged as the chance that the room entered is of a host he knows."""
        told = pl.DataFrame(self.private, schema=["user", "said", "chose"], orient="row")
        if told["chose"].n_unique() < 2:
            return {}
        said, chose, users = (told[name].to_numpy() for name in ("said", "chose", "user"))
        return judge(np.clip(said, 0.0, 1.0), chose, users=users, seed=seed).document()

    def _reach(self, seed: int) -> dict[str, float]:
        if not self.fans:
            return {}
        fans = pl.DataFrame(self.fans, schema=["request_id", "user_id", "host_id", "room_id"], orient="row")
        shown = pl.DataFrame(self.shown, schema=["request_id", "rank", "room_id"], orient="row")
        reach = mean_fan_reach(fans, shown, self.k, seed=seed).row(0, named=True)
        return {"reach": reach["mean"], "low": reach["low"], "high": reach["high"], "k": float(self.k)}


def _gains(per_method: Mapping[str, pl.DataFrame], seed: int) -> list[dict[str, Any]]:
    """NDCG@10 of the served ranker less every other's, over all requests and by whether the host was known."""
    found = []
    for name, theirs in per_method.items():
        for stratum in ("all", "known", "new") if name != "laotie" else ():
            here = pl.lit(True) if stratum == "all" else pl.col("host_known") == stratum
            ours, others = per_method["laotie"].filter(here), theirs.filter(here)
            if len(ours):
                row = paired_difference(ours, others, ["ndcg_at_10"], seed=seed).row(0, named=True)
                found.append({"over": name, "host_known": stratum, **row})
    return found


_READ = ("tie_entries", "tie_followed", "tie_hours_since_entry", "host_visitors")
