"""A world as parts: how it is put together, and how the parts lie in a bundle.

Training assembles worlds from states in memory, serving from a bundle; both go through `assemble`, so the names of the
files and the order of the parts are written down once, here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.bundle import Bundle, BundleWriter
from recsys.config import EngineConfig
from recsys.errors import BundleRefused
from recsys.events.vocabularies import Vocabularies
from recsys.index.live_rooms import LiveIndexConfig, LiveRoomIndex
from recsys.live.state import LiveState
from recsys.models.additive import AdditiveModel
from recsys.models.baselines import PriorRanker
from recsys.models.factors import HostFactors
from recsys.models.graph import HostGraph
from recsys.models.strength import StrengthHead
from recsys.models.suite import Models
from recsys.models.transition import TransitionModel
from recsys.models.transition_counts import TransitionConfig
from recsys.pipeline.features import FEATURES
from recsys.pipeline.heat import Heat
from recsys.pipeline.world import Priors, RoomTable, World
from recsys.ties.algebra import Block, BlockState, Rows, identity, latest_columns
from recsys.ties.blocks import blocks
from recsys.ties.store import RowStore, TieStore

ROOM_COLUMNS = ("room", "host", "cohosts", "started_at", "category")
_STATE_PARTS = ("keys", "ints", "decayed", "latest")


@dataclass
class WorldParts:
    """What a world is made of.

    Args:
        config: the resolved config.
        states: states by block name, as of one instant.
        standings: (n_hosts, len(STANDINGS)) users per host and relation.
        rooms: the rooms live at that instant, columns `ROOM_COLUMNS`.
        leaves: announced absences known at that instant: host, since, until (µs).
        priors: pooled rates.
        models: fitted models.
        n_hosts: host rows in use.
    """

    config: EngineConfig
    states: Mapping[str, BlockState]
    standings: npt.NDArray[np.int64]
    rooms: pl.DataFrame
    leaves: pl.DataFrame
    priors: Priors
    models: Models
    n_hosts: int


def assemble(parts: WorldParts) -> LiveState:
    """A world in motion from its parts; arrays of ties are shared, the others copied."""
    declared = blocks(round(parts.config.ties.product_slot_s))
    factors = parts.models.factors
    vectors = factors.vectors if factors is not None else np.zeros((0, 1), dtype=np.float32)
    hosts = RowStore(declared.host, parts.n_hosts, parts.states.get("host"))
    world = World(
        config=parts.config,
        blocks=declared,
        ties=TieStore(
            declared.of("tie"), {b.name: parts.states[b.name] for b in declared.of("tie") if b.name in parts.states}
        ),
        hosts=hosts,
        schedule=RowStore(declared.schedule, parts.n_hosts, parts.states.get("schedule")),
        arrivals=RowStore(declared.arrivals, parts.n_hosts, parts.states.get("arrivals")),
        users=RowStore(declared.user, 0, parts.states.get("user")),
        moments=RowStore(declared.room, 0, parts.states.get("room")),
        rooms=RoomTable(),
        index=LiveRoomIndex(vectors, LiveIndexConfig(cohost_weight=parts.config.pipeline.cohost_discount)),
        models=parts.models,
        standings=np.array(parts.standings, order="F"),
        heat=Heat(declared.host, hosts.rows),
        priors=parts.priors,
    )
    world.grow_hosts(parts.n_hosts)
    for host, since, until in parts.leaves.select("host", "since", "until").iter_rows():
        world.leaves.setdefault(host, []).append((since, until))
    live = LiveState(world)
    live.register_rooms(parts.rooms)
    for room, host, cohosts in parts.rooms.select("room", "host", "cohosts").iter_rows():
        world.index.start(room, host, tuple(cohosts or ()))
    world.index.publish()
    return live


def save(writer: BundleWriter, parts: WorldParts, vocabularies: Vocabularies) -> None:
    """Write the parts and the vocabularies into a bundle being written."""
    for name in ("users", "hosts", "rooms", "orders"):
        getattr(vocabularies, name).save(writer.path(f"{name}.ids"))
    for name, state in parts.states.items():
        for part, array in state.arrays().items():
            writer.array(f"state/{name}_{part}", array)
    writer.array("standings", parts.standings)
    writer.table("rooms", parts.rooms.select(ROOM_COLUMNS))
    writer.table("leaves", parts.leaves)
    models = parts.models
    present: dict[str, object] = {
        "priors": asdict(parts.priors),
        "graph": models.graph is not None,
        "factors": models.factors is not None,
        "transition": models.transition is not None,
        "transition_settings": models.transition.config.model_dump() if models.transition is not None else {},
        "strength": sorted(models.strength),
        "ranker": isinstance(models.ranker, AdditiveModel),
        "n_hosts": parts.n_hosts,
        "columns": {
            name: {"ints": list(s.block.ints), "decays": list(s.block.decays), "latest": latest_columns(s.block)}
            for name, s in parts.states.items()
        },
    }
    writer.json("world", present)
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for prefix, model in (("graph", models.graph), ("factors", models.factors)):
        if model is not None:
            arrays |= model.arrays(prefix)
    if models.transition is not None:
        arrays |= {f"transition_{name}": array for name, array in models.transition.to_arrays().items()}
    for head in models.strength.values():
        arrays |= head.arrays()
    if isinstance(models.ranker, AdditiveModel):
        arrays |= models.ranker.arrays("ranker")
    for name, array in arrays.items():
        writer.array(f"models/{name}", array)


def load(bundle: Bundle) -> tuple[LiveState, Vocabularies]:
    """The world and the vocabularies of a bundle; ties stay memory-mapped.

    Raises:
        BundleRefused: the bundle was written for other features or states than this version reads.
    """
    config = bundle.config
    present = bundle.json("world")
    states = load_states(bundle)
    models = _load_models(bundle, present, config)
    parts = WorldParts(
        config=config,
        states=states,
        standings=np.array(bundle.array("standings")),
        rooms=bundle.table("rooms"),
        leaves=bundle.table("leaves"),
        priors=Priors(**present["priors"]),
        models=models,
        n_hosts=present["n_hosts"],
    )
    vocabularies = Vocabularies.load(bundle.file("users.ids").parent)
    return assemble(parts), vocabularies


def load_states(bundle: Bundle) -> dict[str, BlockState]:
    """The states of a bundle by block name, memory-mapped.

    Raises:
        BundleRefused: as `load`.
    """
    present, config = bundle.json("world"), bundle.config
    declared = blocks(round(config.ties.product_slot_s))
    states: dict[str, BlockState] = {}
    for block in declared.all:
        if block.name not in present["columns"]:
            continue
        keys, ints, decayed, latest = (bundle.array(f"state/{block.name}_{part}") for part in _STATE_PARTS)
        states[block.name] = BlockState(
            block, keys, _adapted(bundle, block, present["columns"][block.name], ints, decayed, latest)
        )
    return states


def _adapted(
    bundle: Bundle,
    block: Block,
    stored: Mapping[str, list[str]],
    ints: npt.NDArray[np.int64],
    decayed: npt.NDArray[np.float64],
    latest: npt.NDArray[np.int64],
) -> Rows:
    """Stored columns as this version declares them: columns added since then know nothing yet."""
    declared = {"ints": list(block.ints), "decays": list(block.decays), "latest": latest_columns(block)}
    if stored == declared:
        return Rows(ints, decayed, latest)
    rows = identity(block, len(ints))
    for part, source, target in (
        ("ints", ints, rows.ints),
        ("decays", decayed, rows.decayed),
        ("latest", latest, rows.latest),
    ):
        gone = sorted(set(stored[part]) - set(declared[part]))
        if gone:
            raise BundleRefused(
                "bundle holds a tie state of a later version",
                where=f"{bundle.path}, block {block.name}",
                got=gone,
                expected="columns this version declares",
                hint="serve it with the version that built it, or build it anew",
            )
        for i, name in enumerate(stored[part]):
            target[:, declared[part].index(name)] = source[:, i]
    return rows


class _Arrays(dict[str, npt.NDArray[Any]]):
    """Arrays of a bundle by name, opened when asked for."""

    def __init__(self, bundle: Bundle, prefix: str) -> None:
        super().__init__()
        self._bundle, self._prefix = bundle, prefix

    def __missing__(self, name: str) -> npt.NDArray[Any]:
        return self._bundle.array(self._prefix + name)


def _load_models(bundle: Bundle, present: Mapping[str, Any], config: EngineConfig) -> Models:
    arrays = _Arrays(bundle, "models/")
    return Models(
        affinity=config.affinity,
        ranker=AdditiveModel.from_arrays(FEATURES, arrays, "ranker") if present["ranker"] else PriorRanker(FEATURES),
        graph=HostGraph.from_arrays(arrays, "graph") if present["graph"] else None,
        factors=HostFactors.from_arrays(arrays, "factors") if present["factors"] else None,
        transition=TransitionModel(
            _Arrays(bundle, "models/transition_"), TransitionConfig(**present.get("transition_settings", {}))
        )
        if present["transition"]
        else None,
        strength={name: StrengthHead.from_arrays(name, arrays) for name in present["strength"]},
    )
