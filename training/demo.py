"""The main job end to end on a small simulated market: `laotie demo`.

Events → quarantine → ties → models → a published bundle → the rooms live now, ranked for a few viewers, with reasons.
Nothing is downloaded; the market is generated with a fixed seed (`recsys.events.simulator.demo_world`).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from recsys.bundle import Bundle
from recsys.config import BuildConfig, EngineConfig, RankerConfig
from recsys.events import validate
from recsys.events.simulator import demo_world
from recsys.ids import Vocabulary
from recsys.instants import format_instant
from recsys.live.artefact import load
from recsys.pipeline.lookup import lookup
from recsys.pipeline.request import SOURCES, Answer, Request
from recsys.pipeline.sources import private_hosts
from recsys.pipeline.world import World
from recsys.progress import Progress, silent
from training.build import build

VIEWERS = 3
ROOMS = 6
SETTINGS = EngineConfig(
    build=BuildConfig(ranker_requests=4_000, strength_rows=40_000, factors=32, threads=1),
    ranker=RankerConfig(network_epochs=0, teacher_rounds=60, network_share=0.0, rounds=300, pairs=60),
)
"""Smaller than the defaults, on one thread: the demo should take a minute on a busy laptop."""
NEWCOMER = "a viewer nobody knows"


@dataclass(frozen=True)
class Demo:
    """What the demo did: `body` as a JSON document, `text` as a page for a terminal."""

    body: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        return self.body

    def text(self) -> str:
        """What a person wants to see: what went in, what was learnt, who gets which rooms and why."""
        tables, metrics = self.body["tables"], self.body["metrics"]
        lines = ["1. Events of a small simulated market"]
        lines += [f"   {name:<12} {t['rows']:>7} rows, {t['rows'] - t['good']} set aside" for name, t in tables.items()]
        lines += ["", f"2. Bundle {self.body['bundle']}, as of {self.body['as_of']}"]
        lines += [f"   {stage['name']:<12} {stage['status']}" for stage in self.body["stages"]]
        lines += ["   " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())]
        lines += ["", f"3. Rooms live now ({self.body['live_rooms']}), ranked"]
        for viewer in self.body["viewers"]:
            lines += ["", f"   {viewer['who']}"]
            lines += [
                f"   {room['rank']:>2}. room {room['room_id']:<6} host {room['host_id']:<5} "
                f"strength {room['strength']:.2f}  {'; '.join(room['reasons'])}"
                for room in viewer["rooms"]
            ]
        lines += ["", "Next:"]
        lines += [f"   laotie lookup --bundle {self.body['bundles']} --user {self.body['viewers'][0]['user_id']}"]
        return "\n".join(lines)


def run_demo(out: Path, *, now_us: int, progress: Progress = silent, config: EngineConfig | None = None) -> Demo:
    """Generate a market, build and publish a bundle in `out`, and answer for a few viewers.

    Args:
        out: folder of bundles; it is made where it does not exist.
        now_us: the clock, read by the caller.
        config: settings of the build; None: `SETTINGS`.

    Raises:
        GateFailed: the bundle was not good enough to serve.
    """
    with tempfile.TemporaryDirectory(prefix="laotie-demo-") as folder:
        events = Path(folder) / "events"
        demo_world(events)
        report = validate(events, now=datetime.fromtimestamp(now_us / 1e6, UTC)).to_json()
        built = build(events, out, config=config or SETTINGS, as_of_us=None, now_us=now_us, progress=progress)
    bundle = Bundle.open(out / str(built["bundle"]))
    live, vocabularies = load(bundle)
    at = bundle.manifest.window.as_of_us
    viewers = []
    for user in [*best_known(live.world, len(vocabularies.users)), -1]:
        user_id = vocabularies.users.ids(np.array([user]))[0] if user >= 0 else None
        answer = lookup(live.world, Request(user, at, ROOMS))
        viewers.append(
            {
                "user_id": user_id,
                "who": f"viewer {user_id}" if user >= 0 else NEWCOMER,
                "rooms": _rooms(answer, vocabularies.rooms, vocabularies.hosts),
            }
        )
    return Demo(
        {
            "tables": report["tables"],
            "bundle": built["bundle"],
            "bundles": str(out),
            "as_of": format_instant(at),
            "stages": built["stages"],
            "gates": built["gates"],
            "metrics": built["metrics"],
            "live_rooms": len(live.world.index),
            "viewers": viewers,
        }
    )


def best_known(world: World, n_users: int) -> list[int]:
    """The users with the most hosts of their private domain live now; draws by row."""
    epoch = world.index.publish()
    live = np.unique(epoch.hosts)
    at_home = [int(np.isin(private_hosts(world, user), live).sum()) for user in range(n_users)]
    return sorted(range(n_users), key=lambda user: (-at_home[user], user))[:VIEWERS]


def _rooms(answer: Answer, rooms: Vocabulary, hosts: Vocabulary) -> list[dict[str, Any]]:
    room_ids, host_ids = rooms.ids(answer.rooms).to_list(), hosts.ids(answer.hosts).to_list()
    strengths = answer.strengths()
    return [
        {
            "rank": i + 1,
            "room_id": room_ids[i],
            "host_id": host_ids[i],
            "score": float(answer.score[i]),
            "strength": strengths[i],
            "source": str(SOURCES[answer.sources[i]]),
            "reasons": answer.reasons[i],
        }
        for i in range(len(answer))
    ]
