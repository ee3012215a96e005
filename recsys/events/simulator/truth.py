"""The planted truth, written beside the events in `_truth/`, which readers of event tables pass over.

strengths  user_id, host_id, strength, affinity, bond, following, blocked, forgotten   at the end of the window
hosts      host_id, trust, warmth, popularity, broadcast_share, usual_hour, price_minor, newcomer, cheat, style
users      user_id, loyalty, availability, sessions_per_day, regular, usual_hour, chattiness, buying, gifting,
           newcomer, fake, taste
cheats     user_id, host_id, kind                                                      fake buyers and who pays them
world.json the resolved config and the arguments
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from recsys.events.simulator.arrays import NO_HOST
from recsys.events.simulator.config import WorldConfig
from recsys.events.simulator.living import strengths
from recsys.events.simulator.population import HostTraits
from recsys.events.simulator.tables import FIRST_HOST_ID, FIRST_USER_ID, TRUTH, PartWriter
from recsys.events.simulator.visit import Part


def write_hosts(writer: PartWriter, hosts: HostTraits) -> None:
    """Traits of all hosts, one row each."""
    columns = {
        "host_id": np.arange(len(hosts)) + FIRST_HOST_ID,
        "trust": hosts.trust,
        "warmth": hosts.warmth,
        "popularity": hosts.popularity,
        "broadcast_share": hosts.broadcast_share,
        "usual_hour": hosts.usual_hour,
        "price_minor": hosts.price,
        "newcomer": hosts.newcomer,
        "cheat": hosts.cheat,
        "style": hosts.style,
    }
    writer.write(f"{TRUTH}/hosts", pl.DataFrame(columns))


def write_part(writer: PartWriter, part: Part) -> None:
    """Ties, habits and fake buyers of one part of the users."""
    users = part.users
    ties = strengths(part)
    writer.write(
        f"{TRUTH}/strengths",
        pl.DataFrame(ties)
        .with_columns(pl.col("user_id") + FIRST_USER_ID, pl.col("host_id").cast(pl.Int64) + FIRST_HOST_ID)
        .select("user_id", "host_id", "strength", "affinity", "bond", "following", "blocked", "forgotten"),
    )
    fake = users.fake_for != NO_HOST
    habits = {
        "user_id": users.row + FIRST_USER_ID,
        "loyalty": users.loyalty,
        "availability": users.availability,
        "sessions_per_day": users.sessions_per_day,
        "regular": users.regular,
        "usual_hour": users.usual_hour,
        "chattiness": users.chattiness,
        "buying": users.buying,
        "gifting": users.gifting,
        "newcomer": users.newcomer,
        "fake": fake,
        "taste": users.taste,
    }
    writer.write(f"{TRUTH}/users", pl.DataFrame(habits))
    cheats = pl.DataFrame(
        {"user_id": users.row[fake] + FIRST_USER_ID, "host_id": users.fake_for[fake].astype(np.int64) + FIRST_HOST_ID}
    )
    writer.write(f"{TRUTH}/cheats", cheats.with_columns(kind=pl.lit("order_brushing")))


def write_world(
    folder: Path, config: WorldConfig, users: int, hosts: int, days: int, seed: int, start: datetime
) -> None:
    """The laws of the world and its size, as JSON."""
    content = {
        "users": users,
        "hosts": hosts,
        "days": days,
        "seed": seed,
        "start": start.isoformat(),
        "world": config.model_dump(mode="json"),
    }
    path = folder / TRUTH / "world.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
