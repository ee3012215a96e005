"""The report of a build or an evaluation: one HTML file that needs no network.

Charts are Altair specifications drawn by Vega, whose code is put into the page (extra `report`: altair, vl-convert).
Every section says in a sentence what one sees. Text from data is escaped; specifications cannot close the script they
are in.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from recsys.models.strength import STRENGTH
from training import charts
from training.broadcasts import judged_line
from training.demand import expected_line
from training.drift import ALARM, LOOK, drift_lines
from training.exposure import GAP

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; border-top: 1px solid #ddd; padding-top: 1em; }
table { border-collapse: collapse; font-size: 14px; } th, td { padding: 3px 12px 3px 0; text-align: left; }
th { border-bottom: 1px solid #999; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
p.lead { color: #444; } .failed { color: #b00020; } .chart { margin: 1em 0; }
"""


@dataclass(frozen=True)
class Section:
    """A headline, a sentence that says what one sees, a chart (Vega-Lite) or none, a table or none."""

    title: str
    lead: str
    chart: dict[str, Any] | None = None
    rows: Sequence[Mapping[str, Any]] = ()


def evaluation_page(body: Mapping[str, Any]) -> str:
    """The page of an evaluation document (`training.evaluate`)."""
    metrics = list(body["metrics"])
    overall = [row for row in metrics if row["stratum"] == "all"]
    strata = [row for row in metrics if row["stratum"] != "all"]
    sections = [
        Section("Ranking quality", "NDCG@10 over all requests, with 95 % intervals (bootstrap over users), beside the "
                "baselines on the same requests.", charts.metric_intervals(overall), [_shown(row) for row in overall]),
    ]  # fmt: skip
    for name, title, lead in _STRATA:
        part = [row for row in strata if row["stratum"] == name]
        if len({row["value"] for row in part}) > 1:  # one value tells nothing of a gap
            sections.append(Section(title, lead, charts.strata(part), [_shown(row) for row in part]))
    for question, title, lead in _EXPOSURE:
        if part := [row for row in body.get("exposure", ()) if row["question"] == question]:
            shares = [row for row in part if row["side"] != GAP]
            sections.append(Section(title, lead, charts.exposure(shares), _by_group(part)))
    sections += _of_heads(body.get("heads", ()))
    if judged := [row for row in body.get("demand", ()) if "skipped" not in row]:
        lead = (
            "Totals of the next broadcast of every host after the cut: expected against observed, and the rank "
            "correlation with what came beside that of the mean of the host's last five broadcasts."
        )
        sections.append(Section("Expected demand", lead, None, [judged_line(row) for row in judged]))
        for row in judged:
            lead = f"Mean {row['quantity']} a broadcast, hosts in tenths by what was expected of them."
            sections.append(Section(f"Demand: {row['quantity']}", lead, None, row["deciles"]))
    if reach := body.get("fan_reach"):
        lead = "Share of a viewer's private domain that is live at a request and shown (k places)."
        rows = [{"places": f"{reach['k']:.0f}", "fan reach (95 %)": _share(reach, "reach")}]
        sections.append(Section("Fan reach", lead, charts.interval(reach, "reach"), rows))
    sections += _ends(body)
    title = f"Evaluation: {body.get('requests', 0):,} requests by {body.get('users', 0):,} users"
    return page(title, sections)


