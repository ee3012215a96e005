"""The tables of docs/results.md: measured blocks are replaced, everything written by hand stays.

A block stands between `<!-- measured NAME -->` and `<!-- end NAME -->`. Only what `laotie results` measured may stand
in one; remarks, targets and the number of looks are written around them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from recsys.errors import InputRefused

Record = Mapping[str, Any]


def with_blocks(text: str, blocks: Mapping[str, str], where: Path) -> str:
    """The page with its measured blocks replaced by those given; other blocks stay.

    Raises:
        InputRefused: the page has no place for a block.
    """
    for name, block in blocks.items():
        place = re.compile(rf"(<!-- measured {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL)
        if not place.search(text):
            raise InputRefused(
                "the page has no place for a measured block",
                where=where,
                got=name,
                expected=f"<!-- measured {name} --> … <!-- end {name} -->",
                hint="add the two comment lines where the table should stand",
            )
        text = place.sub(lambda found, block=block: found[1] + block.strip() + "\n" + found[2], text)  # type: ignore[misc]
    return text


def absent(name: str, missing: Sequence[str]) -> str:
    """What stands in place of a table whose data are not there."""
    return f"Not measured: `{', '.join(missing)}` is not in DATA ({name})."


def measured_by(records: Sequence[Record], sources: str) -> str:
    """What the parts of a block cost, and whether the sources have changed since."""
    cost = (
        f"{sum(record['cpu_s'] for record in records):.0f} s of processor time, peak "
        f"{max(record['peak_memory_mib'] for record in records):.0f} MiB, load average "
        f"{min(record['load'] for record in records):.0f}–{max(record['load'] for record in records):.0f}"
    )
    others = sorted({record["sources"] for record in records} - {sources})
    changed = f"; measured with sources {', '.join(others)}, not the present {sources}" if others else ""
    return f"*All of it: {cost}{changed}.*"


def ranking_block(record: Record) -> str:
    """`laotie evaluate`: every method by stratum, heads, fan reach, what training cost."""
    result = record["result"]
    rows = [
        [
            row["method"], row["stratum"] if row["stratum"] == "all" else f"{row['stratum']}: {row['value']}",
            f"{row['requests']:,}", *(_interval(row, name) for name in ("ndcg_at_10", "hit_at_1", "hit_at_10", "mrr")),
        ]
        for row in sorted(result["metrics"], key=_by_stratum(result["metrics"]))
    ]  # fmt: skip
    lines = [
        f"{result['requests']:,} requests by {result['users']:,} users, {result['rooms']:.1f} rooms live each.",
        "",
        _table(["method", "stratum", "requests", "NDCG@10", "Hit@1", "Hit@10", "MRR"], rows),
    ]
    over = [[gain["over"], gain["host_known"], _signed(gain, "mean", "low", "high")] for gain in result["gains"]]
    lines += ["", "Ours less the others', NDCG@10, paired on the same requests:", ""]
    lines.append(_table(["less", "host", "NDCG@10"], over))
    if reach := result.get("fan_reach"):
        lines += ["", f"Fan reach in {reach['k']:.0f} places: {_interval(reach, 'reach', 'low', 'high')}."]
    if heads := result.get("heads"):
        lines += ["", _heads(heads)]
    skipped = [f"{stage['name']} ({stage['why']})" for stage in result["stages"] if stage["status"] != "passed"]
    if skipped:
        lines += ["", f"Not trained: {'; '.join(skipped)}."]
    if "training_cpu_s" in result:
        lines += ["", f"Training took {result['training_cpu_s']:.0f} s of processor time."]
    return "\n".join(lines)


def ablation_block(record: Record) -> str:
    """All variants with the loss against the blend."""
    result = record["result"]
    rows = [
        [
            row["method"], *(_interval(row, name) for name in ("ndcg", "known", "new")),
            _signed(row, "loss", "loss_low", "loss_high"),
            "" if row["training_cpu_s"] is None else f"{row['training_cpu_s']:.0f}",
        ]
        for row in result["rows"]
    ]  # fmt: skip
    head = ["features", "NDCG@10", "known hosts", "new hosts", "against the blend", "training, CPU s"]
    asked = f"{result['requests']:,} requests by {result['users']:,} users"
    said = f"{asked}; fitted on {result['trained_on']:,} earlier ones."
    return "\n".join([said, "", _table(head, rows)])


def pairs_block(record: Record) -> str:
    """Recall and NDCG of every method of ours on one set of pairs."""
    result = record["result"]
    said = (
        f"{result['train']:,} pairs of {result['users']:,} users and {result['items']:,} items to learn from, "
        f"{result['kept_back']:,} kept back; every unseen item is ranked."
    )
    chosen = result["methods"].get("bench-pairs", {}).get("chosen")
    table = _listed(result["methods"], ("recall", "ndcg"), result["k"])
    return "\n".join([said, "", table, *(["", f"`bench-pairs` chose {chosen}."] if chosen else [])])


def peers_block(cache: Path, name: str) -> str:
    """What `make peers` found on one data set; failed installs and runs say why."""
    path = cache / f"peers-{name}.json"
    if not path.is_file():
        return "Not measured: `make peers DATA=DIR` was not run here."
    found = orjson.loads(path.read_bytes())
    return f"{found['said']}\n\n{_listed(found['methods'], found['metrics'], found['k'])}"


def _listed(methods: Mapping[str, Any], metrics: Sequence[str], k: int) -> str:
    """A row per method: its metrics with intervals, CPU time and memory, or why there is none."""
    titles = {
        "recall": f"Recall@{k}",
        "ndcg": f"NDCG@{k}",
        "hit": "Hit@1",
        "mrr": "MRR",
        "known": "known hosts",
        "new": "new hosts",
    }
    rows = []
    for name, method in methods.items():
        if "error" in method:
            rows.append([name, method["error"], *[""] * (len(metrics) + 1)])
            continue
        of = {metric["metric"]: metric for metric in method["metrics"]}
        shown = [f"{of[m]['mean']:.4f} ({of[m]['low']:.4f}–{of[m]['high']:.4f})" for m in metrics]
        memory = f"{method['peak_memory_mib']:.0f}" if "peak_memory_mib" in method else ""
        rows.append([name, *shown, f"{method['training_cpu_s']:.0f}", memory])
    return _table(["method", *(titles[m] for m in metrics), "training, CPU s", "peak MiB"], rows)


def retail_block(record: Record) -> str:
    """Repurchase at every cut."""
    rows = []
    for cut, result in record["result"].items():
        p = result["probabilities"]
        skill = f"{p['skill']:.4f} ({p['skill_low']:.4f}–{p['skill_high']:.4f})"
        for name, method in result["methods"].items():
            ndcg = f"{method['mean']:.4f} ({method['low']:.4f}–{method['high']:.4f})"
            ours = [skill, f"{p['ece']:.5f}", f"{result['training_s']:.0f}"] if name == "laotie" else ["", "", ""]
            rows.append([cut, name, ndcg, *ours])
    first = next(iter(record["result"].values()))
    asked = f"{first['pairs']:,} pairs of {first['customers']:,} customers"
    said = f"At the first cut {asked}, base rate {first['base_rate']:.4f}."
    head = ["as of", "method", "NDCG@10", "log-loss skill", "calibration error", "wall s"]
    return "\n".join([said, "", _table(head, rows)])


def planted_block(rows: Sequence[Mapping[str, Any]], documents: Sequence[Mapping[str, Any]]) -> str:
    """Kendall's τ: gap closed, then the calibration of each head per world."""
    shown = [
        [
            row["world"], row["pairs"], row["method"], f"{row['memory']:.4f}", f"{row['oracle']:.4f}",
            _interval(row, "tau"), _signed(row, "gain", "gain_low", "gain_high"),
            f"{row['closed']:.0%} ({row['closed_low']:.0%} … {row['closed_high']:.0%})",
            f"{row['below']} of {row['seeds']}",
        ]
        for row in rows
    ]  # fmt: skip
    head = ["world", "pairs", "method", "memory", "oracle", "τ", "gain over memory", "gap closed", "seeds below memory"]
    size, spent = documents[0], [d["training_cpu_s"] for d in documents]
    said = (
        f"{size['users']} users, {size['hosts']} hosts, {size['days']} days; seeds "
        f"{', '.join(str(seed) for seed in sorted({d['seed'] for d in documents}))} of each world; "
        f"training {min(spent):.0f}–{max(spent):.0f} s "
        f"of processor time a world, peak {max(d['peak_memory_mib'] for d in documents):.0f} MiB."
    )
    return "\n".join([said, "", _table(head, shown), "", *_calibration(documents)])


