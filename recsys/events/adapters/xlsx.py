"""Rows of an `.xlsx` workbook, one after the other, with the standard library.

Only what a table of data needs: shared and inline text, numbers, and nothing of styles; a date comes as the number of
days it is stored as (`from_serial`). Sheets are read in the order of their files; memory holds the shared texts.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

from recsys.errors import InputRefused

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_SHEET = re.compile(r"xl/worksheets/sheet(\d+)\.xml")
_DAY_ZERO = datetime(1899, 12, 30)


def sheet_rows(path: Path) -> Iterator[list[str | None]]:
    """The cells of all sheets, row by row, as text; every sheet begins with its own header row.

    Raises:
        InputRefused: the file is no workbook, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as book:
            names = [(int(found[1]), name) for name in book.namelist() if (found := _SHEET.fullmatch(name))]
            if not names:
                raise InputRefused("a workbook without a sheet", where=path)
            texts = _shared_texts(book)
            for _, name in sorted(names):
                with book.open(name) as sheet:
                    for _, element in ElementTree.iterparse(sheet):
                        if element.tag == f"{_MAIN}row":
                            yield _cells(element, texts)
                            element.clear()
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, IndexError, ValueError, EOFError, OSError) as error:
        raise InputRefused("a workbook cannot be read", where=path, got=error, expected="a complete .xlsx") from error


def from_serial(text: str) -> datetime | None:
    """A stored date (days since 1899-12-30, with the time of day as a fraction), to the second; None if it is none."""
    try:
        return _DAY_ZERO + timedelta(seconds=round(float(text) * 86_400))
    except (ValueError, OverflowError):
        return None


def _shared_texts(book: zipfile.ZipFile) -> list[str]:
    texts: list[str] = []
    if "xl/sharedStrings.xml" in book.namelist():
        with book.open("xl/sharedStrings.xml") as shared:
            for _, element in ElementTree.iterparse(shared):
                if element.tag == f"{_MAIN}si":
                    texts.append(_text_of(element))
                    element.clear()
    return texts


def _cells(row: ElementTree.Element, texts: list[str]) -> list[str | None]:
    cells: list[str | None] = []
    for cell in row.iter(f"{_MAIN}c"):
        at = _column(cell.get("r", "")) if cell.get("r") else len(cells)
        cells += [None] * (at + 1 - len(cells))
        value = cell.find(f"{_MAIN}v")
        match cell.get("t"):
            case "s":
                cells[at] = None if value is None else texts[int(value.text or "")]
            case "inlineStr":
                cells[at] = _text_of(cell)
            case _:
                cells[at] = None if value is None else value.text
    return cells


def _text_of(element: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in element.iter(f"{_MAIN}t"))


def _column(reference: str) -> int:
    """`A1` → 0, `AB7` → 27."""
    number = 0
    for letter in reference:
        if not letter.isalpha():
            break
        number = number * 26 + ord(letter.upper()) - ord("A") + 1
    return number - 1
