"""A report as a person sees it: opened in headless Chromium."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MARKS = "g.mark-rect path, g.mark-symbol path, g.mark-rule line, g.mark-line path"
BOXES = """(svg, marks) => [...svg.querySelectorAll(marks)].map(mark => mark.getBoundingClientRect())
    .filter(box => box.width + box.height > 1).length"""


NEEDS_BROWSER = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on this machine: apt-get install chromium (docs/results.md)"
)


FOR_WHOM = {
    "Ranking quality", "Known and unknown hosts", "Followed hosts", "Age of the tie", "Small and large hosts",
    "Town and country", "Repeat and explore", "Exposure by host size", "Exposure by city tier", "Fan reach",
    "Data quality",
}  # fmt: skip
"""Sections of every report on a market with follows, orders and city tiers."""


def sections_of(report: Path) -> list[str]:
    """The headlines of a report."""
    return re.findall("<h2>(.*?)</h2>", report.read_text(encoding="utf-8").partition("<script")[0])


def drawn_in_a_browser(report: Path, n_charts: int | None = None) -> None:
    """Every chart has marks of visible size, nothing is fetched, nothing is reported wrong.

    Args:
        n_charts: how many; None: as many as the page has places for.
    """
    from playwright.sync_api import sync_playwright

    if n_charts is None:
        n_charts = report.read_text(encoding="utf-8").count("<div class='chart'")
    wrong: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": 1100, "height": 900})
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
        opened.goto(f"file://{report}")
        opened.wait_for_function(f"document.querySelectorAll('.chart svg').length == {n_charts}")
        drawn = [svg.evaluate(BOXES, MARKS) for svg in opened.query_selector_all(".chart svg")]
        overflow = opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        browser.close()
    assert wrong == []
    assert len(drawn) == n_charts and min(drawn) >= 1
    assert overflow <= 0, "the page is wider than the window"
