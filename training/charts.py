"""The charts of reports, as Vega-Lite specifications made with Altair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.drift import ALARM, LOOK

Rows = Sequence[Mapping[str, Any]]
_WIDTH = 640


def metric_intervals(rows: Rows) -> dict[str, Any]:
    """NDCG@10 per method with its interval; rows: method, ndcg_at_10, ndcg_at_10_low, ndcg_at_10_high."""
    import altair as alt

    base = _chart(rows).encode(y=alt.Y("method:N", title=None))
    bars = base.mark_bar(opacity=0.85, height=18).encode(x=alt.X("ndcg_at_10:Q", title="NDCG@10"), color=_by_method())
    whiskers = base.mark_rule(strokeWidth=2).encode(x="ndcg_at_10_low:Q", x2="ndcg_at_10_high:Q")
    return _spec(bars + whiskers, height=40 * max(len(rows), 1))


def strata(rows: Rows) -> dict[str, Any]:
    """NDCG@10 per value of one stratum and method, with intervals."""
    import altair as alt

    base = _chart(rows).encode(x=alt.X("value:N", title=None, axis=alt.Axis(labelAngle=0)), xOffset="method:N")
    bars = base.mark_bar(opacity=0.85).encode(y=alt.Y("ndcg_at_10:Q", title="NDCG@10"), color=_by_method())
    return _spec(bars + base.mark_rule(strokeWidth=2).encode(y="ndcg_at_10_low:Q", y2="ndcg_at_10_high:Q"), height=220)


def reliability(rows: Rows) -> dict[str, Any]:
    """Said against observed; rows: said, observed, n."""
    import altair as alt

    most = max([0.05, *(max(row["said"], row["observed"]) for row in rows)])
    ends = _chart([{"p": 0.0}, {"p": most}])
    line = ends.mark_line(strokeDash=[4, 4], color="#888").encode(x="p:Q", y="p:Q")
    points = _chart(rows).mark_line(point=True)
    curve = points.encode(
        x=alt.X("said:Q", title="said probability"), y=alt.Y("observed:Q", title="share observed"),
        tooltip=["said:Q", "observed:Q", "n:Q"],
    )  # fmt: skip
    return _spec(line + curve, width=360, height=360)


def histogram(rows: Rows, name: str) -> dict[str, Any]:
    """Counts by value; rows: `name`, n."""
    import altair as alt

    chart = _chart(rows).mark_bar()
    ties = alt.Y("sum(n):Q", title="ties")
    return _spec(chart.encode(x=alt.X(f"{name}:Q", bin=alt.Bin(maxbins=30), title="strength"), y=ties), height=220)


def interval(values: Mapping[str, float], name: str) -> dict[str, Any]:
    """One share with its interval: `name`, low, high."""
    import altair as alt

    base = _chart([values])
    place = alt.X(f"{name}:Q", title=name, scale=alt.Scale(domain=[0, 1]))
    whisker = base.mark_rule().encode(x="low:Q", x2="high:Q")
    return _spec(base.mark_point(size=120, filled=True).encode(x=place) + whisker,
                 height=60)  # fmt: skip


def exposure(rows: Rows) -> dict[str, Any]:
    """Share of each group among the live, in the first places and among the entered; rows: group, side, share, low,
    high."""
    import altair as alt

    groups, sides = (list(dict.fromkeys(row[name] for row in rows)) for name in ("group", "side"))
    base = _chart(rows).encode(
        x=alt.X("group:N", title=None, sort=groups, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("side:N", sort=sides),
    )
    share = alt.Y("share:Q", title="share", axis=alt.Axis(format="%"))
    color = alt.Color("side:N", sort=sides, legend=alt.Legend(title=None, orient="top"))
    bars = base.mark_bar(opacity=0.85).encode(y=share, color=color)
    return _spec(bars + base.mark_rule(strokeWidth=2).encode(y="low:Q", y2="high:Q"), height=220)


def drift(rows: Rows) -> dict[str, Any]:
    """Stability index per feature, the largest first, with the lines of a look and of an alarm; rows: feature, psi."""
    import altair as alt

    chart = _chart(rows[:40])
    bars = chart.mark_bar().encode(
        y=alt.Y("feature:N", sort="-x", title=None), x=alt.X("psi:Q", title="population stability index")
    )
    marks = _chart([{"at": LOOK}, {"at": ALARM}])
    return _spec(bars + marks.mark_rule(strokeDash=[4, 4], color="#b00020").encode(x="at:Q"),
                 height=18 * max(1, min(len(rows), 40)))  # fmt: skip


def quality(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Share of rows used and set aside per table."""
    import altair as alt

    rows = []
    for name, table in tables.items():
        rows.append({"table": name, "what": "used", "n": table["good"]})
        rows += [{"table": name, "what": reason, "n": n} for reason, n in table["quarantined"].items()]
    bars = _chart(rows).mark_bar()
    share = alt.X("n:Q", stack="normalize", title="share of rows", axis=alt.Axis(format="%"))
    return _spec(bars.encode(y=alt.Y("table:N", title=None), x=share, color=alt.Color("what:N", title=None)),
                 height=24 * max(1, len(tables)))  # fmt: skip


def _by_method() -> Any:
    import altair as alt

    return alt.Color("method:N", legend=alt.Legend(title=None, orient="top"))


def _spec(chart: Any, *, height: int, width: int = _WIDTH) -> dict[str, Any]:
    made: dict[str, Any] = chart.properties(width=width, height=height).to_dict()
    return made


def _chart(rows: Rows) -> Any:
    import altair as alt

    return alt.Chart(alt.InlineData(values=[dict(row) for row in rows]))
