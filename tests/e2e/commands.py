"""The command line as a user would type it, and event tables as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import polars as pl
import typer
from typer.testing import CliRunner, Result

from recsys.cli import build_app

OUT_COLUMNS = ["request_id", "rank", "room_id", "host_id", "score", "strength"]
"""Of what `replay` writes, in order."""


def laotie(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def done(*arguments: object) -> Any:
    result = laotie(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return orjson.loads(result.stdout)


def refused(*arguments: object, code: int = 3) -> str:
    result = laotie(*arguments)
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr and result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("laotie: ")]
    assert len(lines) == 1
    return lines[0]


def commands_with(option: str) -> set[str]:
    """Names of the commands that have an option."""
    commands = typer.main.get_group(build_app()).commands
    return {name for name, command in commands.items() if any(option in one.opts for one in command.params)}


def tables(folder: Path) -> dict[str, pl.DataFrame]:
    names = sorted({p.name.removesuffix(".parquet") for p in folder.iterdir() if not p.name.startswith("_")})
    found = {}
    for name in names:
        path = folder / f"{name}.parquet"
        found[name] = pl.read_parquet(path if path.is_file() else folder / name / "**" / "*.parquet")
    return found


def write(folder: Path, frames: dict[str, pl.DataFrame]) -> Path:
    folder.mkdir(parents=True)
    for name, frame in frames.items():
        frame.write_parquet(folder / f"{name}.parquet")
    return folder
