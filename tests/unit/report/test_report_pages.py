"""Reports: every chart is drawn, nothing comes from a network, data cannot break out of its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from tests.conftest import Built
from tests.in_browser import FOR_WHOM, NEEDS_BROWSER, drawn_in_a_browser, sections_of
from training import charts
from training.pages import build_page, evaluation_page
from training.report import Section, page, write_report


def row(method: str, stratum: str, value: str, ndcg: float) -> dict[str, Any]:
    return {"method": method, "stratum": stratum, "value": value, "share": 0.5, "requests": 100, "ndcg_at_10": ndcg,
            "ndcg_at_10_low": ndcg - 0.02, "ndcg_at_10_high": ndcg + 0.02, "hit_at_1": 0.3, "hit_at_10": 0.8,
            "mrr": 0.5}  # fmt: skip


QUALITY = {"tables": {"watches": {"rows": 10, "good": 8, "quarantined": {"null_key": 2}}}}
STAGES = [{"name": "ranker", "status": "skipped", "why": "<script>alert(1)</script>"}]
CURVE = [{"said": 0.1 * i, "observed": 0.1 * i + 0.01, "n": 50.0} for i in range(8)]
HEADS = [
    {
        "head": "strength",
        "means": "enters",
        "rows": 1000.0,
        "base_rate": 0.1,
        "auc": 0.7,
        "skill": 0.2,
        "skill_low": 0.1,
        "skill_high": 0.3,
        "ece": 0.01,
        "ece_chance": 0.005,
        "reliability": CURVE,
    },
    {"head": "buys", "means": "buys", "skipped": "no event tells of an order"},
]
JUDGED = {
    "quantity": "viewers", "hosts": 40, "expected": 81.25, "observed": 80.0, "ratio": 0.985, "ratio_low": 0.9,
    "ratio_high": 1.07, "rank_correlation": 0.8, "rank_correlation_last": 0.7, "gain": 0.1, "gain_low": 0.05,
    "gain_high": 0.15, "covered": 0.91, "deciles": [{"said": 1.0, "observed": 1.1, "n": 4}],
}  # fmt: skip
EVALUATION: dict[str, Any] = {
    "demand": [JUDGED, {"quantity": "orders", "skipped": "no order"}],
    "requests": 1234,
    "users": 99,
    "metrics": [
        row(method, stratum, value, ndcg)
        for method, ndcg in (("laotie", 0.6), ("memory", 0.5), ("popularity", 0.3))
        for stratum, value in (
            ("all", "all"),
            ("host_known", "known"),
            ("host_known", "unknown"),
            ("city", "1"),
            ("city", "2"),
        )
    ],
    "heads": HEADS,
    "exposure": [
        {"question": question, "group": group, "side": side, "share": 0.4, "low": 0.3, "high": 0.5}
        for question, group in (
            ("repeat and explore", "known hosts"),
            ("host size", "small hosts"),
            ("city tier", "tier 1"),
            ("city tier", "tier 2"),
        )
        for side in ("live", "first places", "entered", "gap")
    ],
    "fan_reach": {"reach": 0.95, "low": 0.9, "high": 0.97, "k": 20.0},
    "quality": QUALITY,
    "stages": STAGES,
}
BUILD: dict[str, Any] = {
    "bundle": "b</script><b>",
    "gates": [{"name": "g", "status": "failed", "value": 0.3, "why": "too large"}],
    "metrics": {"ranker_ndcg_at_10": 0.5},
    "ranking": [
        row(method, stratum, value, 0.5)
        for method in ("ranker", "memory")
        for stratum, value in (
            ("all", "all"),
            ("host_known", "known"),
            ("host_known", "new"),
            ("city", "1"),
            ("city", "2"),
        )
    ],
    "exposure": EVALUATION["exposure"],
    "fan_reach": EVALUATION["fan_reach"],
    "heads": HEADS,
    "strengths": [{"strength": 0.01, "n": 70}, {"strength": 0.5, "n": 3}],
    "drift": {"tie_entries": 0.02, "strength": 0.3},
    "demand": [{"host_id": "<b>", "ties": 9, "viewers": 3.2, "viewers_low": 1.0, "viewers_high": 6.0}],
    "quality": QUALITY,
    "stages": STAGES,
}
ROWS = [row("laotie", "all", "all", 0.5), row("memory", "all", "all", 0.4)]


@pytest.mark.parametrize(
    ("spec", "marks"),
    [
        (charts.metric_intervals(ROWS), 2),
        (charts.strata(ROWS), 2),
        (charts.reliability(CURVE), 8),
        (charts.histogram(BUILD["strengths"], "strength"), 2),
        (charts.exposure([row for row in EVALUATION["exposure"] if row["question"] == "city tier"]), 6),
        (charts.interval(EVALUATION["fan_reach"], "reach"), 1),
        (charts.drift([{"feature": "a", "psi": 0.2}, {"feature": "b", "psi": 0.1}]), 2),
        (charts.quality(QUALITY["tables"]), 2),
    ],
    ids=["metrics", "strata", "reliability", "strengths", "exposure", "reach", "drift", "quality"],
)
def test_a_chart_draws_its_data(spec: dict[str, Any], marks: int) -> None:
    drawn = vl_convert.vegalite_to_svg(spec)
    assert drawn.count('aria-roledescription="bar"') + drawn.count('aria-roledescription="point"') >= marks
    assert "NaN" not in drawn


PAGES = [(evaluation_page, EVALUATION, 10), (build_page, BUILD, 12)]


@pytest.mark.parametrize(("make", "body", "n_charts"), PAGES, ids=["evaluation", "build"])
def test_a_page_holds_everything(make: Any, body: dict[str, Any], n_charts: int) -> None:
    text = make(body)
    assert text.count("<div class='chart'") == text.count("vegaEmbed('#chart") == n_charts
    markup = text.partition("<script")[0]
    assert (
        not re.search(r"(src|href)=|@import|url\(", markup) and "<script type='module'>" in text
    )  # nothing is fetched
    assert "<script>alert(1)" not in text and "b</script><b>" not in text
    assert text.count("</script>") == 1
    assert len(text) < 2_000_000


def test_gaps_between_groups_of_hosts_are_read_off_one_line() -> None:
    text = evaluation_page(EVALUATION)
    town = text.partition("Exposure by city tier")[2].partition("<h2>")[0]
    assert re.search(r"<td class=''>tier 2</td>(<td class=''>40.0% \(30.0% … 50.0%\)</td>){3}"
                     r"<td class=''>\+40.0% \(\+30.0% … \+50.0%\)</td>", town)  # fmt: skip
    assert '"gap"' not in town  # the chart shows shares


def test_text_in_charts_cannot_close_the_script() -> None:
    text = page("t", [Section("s", "l", {"data": {"values": [{"a": "</script><script>alert(1)"}]}})])
    assert text.count("</script>") == 1


def test_a_missing_extra_is_no_error(tmp_path: Path) -> None:
    def make(body: Any) -> str:
        raise ModuleNotFoundError("No module named 'altair'", name="altair")

    assert not write_report(tmp_path / "r.html", make, {})
    assert write_report(tmp_path / "r.html", lambda _: "老铁", {})
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == "老铁"


@NEEDS_BROWSER
@pytest.mark.parametrize(("make", "body", "n_charts"), PAGES, ids=["evaluation", "build"])
def test_a_browser_draws_every_chart(make: Any, body: dict[str, Any], n_charts: int, tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text(make(body), encoding="utf-8")
    drawn_in_a_browser(tmp_path / "r.html", n_charts)


def test_the_report_of_a_build_says_for_whom_it_works(built: Built) -> None:
    report = built.bundles / built.document["bundle"] / "report.html"
    assert (FOR_WHOM | {"Reliability: strength", "Tie strengths now"}) - set(sections_of(report)) == set()


@NEEDS_BROWSER
def test_a_browser_draws_every_chart_of_a_build(built: Built) -> None:
    drawn_in_a_browser(built.bundles / built.document["bundle"] / "report.html")