def build_page(body: Mapping[str, Any]) -> str:
    """The page of a build: gates, metrics, ties, drift, data quality, as `training.build` collects them."""
    gates = [{"gate": g["name"], "status": g["status"], "value": g["value"], "why": g["why"]} for g in body["gates"]]
    sections = [
        Section("Gates", "A bundle is published only if none has failed; skipped means not measured.", None, gates),
        *_of_ranking(body.get("ranking", ())),
        Section("Metrics", "Measured on the latest stretch of the data, which training had not seen.", None,
                _pairs(body["metrics"])),
    ]  # fmt: skip
    sections += _of_heads(body.get("heads", ()))
    if demand := body.get("demand"):
        lead = (
            "Viewers, buyers and orders to expect at the next broadcast of the hosts who may expect most, with 90 % "
            "intervals; all hosts: laotie demand."
        )
        sections.append(Section("Expected demand", lead, None, [expected_line(row) for row in demand]))
    if strengths := body.get("strengths"):
        lead = "How strong the ties of sampled viewers are. Most are weak: people come once and do not return."
        sections.append(Section("Tie strengths", lead, charts.histogram(strengths, "strength")))
    if drift := body.get("drift"):
        lead = ("Population stability index of every tie feature and every head's chance against the base bundle: "
                f"below {LOOK} nothing has moved, from {ALARM} on look before you serve.")  # fmt: skip
        lines = drift_lines(drift)
        sections.append(Section("Drift", lead, charts.drift(lines), lines[:12]))
    sections += _ends(body)
    return page(f"Build: {body.get('bundle', '')}", sections)


def _of_ranking(rows: Sequence[Mapping[str, Any]]) -> list[Section]:
    """The ranker's trial on the latest requests, beside memory and popularity, for all and by known and new hosts."""
    if not rows:
        return []
    overall = [row for row in rows if row["stratum"] == "all"]
    strata = [row for row in rows if row["stratum"] != "all"]
    lead = (
        "NDCG@10 of a ranker trained without the latest requests, on these, with 95 % intervals over users. What is "
        "served is trained on all of them, with teachers."
    )
    known = "The same requests by whether the viewer knew the host he entered."
    return [
        Section("Ranking quality", lead, charts.metric_intervals(overall), [_shown(row) for row in overall]),
        Section("Known and unknown hosts", known, charts.strata(strata), [_shown(row) for row in strata]),
    ]


def page(title: str, sections: Sequence[Section]) -> str:
    """One HTML document with everything in it.

    Raises:
        ModuleNotFoundError: the extra `report` is not installed.
    """
    import vl_convert

    drawn: list[str] = []
    parts = []
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2><p class='lead'>{html.escape(section.lead)}</p>")
        if section.chart is not None:
            parts.append(f"<div class='chart' id='chart{len(drawn)}'></div>")
            drawn.append(
                orjson.dumps(section.chart, option=orjson.OPT_SERIALIZE_NUMPY).decode().replace("<", "\\u003c")
            )
        if section.rows:
            parts.append(_table(section.rows))
    calls = "".join(
        f"vegaEmbed('#chart{i}', {spec}, {{actions: false, renderer: 'svg'}});\n" for i, spec in enumerate(drawn)
    )
    code: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    bundle = code.replace("</script", "<\\/script")
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>{''.join(parts)}"
        f"<script type='module'>{bundle}\n{calls}</script></body></html>"
    )


def write_report(path: Path, make: Callable[[Mapping[str, Any]], str], body: Mapping[str, Any]) -> bool:
    """Write the page of a document; without the extra `report` nothing is written.

    Returns:
        whether there is a page.
    """
    try:
        text = make(body)
    except ModuleNotFoundError as missing:
        if missing.name not in ("altair", "vl_convert"):
            raise
        logging.getLogger(__name__).info("no report: %s is not installed (extra report)", missing.name)
        return False
    path.write_text(text, encoding="utf-8")
    return True


_STRATA = (
    ("host_known", "Known and unknown hosts", "Requests that led to a host the viewer knew, and to one he did not."),
    ("followed", "Followed hosts", "Requests that led to a followed host, and the others."),
    ("tie_age", "Age of the tie", "By the time since the viewer was last with the host."),
    (
        "host_size",
        "Small and large hosts",
        "The gap between small and large hosts: small ones must not be worse served.",
    ),
    ("city", "Town and country", "The gap between city tiers of the viewers."),
)


_REPEAT = (
    "Shares of hosts the viewer knows and of new ones: among the rooms live, in the first ten places, and among the "
    "rooms entered. First places far above what is entered repeat too much."
)
_SIZES = (
    "Who gets the first ten places, beside who is live and who is entered. The gap is first places less entered: small "
    "hosts with a gap below zero are shown too little."
)
_TIERS = (
    "The same by the city tier of the host: equal rights for town and country. Hosts of a tier with a gap below zero "
    "are shown less than viewers enter them."
)
_EXPOSURE = (
    ("repeat and explore", "Repeat and explore", _REPEAT),
    ("host size", "Exposure by host size", _SIZES),
    ("city tier", "Exposure by city tier", _TIERS),
)


