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
from recsys.index.live_config import LiveIndexConfig
from recsys.index.live_rooms import LiveRoomIndex
from recsys.live.state import LiveState
from recsys.models.additive import AdditiveModel
from recsys.models.audience import Audience
from recsys.models.baselines import PriorRanker
from recsys.models.block_network import BlockNetwork
from recsys.models.bound import check_shapes
from recsys.models.demand import Demand
from recsys.models.factors import HostFactors
from recsys.models.graph import HostGraph
from recsys.models.strength import StrengthHead
from recsys.models.suite import Models
from recsys.models.transition import TransitionModel
from recsys.models.transition_counts import TransitionConfig
from recsys.models.trust import HostTrust
from recsys.models.two_tower import TwoTower
from recsys.pipeline.breakdown import Ranker
from recsys.pipeline.features import FEATURES
from recsys.pipeline.heat import Heat
from recsys.pipeline.world import Priors, RoomTable, World
from recsys.ties.algebra import BlockState
from recsys.ties.blocks import blocks
from recsys.ties.layers import State
from recsys.ties.row_store import RowStore, UserRows
from recsys.ties.standing import STANDINGS
from recsys.ties.store import TieStore
from recsys.ties.stored import link_states, load_states, save_states

ROOM_COLUMNS = ("room", "host", "cohosts", "started_at", "category")


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
    states: Mapping[str, State]
    standings: npt.NDArray[np.int64]
    rooms: pl.DataFrame
    leaves: pl.DataFrame
    priors: Priors
    models: Models
    n_hosts: int


