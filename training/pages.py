"""The pages of reports: what a build or an evaluation found, section by section, each with a sentence that says what
one sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recsys.models.strength import STRENGTH
from training import charts
from training.broadcasts import judged_line
from training.demand import expected_line
from training.drift import ALARM, LOOK, drift_lines
from training.exposure import GAP
from training.report import Section, page


def evaluation_page(body: Mapping[str, Any]) -> str:
    """The page of an evaluation document (`training.evaluate`)."""
    metrics = list(body["metrics"])
    overall = [row for row in metrics if row["stratum"] == "all"]
    strata = [row for row in metrics if row["stratum"] != "all"]
    sections = [
        Section("Ranking quality", "NDCG@10 over all requests, with 95 % intervals (bootstrap over users), beside the "
                "baselines on the same requests.", charts.metric_intervals(overall), [_shown(row) for row in overall]),
    ]  # fmt: skip
    sections += _of_strata(strata)
    sections += _of_exposure(body)
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
    lead = "Share of a viewer's private domain that is live at a request and shown (k places)."
    sections += _of_reach(body, lead)
    sections += _ends(body)
    title = f"Evaluation: {body.get('requests', 0):,} requests by {body.get('users', 0):,} users"
    return page(title, sections)


def build_page(body: Mapping[str, Any]) -> str:
    """The page of a build: gates, metrics, ties, drift, data quality, as `training.build` collects them."""
    gates = [{"gate": g["name"], "status": g["status"], "value": g["value"], "why": g["why"]} for g in body["gates"]]
    sections = [
        Section("Gates", "A bundle is published only if none has failed; skipped means not measured.", None, gates),
        *_of_ranking(body),
    ]
    sections += _of_heads(body.get("heads", ()))
    if demand := body.get("demand"):
        lead = (
            "Viewers, buyers and orders to expect at the next broadcast of the hosts who may expect most, with 90 % "
            "intervals; all hosts: laotie demand."
        )
        sections.append(Section("Expected demand", lead, None, [expected_line(row) for row in demand]))
    if strengths := body.get("strengths"):
        lead = "How strong the ties of sampled viewers are. Most are weak: people come once and do not return."
        sections.append(Section("Tie strengths now", lead, charts.histogram(strengths, "strength")))
    if drift := body.get("drift"):
        lead = (
            "Population stability index of every tie feature, of what the base's heads say of today's ties, and of "
            "what is known of the candidates of the latest requests (these move with the hour and the weekday), "
            f"against the base bundle: below {LOOK} nothing has moved, from {ALARM} on look before you serve."
        )
        lines = drift_lines(drift)
        sections.append(Section("Drift", lead, charts.drift(lines), lines[:12]))
    if relearnt := body.get("relearnt"):
        lead = (
            "What heads learnt anew say of today's ties, beside the base's: the mean chance, whether the order is the "
            "same (rank correlation), and whether ties are told apart as before (slope of the log-odds, 1: as "
            "before). The level follows what happened on the latest days."
        )
        sections.append(Section("Learnt anew", lead, None, [_of_relearnt(line) for line in relearnt]))
    lead = "Measured on the latest stretch of the data, which training had not seen."
    sections.append(Section("Metrics", lead, None, _pairs(body["metrics"])))
    sections += _ends(body)
    return page(f"Build: {body.get('bundle', '')}", sections)


def _of_ranking(body: Mapping[str, Any]) -> list[Section]:
    """The ranker's trial on the latest requests, beside memory and popularity, for whom it works, and whom it shows."""
    rows = body.get("ranking", ())
    if not rows:
        return []
    overall = [row for row in rows if row["stratum"] == "all"]
    lead = (
        "NDCG@10 of a ranker trained without the latest requests, on these, with 95 % intervals over users. What is "
        "served is trained on all of them. The sections from here to the strength of ties are of the same requests, "
        "with the rooms training knows of them: all that were live, or those the sources bring where many were."
    )
    reach = (
        "Share of the hosts a viewer follows or has bought from, live at a request, whose rooms are among the first k, "
        "by score alone: no place is reserved for newcomers."
    )
    return [
        Section("Ranking quality", lead, charts.metric_intervals(overall), [_shown(row) for row in overall]),
        *_of_strata([row for row in rows if row["stratum"] != "all"]),
        *_of_exposure(body),
        *_of_reach(body, reach),
    ]


def _of_strata(strata: Sequence[Mapping[str, Any]]) -> list[Section]:
    sections = []
    for name, title, lead in _STRATA:
        part = [row for row in strata if row["stratum"] == name]
        if len({row["value"] for row in part}) > 1:  # one value tells nothing of a gap
            sections.append(Section(title, lead, charts.strata(part), [_shown(row) for row in part]))
    return sections


def _of_exposure(body: Mapping[str, Any]) -> list[Section]:
    sections = []
    for question, title, lead in _EXPOSURE:
        if part := [row for row in body.get("exposure", ()) if row["question"] == question]:
            shares = [row for row in part if row["side"] != GAP]
            sections.append(Section(title, lead, charts.exposure(shares), _by_group(part)))
    return sections


def _of_reach(body: Mapping[str, Any], lead: str) -> list[Section]:
    if not (reach := body.get("fan_reach")):
        return []
    rows = [{"places": f"{reach['k']:.0f}", "fan reach (95 %)": _share(reach, "reach")}]
    return [Section("Fan reach", lead, charts.interval(reach, "reach"), rows)]


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


def _of_relearnt(line: Mapping[str, Any]) -> dict[str, str]:
    means = {title: f"{line[name]:.2%}" for title, name in (("mean, base", "then"), ("mean, now", "now"))}
    return {"head": line["head"], **means, "rank correlation": f"{line['order']:.3f}", "slope": f"{line['slope']:.2f}"}


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
