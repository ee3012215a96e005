"""The files of operations speak of metrics and options that exist."""

from __future__ import annotations

import json
import re
import tomllib
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


def test_what_differs_from_worker_to_worker_bears_its_number(market: Path) -> None:
    with Engine.open(market / "bundles", None) as engine:
        pages = [Measures(worker).text(engine).decode() for worker in (0, 1)]
    own = [line for line in pages[0].splitlines() if line.startswith(("laotie_stream", "laotie_short"))]
    assert len(own) >= 6 and all('worker="0"' in line for line in own)
    assert all(line not in pages[1] for line in own)


@pytest.mark.parametrize("name", ["alerts.yaml", "grafana.json"])
def test_every_metric_named_is_exposed(exposed: set[str], name: str) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    document = yaml.safe_load(text) if name.endswith("yaml") else json.loads(text)
    assert document
    used = set(re.findall(r"laotie_\w+", text))
    assert used and used - exposed == set()


def test_every_alert_is_in_the_runbook_and_every_panel_shows_something() -> None:
    alerts = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    runbook = (DEPLOY.parent / "docs" / "runbook.md").read_text(encoding="utf-8")
    missing = [rule["alert"] for rule in rules if f"**{rule['alert']}**" not in runbook]
    assert rules and missing == []
    assert all((DEPLOY.parent / rule["annotations"]["runbook"]).is_file() for rule in rules)
    panels = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))["panels"]
    assert all("laotie_" in target["expr"] for panel in panels for target in panel["targets"])
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_container_copies_what_it_installs() -> None:
    lines = (DEPLOY / "Containerfile").read_text(encoding="utf-8").splitlines()
    copied = {part for line in lines if line.startswith("COPY ") for part in line.split()[1:-1]}
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert needed | set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == copied
    extras = next(re.findall(r"\.\[(.*?)\]", line)[0] for line in lines if "pip install" in line).split(",")
    assert set(extras) <= set(project["project"]["optional-dependencies"])
    command = json.loads(next(line.removeprefix("CMD ") for line in lines if line.startswith("CMD ")))
    shown = CliRunner().invoke(build_app(), [command[1], "--help"]).stdout
    assert command[0] == "laotie" and all(part in shown for part in command if part.startswith("--"))


def test_the_unit_and_the_container_call_commands_that_exist() -> None:
    unit = (DEPLOY / "laotie.service").read_text(encoding="utf-8")
    for command, options in re.findall(r"bin/laotie (\S+) (.*)", unit):
        shown = CliRunner().invoke(build_app(), [command, "--help"]).stdout
        assert all(option in shown for option in re.findall(r"--\w+", options))
    assert ".[serve,stream]" in (DEPLOY / "Containerfile").read_text(encoding="utf-8")
