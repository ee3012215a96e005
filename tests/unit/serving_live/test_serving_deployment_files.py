"""The files of operations speak of metrics and options that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from recsys.cli import build_app
from serving.engine import Engine
from serving.measures import Measures

DEPLOY = Path(__file__).parents[3] / "deploy"


@pytest.fixture(scope="module")
def exposed(market: Path) -> set[str]:
    with Engine.open(market / "bundles", None) as engine:
        page = Measures().text(engine).decode()
    named = set(re.findall(r"^# TYPE (\S+) \w+", page, re.MULTILINE))
    return named | {f"{name}_{end}" for name in named for end in ("bucket", "total")}


@pytest.mark.parametrize("name", ["alerts.yaml", "grafana.json"])
def test_every_metric_named_is_exposed(exposed: set[str], name: str) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    document = yaml.safe_load(text) if name.endswith("yaml") else json.loads(text)
    assert document
    used = set(re.findall(r"laotie_\w+", text))
    assert used and used - exposed == set()


def test_the_unit_and_the_container_call_commands_that_exist() -> None:
    unit = (DEPLOY / "laotie.service").read_text(encoding="utf-8")
    for command, options in re.findall(r"bin/laotie (\S+) (.*)", unit):
        shown = CliRunner().invoke(build_app(), [command, "--help"]).stdout
        assert all(option in shown for option in re.findall(r"--\w+", options))
    assert ".[serve,stream]" in (DEPLOY / "Containerfile").read_text(encoding="utf-8")
