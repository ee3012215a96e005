"""A report as one HTML file that needs no network; what is on it: `training.pages`.

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