def _of_heads(heads: Sequence[Mapping[str, Any]]) -> list[Section]:
    """What the heads say of ties and how true it is: one table, and a curve of each."""
    if not heads:
        return []
    lead = (
        "Does 0.3 mean that three in ten did? On later ties: skill is against saying the base rate of everybody; what "
        "flawless probabilities would show as calibration error on as many ties is «by chance»."
    )
    sections = [Section("Strength of ties", lead, None, [_of_head(head) for head in heads])]
    for head in heads:
        if curve := head.get("reliability"):
            lead = f"Said probability that a viewer {head['means']}, against the share that did; on the line is right."
            sections.append(Section(f"Reliability: {head['head']}", lead, charts.reliability(curve)))
            if head["head"] == STRENGTH:
                spread = "How many of the judged ties have which strength."
                sections.append(Section("Tie strengths", spread, charts.histogram(curve, "said")))
    return sections


def _ends(body: Mapping[str, Any]) -> list[Section]:
    sections = []
    if quality := body.get("quality"):
        rows = [
            {"table": name, "rows": table["rows"], "used": table["good"],
             "set aside": ", ".join(f"{reason} {n}" for reason, n in table["quarantined"].items()) or "none"}
            for name, table in quality["tables"].items()
        ]  # fmt: skip
        lead = "Rows read, and the share set aside with its reasons; every other row is used."
        sections.append(Section("Data quality", lead, charts.quality(quality["tables"]), rows))
    if stages := body.get("stages"):
        sections.append(Section("Stages", "What was trained; what was skipped says why.", None, stages))
    return sections


def _pairs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of a table of metrics, with intervals in words a person reads."""
    line: dict[str, Any] = {"method": row["method"], "of": row["value"], "requests": row["requests"]}
    for name, title in (
        ("ndcg_at_10", "NDCG@10 (95 %)"),
        ("hit_at_1", "Hit@1"),
        ("hit_at_10", "Hit@10"),
        ("mrr", "MRR"),
    ):
        if row.get(name) is not None:
            low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
            with_ends = name == "ndcg_at_10" and low is not None and high is not None
            line[title] = f"{row[name]:.3f} ({low:.3f}–{high:.3f})" if with_ends else f"{row[name]:.3f}"
    return line


def _of_head(head: Mapping[str, Any]) -> dict[str, str]:
    """A line of the table of heads; columns that were not measured stay empty."""
    shown = {"ties": "{rows:,.0f}", "base rate": "{base_rate:.2%}", "AUC": "{auc:.3f}",
             "skill (95 %)": "{skill:.3f} ({skill_low:.3f}–{skill_high:.3f})", "calibration error": "{ece:.2%}",
             "by chance": "{ece_chance:.2%}"}  # fmt: skip
    line = {"head": head["head"], "chance that the viewer": head.get("means", "")}
    for title, form in shown.items():
        line[title] = "" if "skipped" in head else form.format_map(head)
    return line | {"not judged": head.get("skipped", "")}


def _by_group(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line of each group of hosts, a column of each side."""
    lines: dict[str, dict[str, Any]] = {}
    for row in rows:
        sign = "+" if row["side"] == GAP else ""
        shares = (format(row[name], f"{sign}.1%") for name in ("share", "low", "high"))
        lines.setdefault(row["group"], {"hosts": row["group"]})[f"{row['side']} (95 %)"] = "{} ({} … {})".format(
            *shares
        )
    return list(lines.values())


def _share(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.1%} ({row['low']:.1%}–{row['high']:.1%})"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in rows[0])
    lines = []
    for row in rows:
        cells = []
        for value in row.values():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            text = f"{value:,.4f}" if isinstance(value, float) else f"{value:,}" if number else str(value)
            kind = "number" if number else "failed" if value == "failed" else ""
            cells.append(f"<td class='{kind}'>{html.escape('' if value is None else text)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