def _calibration(documents: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Every judged head per world: mean over seeds of base rate, skill, error, and in how many seeds it was judged."""
    rows = []
    for world in dict.fromkeys(d["world"] for d in documents):
        metrics = [d["metrics"] for d in documents if d["world"] == world]
        names = {
            key[len("head_") : -len("_skill")] for m in metrics for key in m if re.fullmatch(r"head_\w+_skill", key)
        }
        for name in sorted(names):
            judged = [m for m in metrics if f"head_{name}_skill" in m]
            figures = ("base_rate", "skill", "ece", "ece_chance")
            of = {f: sum(m[f"head_{name}_{f}"] for m in judged) / len(judged) for f in figures}
            rows.append([
                world, name, f"{len(judged)} of {len(metrics)}", f"{of['base_rate']:.4f}", f"{of['skill']:.4f}",
                f"{of['ece']:.4f}", f"{of['ece'] / of['base_rate']:.0%}", f"{of['ece_chance'] / of['base_rate']:.0%}",
            ])  # fmt: skip
    if not rows:
        return []
    head = ["world", "head", "seeds judged", "base rate", "skill", "calibration error", "of the base rate", "by chance"]
    return ["Calibration of the heads on the latest ties of each world, means over seeds:", "", _table(head, rows)]


def _heads(heads: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for head in heads:
        if "skipped" in head:
            rows.append([head["head"], head["skipped"], "", "", "", "", ""])
            continue
        skill = f"{head['skill']:.4f} ({head['skill_low']:.4f}–{head['skill_high']:.4f})"
        rows.append([
            head["head"], f"{head['rows']:,.0f}", f"{head['base_rate']:.5f}", f"{head['auc']:.4f}", skill,
            f"{head['ece']:.5f} ({head['ece'] / head['base_rate']:.0%} of the rate)",
            f"{head['ece_chance'] / head['base_rate']:.0%}",
        ])  # fmt: skip
    return _table(["head", "ties", "base rate", "AUC", "log-loss skill", "calibration error", "by chance"], rows)


def _by_stratum(rows: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], int]:
    order = {key: i for i, key in enumerate(dict.fromkeys((row["stratum"], row["value"]) for row in rows))}
    return lambda row: order[row["stratum"], row["value"]]


def _interval(row: Mapping[str, Any], name: str, low: str | None = None, high: str | None = None) -> str:
    """«0.5000 (0.4000–0.6000)» from `name`, `name_low`, `name_high`, or the two names given."""
    if row[name] is None:
        return ""
    ends = row.get(low or f"{name}_low"), row.get(high or f"{name}_high")
    return f"{row[name]:.4f}" if None in ends else f"{row[name]:.4f} ({ends[0]:.4f}–{ends[1]:.4f})"


def _signed(row: Mapping[str, Any], name: str, low: str, high: str) -> str:
    return f"{row[name]:+.4f} ({row[low]:+.4f} … {row[high]:+.4f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
