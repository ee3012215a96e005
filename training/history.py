"""The states at the beginning of the learning stretch, brought forward from those of the base's build.

Every night the beginning moves on by a day. The base's build kept its own beginning as a stage; what came since (rows
of that day, and late rows of earlier ones) is merged into it as the nightly delta merges into the base's states, so a
night reads what is new and not the history. If that stage is gone or cannot be continued, all is read, and the build
says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recsys.bundle import Bundle, BundleWriter, ManifestFields, StageResult
from recsys.bundle.shelf import STAGES
from recsys.config import EngineConfig
from recsys.errors import BundleRefused
from recsys.events import Events, Vocabularies
from recsys.ids import Vocabulary
from recsys.live.erasing import holds_erased
from recsys.progress import Progress
from recsys.ties.algebra import BlockState
from training.delta import KnownStates, advance, known_states
from training.states import Snapshot, load_shot, save_shot, snapshot

KEPT = "history"
"""The document of a bundle that names the stage in which its build kept the states, and that stage's name."""
_ROOMS = "rooms_live.ids"


@dataclass(frozen=True)
class Base:
    """What a night goes on from: a bundle, and the clock of tonight (`now_us`), by which rows are set aside."""

    bundle: Bundle
    now_us: int


class Beginning(NamedTuple):
    """The states at the beginning of the learning stretch; `stages`: with a base, whether those of its build were
    continued."""

    shot: Snapshot
    stages: tuple[StageResult, ...] = ()


def history(
    events: Events,
    vocabularies: Vocabularies,
    config: EngineConfig,
    as_of_us: int,
    base: Base | None,
    progress: Progress,
    scratch: Path | None,
) -> Beginning:
    """The states as of the beginning of the learning stretch, in the rows of `vocabularies`.

    Args:
        base: its history is brought forward if it can be; None: all is read.
        scratch: as for `snapshot`.
    """
    known = None if base is None else _known(base.bundle, events, vocabularies, config)
    if base is not None and known is not None and events.lake is not None:
        advanced = advance(known, events.lake, config, as_of_us, base.now_us, progress, vocabularies=vocabularies)
        if advanced is not None:
            return Beginning(advanced.shot, (StageResult(name="history", status="passed"),))
    why = "the base's is gone, its rows were rebuilt, or a late row takes back a fact of it: all was read"
    said = () if base is None else (StageResult(name="history", status="skipped", why=why),)
    return Beginning(snapshot(events, vocabularies, config, as_of_us, progress, scratch=scratch), said)


def save_history(
    base: Base | None, vocabularies: Vocabularies, writer: BundleWriter, made: Beginning
) -> ManifestFields:
    """Write a history; what that of the base holds of its ties is linked."""
    rooms = Vocabulary()
    keys = made.shot.states["room"].flat().keys
    if len(keys):
        rooms.extend(vocabularies.rooms.ids(keys))
    rooms.save(writer.path(_ROOMS))
    fields = save_shot(writer, made.shot, None if base is None else _kept(base.bundle))
    return fields.model_copy(update={"stages": made.stages})


def load_history(config: EngineConfig, held: Bundle) -> Beginning:
    """Read what `save_history` wrote."""
    return Beginning(load_shot(config, held), held.manifest.stages)


def _kept(base: Bundle) -> Bundle | None:
    """The stage in which the build of the base kept its history, if it is still there."""
    name = base.json(KEPT)["stage"] if base.has(KEPT) else None
    try:
        return Bundle.open(base.path.parent / STAGES / name) if name else None
    except BundleRefused:
        return None


def _known(base: Bundle, events: Events, vocabularies: Vocabularies, config: EngineConfig) -> KnownStates | None:
    """The base's history, if its rows are those of `vocabularies` and it holds nobody who was erased."""
    held = _kept(base)
    if held is None or events.lake is None or holds_erased(base, events.lake.manifest.erased):
        return None
    of_base = known_states(base, events.lake.manifest, config)
    names = ("users", "hosts")
    if not all(_continues(getattr(of_base.vocabularies, name), getattr(vocabularies, name)) for name in names):
        return None  # the states were rebuilt, and with them the rows
    shot = load_shot(config, held)
    room = shot.states["room"].flat()
    shot.states["room"] = BlockState(room.block, np.arange(len(room), dtype=np.int64), room.rows)
    known = replace(of_base.vocabularies, rooms=Vocabulary.load(held.file(_ROOMS)))
    return replace(of_base, states=shot.states, standings=shot.standings, vocabularies=known, as_of_us=shot.as_of_us)


def _continues(before: Vocabulary, now: Vocabulary) -> bool:
    rows = np.arange(len(before))
    return len(before) <= len(now) and before.ids(rows).equals(now.ids(rows))
