"""States on disk: plain arrays per block in a bundle, memory-mapped when read.

A state in two layers (`recsys.ties.layers`) is stored as two: `state/<block>_<part>` is the base, the very file of the
bundle before (linked, not copied), and `state/<block>_over_<part>` the rows that have changed since. Bundles that hold
such layers have format version 2, others version 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recsys.bundle import Bundle, BundleWriter
from recsys.errors import BundleRefused
from recsys.ties.algebra import Block, BlockState, Rows, identity, latest_columns
from recsys.ties.blocks import Blocks
from recsys.ties.layers import LayeredState, State

PARTS = ("keys", "ints", "decayed", "latest")
LAYERED_VERSION = 2

Columns = dict[str, list[str]]


def declared_columns(block: Block) -> Columns:
    """The columns of a block by part, as they are declared now."""
    return {"ints": list(block.ints), "decays": list(block.decays), "latest": latest_columns(block)}


def save_states(
    writer: BundleWriter, states: Mapping[str, State], base: Bundle | None = None, lying: Path | None = None
) -> dict[str, Columns]:
    """Write states into a bundle.

    Args:
        base: the bundle the bases of layered states were read from; its files are linked. Without one, or if it holds
            other columns than those declared now, layers are written as one.
        lying: a folder in which some states lie already, as files `<block>_<part>.npy`; these are taken over.

    Returns:
        The columns of every block, which `load_states` needs again.
    """
    of_base = {} if base is None else base.json("world")["columns"]
    for name, state in states.items():
        if base is not None and isinstance(state, LayeredState) and of_base.get(name) == declared_columns(state.block):
            for part in PARTS:
                writer.link(f"state/{name}_{part}.npy", base)
            for part, array in state.over.arrays().items():
                writer.array(f"state/{name}_over_{part}", array)
            writer.array(f"state/{name}_over_at", state.at)
            writer.needs(LAYERED_VERSION)
        elif lying is not None and (lying / f"{name}_keys.npy").exists():
            for part in PARTS:
                writer.adopt(f"state/{name}_{part}.npy", lying / f"{name}_{part}.npy")
        else:
            for part, array in state.flat().arrays().items():
                writer.array(f"state/{name}_{part}", array)
    return {name: declared_columns(state.block) for name, state in states.items()}


def link_states(writer: BundleWriter, states: Mapping[str, State], held: Bundle, *anew: str) -> dict[str, Columns]:
    """As `save_states`, of states that another bundle holds, except the blocks named `anew`, which are written."""
    save_states(writer, {name: states[name] for name in anew if name in states})
    for name in states:
        if name not in anew:
            for part in [f"{layer}{part}" for layer in ("", "over_") for part in (*PARTS, "at")]:
                if held.has(f"state/{name}_{part}"):
                    writer.link(f"state/{name}_{part}.npy", held)
            if held.has(f"state/{name}_over_at"):
                writer.needs(LAYERED_VERSION)
    return {name: declared_columns(state.block) for name, state in states.items()}


def load_states(bundle: Bundle, declared: Blocks, columns: Mapping[str, Columns]) -> dict[str, State]:
    """The states of a bundle by block name, memory-mapped.

    Args:
        declared: the blocks of this version.
        columns: what `save_states` returned.

    Raises:
        BundleRefused: the bundle holds columns this version does not declare, or fewer states than keys.
    """
    states: dict[str, State] = {}
    for block in declared.all:
        if block.name in columns:
            base = _adapted(bundle, block, columns[block.name], "")
            states[block.name] = base
            if bundle.has(f"state/{block.name}_over_at"):
                over = _adapted(bundle, block, columns[block.name], "over_")
                states[block.name] = LayeredState(base, over, bundle.array(f"state/{block.name}_over_at"))
    return states


def _adapted(bundle: Bundle, block: Block, stored: Columns, layer: str) -> BlockState:
    """Stored columns as this version declares them: columns added since then know nothing yet."""
    arrays: dict[str, npt.NDArray[np.generic]] = {
        part: bundle.array(f"state/{block.name}_{layer}{part}") for part in PARTS
    }
    for part, columns in (("ints", "ints"), ("decayed", "decays"), ("latest", "latest")):
        expected = len(arrays["keys"]), len(stored[columns])
        if arrays[part].shape != expected:  # loops over states do not look where their arrays end
            where = f"{bundle.path}, state/{block.name}_{layer}{part}"
            raise BundleRefused("states and keys do not fit", where=where, got=arrays[part].shape, expected=expected)
    declared = declared_columns(block)
    if stored == declared:
        return BlockState(block, arrays["keys"], Rows(arrays["ints"], arrays["decayed"], arrays["latest"]))  # type: ignore[arg-type]
    rows = identity(block, len(arrays["keys"]))
    for part, array, target in (
        ("ints", arrays["ints"], rows.ints),
        ("decays", arrays["decayed"], rows.decayed),
        ("latest", arrays["latest"], rows.latest),
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
            target[:, declared[part].index(name)] = array[:, i]
    return BlockState(block, arrays["keys"], rows)  # type: ignore[arg-type]
