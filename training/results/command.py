"""Which parts there are, and how their records become the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.errors import ConfigError
from recsys.progress import Progress, silent
from training.results import ablations, page, pairs, planted, rankings, retail
from training.results.parts import Part, result_of, sources_hash

GROUPS = ("driver", "twitch", "gowalla", "kuairand", "retail", "worlds", "planted", "ablations", "peers")
"""What `--only` may name; `planted` is Kendall's τ."""
PEERED = ("driver", "twitch", "gowalla")
QUICK = {"build": {"threads": 1, "ranker_requests": 20_000}}
WORLD = {"users": 600, "hosts": 200, "days": 42, "seed": 21}
PLANTED = {"users": 300, "hosts": 120, "days": 42}
PLANTED_CONFIG = {"build": {"threads": 1, "ranker_requests": 4_000}, "ranker": {"teacher_rounds": 0, "rounds": 200}}
"""Small worlds: the ranker is trained on few requests and without teachers, the heads as always."""


def measure(
    data: Path, out: Path, cache: Path, *, only: Sequence[str] = (), fresh: bool = False, progress: Progress = silent
) -> dict[str, Any]:
    """Measure the parts of `only` (all of them when empty) and put their tables into the page `out`.

    Args:
        data: folder with the data sets `driver`, `twitch`, `gowalla`, `kuairand`, `retail`; what is not there is named.
        out: the page, with its marked blocks.
        cache: folder of records; delete it, or say `fresh`, to measure again.

    Returns:
        per block `measured` or what is absent.

    Raises:
        ConfigError: a group that does not exist.
    """
    unknown = sorted(set(only) - set(GROUPS))
    if unknown:
        raise ConfigError("there is no such part of the results", where="--only", got=unknown, expected=list(GROUPS))
    said = {}
    for block in blocks(data, cache):
        if only and block.group not in only:
            continue
        made, said[block.name] = _made(block, cache, fresh, progress)
        text = page.with_blocks(out.read_text(encoding="utf-8"), {block.name: made}, out)
        out.write_text(text, encoding="utf-8")  # block by block: what is measured is on the page at once
    return said


@dataclass(frozen=True)
class Block:
    """A table of the page: the parts it is made of, and how."""

    name: str
    parts: tuple[Part, ...]
    render: Callable[[Sequence[page.Record]], str]

    @property
    def group(self) -> str:
        """What `--only` names it by."""
        return self.name.partition(":")[0]


def blocks(data: Path, cache: Path) -> list[Block]:
    """All blocks, in the order they are measured: the cheap ones first."""
    driver, retailed = data / "driver", data / "retail" / "orders.parquet"
    cut = {"path": driver, "cut": rankings.DRIVER_CUT}
    found = [
        _of(Part("retail", retail.measure, {"path": retailed}, [retailed]), page.retail_block, "retail"),
        _of(Part("driver", rankings.measure_events, {**cut, "config": {}}, [driver]), page.ranking_block, "driver"),
    ]
    for name, file, k in (("twitch", "follows", 10), ("kuairand", "log", 20), ("gowalla", "train", 20)):
        path = data / name / f"{file}.parquet"
        found.append(_of(Part(name, pairs.measure, {"path": path, "k": k}, [path]), page.pairs_block, name))
    found.append(
        _of(
            Part("ablations-driver", ablations.measure_events, {**cut, "config": QUICK}, [driver]),
            page.ablation_block,
            "ablations:driver",
        )
    )
    for world in planted.WORLDS:
        arguments = {**WORLD, "world": world, "config": QUICK}
        found.append(
            _of(Part(f"world-{world}", rankings.measure_world, arguments), page.ranking_block, f"worlds:{world}")
        )
        if world == "private_domain":
            part = Part(f"ablations-{world}", ablations.measure_world, arguments)
            found.append(_of(part, page.ablation_block, f"ablations:{world}"))
    found.append(Block("planted", _planted_parts(planted.WORLDS, planted.SEEDS, cache), _planted))
    found += [Block(f"peers:{name}", (), lambda _, name=name: page.peers_block(cache, name)) for name in PEERED]  # type: ignore[misc]
    return found


def evaluate_planted(worlds: Sequence[str], seeds: Sequence[int], cache: Path, progress: Progress = silent) -> str:
    """The table of Kendall's τ over the given worlds and seeds, as Markdown."""
    return _made(Block("planted", _planted_parts(worlds, seeds, cache), _planted), cache, False, progress)[0]


def _planted_parts(worlds: Sequence[str], seeds: Sequence[int], cache: Path) -> tuple[Part, ...]:
    common = {**PLANTED, "config": PLANTED_CONFIG, "cache": cache.resolve()}
    return tuple(
        Part(f"planted-{Path(world).stem}-{seed}", planted.measure, {**common, "world": world, "seed": seed})
        for world in worlds
        for seed in seeds
    )


def _of(part: Part, render: Callable[[page.Record], str], name: str) -> Block:
    return Block(name, (part,), lambda records: render(records[0]))


def _made(block: Block, cache: Path, fresh: bool, progress: Progress) -> tuple[str, str]:
    """The text of a block, and `measured` or what is absent."""
    missing = sorted({name for part in block.parts for name in part.absent})
    if missing:
        return page.absent(block.name, missing), f"absent: {', '.join(missing)}"
    records = []
    for done, part in enumerate(block.parts):
        progress(block.name, done / len(block.parts))
        records.append(result_of(part, cache, fresh=fresh))
    progress(block.name, 1.0)
    text = block.render(records)
    return f"{text}\n\n{page.measured_by(records, sources_hash())}" if records else text, "measured"


def _planted(records: Sequence[page.Record]) -> str:
    documents = [record["result"] for record in records]
    return page.planted_block(planted.summary(documents), documents)
