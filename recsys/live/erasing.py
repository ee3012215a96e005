"""Taking a user out of a published bundle: his ties and his own row go from every state, his id and those of his orders
from the vocabularies, his order lines from what later rows may speak of. The bytes go, not only the way to them.

What stays are sums in which he is one of many: counts and rates of hosts, transitions between hosts, model weights;
they go with the next full build. Rows are never renumbered: his becomes a row without an id, which nothing can name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from recsys.bundle import Bundle
from recsys.bundle.rewriting import Write, replace_files
from recsys.erasure import Erasure, erased_until
from recsys.ids import Vocabulary
from recsys.ties.blocks import blocks

ERASED = "erased"
"""JSON document of a bundle: the erasures it has obeyed, pseudonym → instant, µs."""
_NOBODY = "\x00erased-"
_PARTS = ("keys", "ints", "decayed", "latest", "at")


def erasures_of(bundle: Bundle) -> dict[str, int]:
    """The erasures a bundle has obeyed: pseudonym → facts up to this instant, µs, are not in it."""
    return dict(bundle.json(ERASED)) if bundle.has(ERASED) else {}


def holds_erased(bundle: Bundle, erased: Mapping[str, int]) -> bool:
    """Whether a bundle knows an id that was erased (pseudonym → instant, µs) and has not obeyed the erasure.

    Costs a hash a user, if there is an erasure it does not list.
    """
    obeyed = erasures_of(bundle)
    open_ = {user: at for user, at in erased.items() if obeyed.get(user, at - 1) < at}
    if not open_:
        return False
    users = Vocabulary.load(bundle.file("users.ids"))
    return erased_until(users.ids(np.arange(len(users))), open_).is_not_null().any()


def erase_from_bundle(path: Path, user_id: int | str, at_us: int) -> dict[str, Any] | None:
    """Rewrite a bundle without a user; it gets a new name (`recsys.bundle.rewriting`).

    Args:
        path: its directory, in a folder of bundles.
        user_id: external id.
        at_us: instant of the erasure; recorded in the bundle.

    Returns:
        A receipt: `bundle`, its new name `now`, `rows` removed per part, `files` rewritten; None if the bundle does not
        know him.

    Raises:
        BundleRefused: the bundle cannot be read.
    """
    bundle = Bundle.open(path)
    users = Vocabulary.load(bundle.file("users.ids"))
    user = users.row(user_id)
    if user < 0:
        return None
    rows: dict[str, int] = {}
    changes: dict[str, Write] = {"users.ids": _saver(_without(users, np.array([user])))}
    for block in blocks(round(bundle.config.ties.product_slot_s)).all:
        if block.level in ("tie", "user"):
            shift = 32 if block.level == "tie" else 0
            removed, of_block = _of_state(bundle, block.name, user << shift, (user + 1) << shift)
            changes |= of_block
            if removed:
                rows[block.name] = removed
    # what he tends to choose (`recsys.models.audience`) and where he lives (`recsys.models.two_tower`)
    for name, nothing in (("audience_tastes", np.nan), ("audience_entries", 0), ("tower_tier_of_user", 0)):
        file = f"models/{name}"
        if bundle.has(file) and user < len(bundle.array(file)):
            changes[f"{file}.npy"] = _blanked(bundle.array(file), user, nothing)
    for name, removed, write in _of_known(bundle, user_id):
        changes[name] = write
        rows[name.removesuffix(".arrow")] = removed
    erased = erasures_of(bundle) | dict([Erasure.of(user_id, at_us)])
    changes[f"{ERASED}.json"] = _dumped(erased)
    now = replace_files(path, changes)
    return {"bundle": path.name, "now": now.name, "rows": rows, "files": sorted(changes)}


def _of_state(bundle: Bundle, name: str, low: int, high: int) -> tuple[int, dict[str, Write]]:
    """The files of a state without the keys in [low, high): rows removed, and how to write the files that change.

    A state may lie in two layers; `over_at` holds positions in the lower one, which move up.
    """
    cuts = {}
    for layer in ("", "over_"):
        if bundle.has(f"state/{name}_{layer}keys"):
            keys = bundle.array(f"state/{name}_{layer}keys")
            cuts[layer] = (int(keys.searchsorted(low)), int(keys.searchsorted(high)))
    changes: dict[str, Write] = {}
    base_begin, base_end = cuts.get("", (0, 0))
    for layer, (begin, end) in cuts.items():
        for part in _PARTS:
            file = f"state/{name}_{layer}{part}"
            if not bundle.has(file):
                continue
            array = bundle.array(file)
            if part == "at" and base_end > base_begin:
                moved = np.where(array >= base_end, array - (base_end - base_begin), array)
                changes[f"{file}.npy"] = _cutter(moved, begin, end)
            elif end > begin:
                changes[f"{file}.npy"] = _cutter(array, begin, end)
    return sum(end - begin for begin, end in cuts.values()), changes


def _cutter(array: npt.NDArray[Any], begin: int, end: int) -> Write:
    """Writes an array without the rows [begin, end), a piece at a time."""

    def write(path: Path) -> None:
        shape = (len(array) - (end - begin), *array.shape[1:])
        if 0 in shape:
            np.save(path, np.empty(shape, array.dtype), allow_pickle=False)
            return
        made = np.lib.format.open_memmap(path, mode="w+", dtype=array.dtype, shape=shape)
        made[:begin] = array[:begin]
        made[begin:] = array[end:]
        made.flush()

    return write


def _blanked(array: npt.NDArray[Any], row: int, nothing: float) -> Write:
    """Writes an array with one row saying nothing."""

    def write(path: Path) -> None:
        held = np.array(array)
        held[row] = nothing
        np.save(path, held, allow_pickle=False)

    return write


def _without(vocabulary: Vocabulary, rows: npt.NDArray[np.integer[Any]]) -> Vocabulary:
    """The vocabulary with ids that nobody has in place of those of `rows`; the other rows keep theirs."""
    ids = vocabulary.ids(np.arange(len(vocabulary)))
    nobody: pl.Series
    if vocabulary.kind == "int":  # negative and near the others, so that compact ids stay compact
        least = max(min(int(ids.min()), 0) - len(rows), -(2**63))  # type: ignore[arg-type]
        free = np.setdiff1d(np.arange(least, least + len(ids) + len(rows)), ids.to_numpy())
        nobody = pl.Series("id", free[: len(rows)])
    else:
        taken = int(ids.str.starts_with(_NOBODY).sum())
        nobody = pl.Series("id", [f"{_NOBODY}{taken + i}" for i in range(len(rows))], pl.String)
    made = Vocabulary()
    made.extend(ids.scatter(rows.tolist(), nobody))
    return made


def _saver(vocabulary: Vocabulary) -> Write:
    return vocabulary.save


def _of_known(bundle: Bundle, user_id: int | str) -> list[tuple[str, int, Write]]:
    """Order lines of a user, refunds that wait for them, and the ids of these orders: file, rows removed, writer."""
    if not bundle.has("known_lines.arrow"):
        return []
    lines = pl.read_ipc(bundle.file("known_lines.arrow"))
    kind = pl.String() if isinstance(user_id, str) else pl.Int64()
    if not lines.height or lines.schema["user_id"] != kind:
        return []
    his = lines["user_id"] == user_id
    orders = lines.filter(his)["order_id"].unique()
    if not len(orders):
        return []
    found = [("known_lines.arrow", int(his.sum()), _ipc(lines.filter(~his)))]
    refunds = pl.read_ipc(bundle.file("known_refunds.arrow"))
    waiting = refunds["order_id"].is_in(orders.implode()) if refunds.height else pl.Series([], dtype=pl.Boolean)
    if waiting.any():
        found.append(("known_refunds.arrow", int(waiting.sum()), _ipc(refunds.filter(~waiting))))
    vocabulary = Vocabulary.load(bundle.file("orders.ids"))
    rows = vocabulary.rows(orders)
    if (rows >= 0).any():
        found.append(("orders.ids", int((rows >= 0).sum()), _saver(_without(vocabulary, rows[rows >= 0]))))
    return found


def _ipc(frame: pl.DataFrame) -> Write:
    return lambda path: frame.write_ipc(path, compression="uncompressed")


def _dumped(document: dict[str, int]) -> Write:
    def write(path: Path) -> None:
        path.write_bytes(orjson.dumps(document, option=orjson.OPT_SORT_KEYS))

    return write