def assemble(parts: WorldParts) -> LiveState:
    """A world in motion from its parts; arrays of ties and users are shared, the others copied."""
    declared = blocks(round(parts.config.ties.product_slot_s))
    hosts = RowStore(declared.host, parts.n_hosts, _rows_of(parts, "host"))
    world = World(
        config=parts.config,
        blocks=declared,
        ties=TieStore(
            declared.of("tie"), {b.name: parts.states[b.name] for b in declared.of("tie") if b.name in parts.states}
        ),
        hosts=hosts,
        schedule=RowStore(declared.schedule, parts.n_hosts, _rows_of(parts, "schedule")),
        arrivals=RowStore(declared.arrivals, parts.n_hosts, _rows_of(parts, "arrivals")),
        users=UserRows(declared.user, parts.states.get("user")),
        moments=RowStore(declared.room, 0, _rows_of(parts, "room")),
        rooms=RoomTable(),
        index=LiveRoomIndex(
            parts.models.index_vectors, LiveIndexConfig(cohost_weight=parts.config.pipeline.cohost_discount)
        ),
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


def _rows_of(parts: WorldParts, block: str) -> BlockState | None:
    return parts.states[block].flat() if block in parts.states else None


def save(writer: BundleWriter, parts: WorldParts, vocabularies: Vocabularies, held: Bundle | None = None) -> None:
    """Write the parts and the vocabularies into a bundle being written.

    Args:
        held: a bundle that holds these very states, except those of rooms: its files are linked.
    """
    for name in ("users", "hosts", "rooms", "orders"):
        getattr(vocabularies, name).save(writer.path(f"{name}.ids"))
    columns = save_states(writer, parts.states) if held is None else link_states(writer, parts.states, held, "room")
    writer.array("standings", parts.standings)
    writer.table("rooms", parts.rooms.select(ROOM_COLUMNS))
    writer.table("leaves", parts.leaves)
    present = {"priors": asdict(parts.priors), "n_hosts": parts.n_hosts, "columns": columns}
    writer.json("world", present | save_models(writer, parts.models))


def save_models(writer: BundleWriter, models: Models) -> dict[str, object]:
    """Write models into a bundle being written; which there are, for `load_models`."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for prefix, model in (("graph", models.graph), ("factors", models.factors)):
        if model is not None:
            arrays |= model.arrays(prefix)
    if models.transition is not None:
        arrays |= {f"transition_{name}": array for name, array in models.transition.to_arrays().items()}
    if models.audience is not None:
        arrays |= {f"audience_{name}": array for name, array in models.audience.to_arrays().items()}
    for head in models.strength.values():
        arrays |= head.arrays()
    if not isinstance(models.ranker, PriorRanker):
        arrays |= models.ranker.arrays("ranker")
    if models.trust is not None:
        arrays |= models.trust.arrays()
    if models.tower is not None:
        arrays |= models.tower.arrays()
    if models.demand is not None:
        arrays |= models.demand.arrays()
    for name, array in arrays.items():
        writer.array(f"models/{name}", array)
    return {
        "graph": models.graph is not None,
        "factors": models.factors is not None,
        "transition": models.transition is not None,
        "transition_settings": models.transition.config.model_dump() if models.transition is not None else {},
        "strength": sorted(models.strength),
        "ranker": not isinstance(models.ranker, PriorRanker),
        "ranker_is_network": isinstance(models.ranker, BlockNetwork),
        "trust": models.trust is not None,
        "tower": models.tower is not None,
        "audience": models.audience is not None,
        "demand": models.demand.heads() if models.demand is not None else {},
    }


def load(bundle: Bundle) -> tuple[LiveState, Vocabularies]:
    """The world and the vocabularies of a bundle; ties stay memory-mapped.

    Raises:
        BundleRefused: the bundle was written for other features or states than this version reads, or does not fit
            together.
    """
    config, present, states = bundle.config, bundle.json("world"), load_states_of(bundle)
    standings = np.array(bundle.array("standings"))
    check_shapes({"standings": standings}, {"standings": (len(standings), len(STANDINGS))}, where=str(bundle.path))
    models = load_models(bundle, present, config)
    parts = WorldParts(
        config=config,
        states=states,
        standings=standings,
        rooms=bundle.table("rooms"),
        leaves=bundle.table("leaves"),
        priors=Priors(**present["priors"]),
        models=models,
        n_hosts=present["n_hosts"],
    )
    vocabularies = Vocabularies.load(bundle.file("users.ids").parent)
    live = assemble(parts)
    if live.world.ties.largest_host >= len(live.world.standings):
        raise BundleRefused(
            "ties with a host that there is not",
            where=bundle.path,
            got=f"host row {live.world.ties.largest_host}",
            expected=f"rows below {len(live.world.standings)}",
        )
    live.world.room_ids = vocabularies.rooms
    return live, vocabularies


def load_states_of(bundle: Bundle) -> dict[str, State]:
    """The states of a bundle by block name, memory-mapped.

    Raises:
        BundleRefused: as `load`.
    """
    return load_states(bundle, blocks(round(bundle.config.ties.product_slot_s)), bundle.json("world")["columns"])


class _Arrays(dict[str, npt.NDArray[Any]]):
    """Arrays of a bundle by name, opened when asked for."""

    def __init__(self, bundle: Bundle, prefix: str) -> None:
        super().__init__()
        self._bundle, self._prefix = bundle, prefix

    def __missing__(self, name: str) -> npt.NDArray[Any]:
        return self._bundle.array(self._prefix + name)


def _ranker(arrays: Mapping[str, npt.NDArray[Any]], present: Mapping[str, Any]) -> Ranker:
    if not present["ranker"]:
        return PriorRanker(FEATURES)
    form = BlockNetwork if present.get("ranker_is_network") else AdditiveModel
    return form.from_arrays(FEATURES, arrays, "ranker")


def load_heads(bundle: Bundle, present: Mapping[str, Any] | None = None) -> dict[str, StrengthHead]:
    """The strength heads of a bundle by name; `present`: what `save_models` returned, None: of a finished bundle."""
    present, arrays = present or bundle.json("world"), _Arrays(bundle, "models/")
    return {name: StrengthHead.from_arrays(name, arrays) for name in present["strength"]}


def load_models(bundle: Bundle, present: Mapping[str, Any], config: EngineConfig) -> Models:
    """The models of a bundle; `present`: what `save_models` returned."""
    arrays = _Arrays(bundle, "models/")
    return Models(
        affinity=config.affinity,
        ranker=_ranker(arrays, present),
        graph=HostGraph.from_arrays(arrays, "graph") if present["graph"] else None,
        factors=HostFactors.from_arrays(arrays, "factors") if present["factors"] else None,
        transition=TransitionModel(
            _Arrays(bundle, "models/transition_"), TransitionConfig(**present.get("transition_settings", {}))
        )
        if present["transition"]
        else None,
        audience=Audience.from_arrays(_Arrays(bundle, "models/audience_")) if present.get("audience") else None,
        strength=load_heads(bundle, present),
        trust=HostTrust.from_arrays(arrays) if present.get("trust") else None,
        tower=TwoTower.from_arrays(arrays) if present.get("tower") else None,
        demand=Demand.from_arrays(present["demand"], arrays) if present.get("demand") else None,
    )
