"""The nightly build: events → states → models → gates → a published bundle."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.bundle import (
    Bundle,
    BundleWriter,
    DataWindow,
    ManifestFields,
    StageResult,
    current_name,
    evaluate_gates,
    next_name,
    publish,
    resolve,
    retain,
)
from recsys.bundle.durable import sha256_of
from recsys.bundle.manifest import MANIFEST
from recsys.config import EngineConfig
from recsys.errors import InputRefused
from recsys.events import (
    Events,
    Vocabularies,
    clean,
    known_before,
    last_fact_us,
    open_events,
)
from recsys.ids import Vocabulary
from recsys.live.artefact import ROOM_COLUMNS, WorldParts, assemble, save
from recsys.live.erasing import ERASED, holds_erased
from recsys.progress import Progress, silent
from recsys.ties.algebra import BlockState
from training.compare import Scorer
from training.delta import advance, known_states, lake_of
from training.demand import write_demand
from training.drift import (
    CANDIDATES,
    drift_from,
    no_candidates,
    profile_of,
    sampled_ties,
    strength_histogram,
    values_of,
)
from training.fitting import fit_models
from training.history import KEPT, Base
from training.index_recall import index_metrics
from training.kept import States, load_fitted, load_learnt, load_made, save_fitted, save_learnt, save_made
from training.learning import learn_models
from training.pages import build_page
from training.report import write_report
from training.stages import Stages, inputs_of, key_of
from training.states import snapshot, vocabularies_before


@dataclass
class Trained:
    """A finished training: parts of the world as of `as_of_us`, and how it went."""

    parts: WorldParts
    vocabularies: Vocabularies
    as_of_us: int
    last_us: int
    from_us: int | None
    metrics: dict[str, float]
    stages: list[StageResult]
    counts: dict[str, int] = field(default_factory=dict)
    heads: list[dict[str, object]] = field(default_factory=list)
    rivals: dict[str, Scorer] = field(default_factory=dict)
    held: Bundle | None = None  # where the states lie already, if stages keep what they make
    latest: dict[str, object] = field(default_factory=dict)
    history: str = ""
    candidates: npt.NDArray[np.float32] = field(default_factory=no_candidates)


def build(
    events_path: Path,
    bundles: Path,
    *,
    config: EngineConfig,
    as_of_us: int | None,
    now_us: int,
    base: Path | None = None,
    progress: Progress = silent,
) -> dict[str, object]:
    """Build a bundle from event tables and publish it.

    Args:
        events_path: folder of event tables.
        bundles: folder of bundles; its `CURRENT` is swapped when all gates pass.
        config: resolved config.
        as_of_us: facts before it are read; None: just after the last fact.
        now_us: the clock, read by the caller.
        base: a bundle (or a folder of bundles) built from the same lake: its states are brought forward instead of
            reading the whole history again.

    What stages make is kept beside the bundles (`training.stages`): one whose inputs have not changed is not run again.

    Returns:
        bundle name and path, as-of, metrics, stages and gates; which stages `ran` and which were `reused`.

    Raises:
        InputRefused: the events cannot be used.
        BundleRefused: `base` cannot be used, or what `bundles` says is served.
        GateFailed: the bundle was written but not published.
    """
    current_name(bundles)  # refused before the work if it cannot be read
    events = clean(open_events(events_path), now=datetime.fromtimestamp(now_us / 1e6, UTC))
    continued = None if base is None else Bundle.open(resolve(base))
    based = {"base": None if continued is None else [continued.path.name, sha256_of(continued.path / MANIFEST)]}
    stages = Stages(bundles, inputs_of(events, events_path) | based)
    trained = train(events, config, as_of_us, progress, stages, continued, now_us)
    trained.metrics |= index_metrics(trained.parts, config.build.seed)
    live = assemble(trained.parts)
    ties = sampled_ties(live, trained.as_of_us, config.build.seed)
    values = values_of(ties, live.world.models.strength)
    candidates = dict(zip(CANDIDATES, trained.candidates.T, strict=True))
    drift = drift_from(continued, ties, values, candidates)
    trained.metrics |= drift.metrics
    gates = evaluate_gates(trained.metrics, config.gates)
    name = next_name(bundles, trained.as_of_us)
    rooms = Vocabulary()
    live_ids = trained.vocabularies.rooms.ids(trained.parts.rooms["room"].to_numpy())
    if len(live_ids):
        rooms.extend(live_ids)
    numbered = trained.parts.rooms.with_columns(room=pl.Series(np.arange(len(live_ids)), dtype=pl.Int64))
    parts = _renumbered(trained.parts, numbered)
    vocabularies = Vocabularies(
        trained.vocabularies.users, trained.vocabularies.hosts, rooms, trained.vocabularies.orders
    )
    fields = ManifestFields(
        created_at_us=now_us,
        config=config.model_dump(mode="json"),
        window=DataWindow(
            from_us=trained.from_us, to_us=trained.as_of_us - 1, as_of_us=trained.as_of_us, last_us=trained.last_us
        ),
        offsets=events.offsets,
        counts=trained.counts,
        metrics=trained.metrics,
        stages=tuple(trained.stages),
        gates=tuple(gates),
    )
    with BundleWriter(bundles, name) as writer:
        save(writer, parts, vocabularies, trained.held)
        known = known_before(events, before_us=trained.as_of_us)  # what later rows may speak of
        replace(known, rooms=known.rooms.filter(pl.col("ended_at").is_null())).save(
            writer.path("known_rooms.arrow").parent
        )
        if events.lake is not None:
            writer.json(ERASED, events.lake.manifest.erased)
        writer.json("quality", events.quality.to_json())
        writer.json("profile", profile_of(values | candidates))
        writer.json(KEPT, {"stage": trained.history})
        if drift.indices:
            writer.json("drift", drift.indices)
        body = fields.model_dump(mode="json") | {"bundle": name, "quality": events.quality.to_json()}
        body |= {
            "drift": drift.indices,
            "relearnt": drift.relearnt,
            "strengths": strength_histogram(values),
            "heads": trained.heads,
            **trained.latest,
        }
        writer.json("heads", trained.heads)
        body |= {"demand": write_demand(writer, live.world, trained.vocabularies, trained.as_of_us, progress)}
        write_report(writer.path("report.html"), build_page, body)
        path = writer.finish(fields)
    publish(bundles, path.name)  # a refused bundle has another name; this says why it was refused
    retain(bundles, config.build.keep_bundles)
    stages.tidy()
    return {
        "bundle": name,
        "path": str(path),
        "as_of_us": trained.as_of_us,
        "counts": trained.counts,
        "metrics": trained.metrics,
        "stages": [stage.model_dump() for stage in trained.stages],
        "ran": stages.ran,
        "reused": stages.reused,
        "gates": [gate.model_dump() for gate in gates],
    }


def train(
    events: Events,
    config: EngineConfig,
    as_of_us: int | None,
    progress: Progress = silent,
    stages: Stages | None = None,
    base: Bundle | None = None,
    now_us: int = 0,
    compare: bool = False,
) -> Trained:
    """Everything but writing: states and models as of an instant.

    Args:
        stages: where stages keep what they make; None: nowhere.
        base: its states are brought forward, if they can be, and its factors are where fitting begins.
        now_us: the clock by which rows of the events were set aside; only needed with a base.
        compare: also trains what the served ranker is compared with (`training.compare`); such scorers are not kept.
    """
    stages = Stages() if stages is None else stages
    last = last_fact_us(events)
    if last is None:
        raise InputRefused("there are no facts to build from", got="0 usable rows", expected="at least one")
    as_of = last + 1 if as_of_us is None else as_of_us
    of_states = [as_of, config.ties.model_dump()]
    with stages.scratch("states") as scratch:
        states, held = stages.run(
            "states",
            of_states,
            partial(_states, events, config, as_of, base, now_us, progress, scratch),
            partial(save_made, base),
            partial(load_made, config),
        )
    shot, vocabularies = states.shot, states.vocabularies
    past = None if base is None else Base(base, now_us)
    of_learning = [of_states, key_of(held), compare, config.model_dump(mode="json", exclude={"gates"})]
    learnt, _ = stages.run(
        "learning",
        of_learning,
        partial(learn_models, events, vocabularies, config, as_of, progress, stages, key_of(held), compare, past),
        partial(save_learnt, as_of, config),
        partial(load_learnt, config),
    )
    of_models = [of_states, key_of(held), config.model_dump(include={"affinity", "build", "tower"})]
    fitted, _ = stages.run(
        "models",
        [*of_models, learnt.categories, learnt.tower],
        partial(fit_models, events, states, config, learnt, base, progress),
        partial(save_fitted, as_of),
        partial(load_fitted, config),
    )
    models = replace(fitted.models, **learnt.models())
    n_hosts = len(vocabularies.hosts)
    counts = {"users": len(vocabularies.users), "hosts": n_hosts, "live_rooms": len(shot.rooms)}
    counts |= {f"state_{name}": len(state) for name, state in shot.states.items()}
    parts = WorldParts(
        config, shot.states, shot.standings, shot.rooms.select(ROOM_COLUMNS), shot.leaves, shot.priors, models, n_hosts
    )
    said = [*states.stages, *fitted.stages, *learnt.stages]
    heads, rivals = learnt.head_documents, learnt.rivals
    metrics, latest = learnt.metrics, learnt.latest
    return Trained(
        parts, vocabularies, as_of, last, learnt.from_us, metrics, said, counts, heads, rivals, held, latest,
        learnt.history, learnt.candidates,
    )  # fmt: skip


def _states(
    events: Events,
    config: EngineConfig,
    as_of: int,
    base: Bundle | None,
    now_us: int,
    progress: Progress,
    scratch: Path | None,
) -> States:
    """The states as of an instant, from those of the base if that can be."""
    said: tuple[StageResult, ...] = ()
    if base is not None:
        lake = lake_of(events)
        advanced = None
        if not holds_erased(base, lake.manifest.erased):
            advanced = advance(known_states(base, lake.manifest, config), lake, config, as_of, now_us, progress)
        if advanced is not None:
            return States(advanced.shot, advanced.vocabularies, (StageResult(name="delta", status="passed"),))
        why = "a late row takes back a fact of the base, the as-of is earlier, or it holds an erased user: rebuilt"
        said = (StageResult(name="delta", status="skipped", why=why),)
    vocabularies = vocabularies_before(events, as_of)
    return States(snapshot(events, vocabularies, config, as_of, progress, scratch=scratch), vocabularies, said)


def _renumbered(parts: WorldParts, rooms: pl.DataFrame) -> WorldParts:
    """The same parts with live rooms numbered from 0, as the bundle's room vocabulary numbers them."""
    state = parts.states["room"].flat()
    old = parts.rooms["room"].to_numpy()
    new = np.searchsorted(old, state.keys)
    return replace(parts, rooms=rooms, states={**parts.states, "room": BlockState(state.block, new, state.rows)})
