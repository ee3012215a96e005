"""Config: defaults in code, YAML over them, overrides over it, and every fault named at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from recsys.config import EngineConfig, GateRule, Section, load_config, load_config_as, parse_overrides, stored_config
from recsys.errors import ConfigError
from recsys.instants import format_instant, parse_instant


def yaml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_layers_default_file_override(tmp_path: Path) -> None:
    assert load_config() == EngineConfig()
    path = yaml(tmp_path, "ties: {user_buckets: 8}\npipeline: {k: 5, sources: {popular: 7}}\n")
    config = load_config(path, {"pipeline.k": 6, "pipeline": {"sources": {"nearest": 9}}})
    assert (config.ties.user_buckets, config.ties.product_slot_s) == (8, 360.0)
    assert (config.pipeline.k, config.pipeline.sources.popular, config.pipeline.sources.nearest) == (6, 7, 9)
    assert load_config(yaml(tmp_path, "# nothing\n")) == EngineConfig()


def test_every_fault_is_named_at_once_with_its_path(tmp_path: Path) -> None:
    path = yaml(
        tmp_path,
        "ties: {user_buckets: 48}\n"
        "build: {seed: true, threads: '2', sed: 1}\n"
        "pipeline: {explore_share: .nan, sources: {neares: 1}}\n"
        "gates:\n- {name: a, metric: m}\n- {name: b, metric: m, minimum: 2, maximum: 1}\n"
        "- {nam: c, metric: m, minimum: 1}\n"
        "colour: red\n",
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    for line in (
        "ties.user_buckets: must be a power of two, got 48",
        "build.seed: should be a valid integer, got True",
        "build.threads: should be a valid integer, got '2'",
        "build.sed: unknown setting; did you mean seed?",
        "pipeline.explore_share:",
        "pipeline.sources.neares: unknown setting; did you mean nearest?",
        "gates.0: needs a minimum, a maximum or both",
        "gates.1: minimum lies above maximum",
        "gates.2.name: Field required",
        "gates.2.nam: unknown setting; did you mean name?",
        "colour: unknown setting; known here: ties, ",
    ):
        assert f"\n  {line}" in message
    assert str(path) in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ties: {user_buckets: 8}\nties: {user_buckets: 16}", "doubled key ties"),
        ("ties: {user_buckets: 8, user_buckets: 16}", "doubled key user_buckets"),
        ("ties: [", "not valid YAML"),
        ("- 1", "not a map of sections"),
        ("ties: 3", "ties: "),
        ("1: 2", "1: unknown setting"),
        (
            "gates: [{name: a, metric: m, minimum: 1}, {name: a, metric: n, minimum: 1}]",
            "gates: gate names must differ",
        ),
        ("x: !!python/object/apply:os.system [true]", "not valid YAML"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(yaml(tmp_path, text))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "latin.yaml")


def test_overrides_are_read_as_yaml() -> None:
    overrides = parse_overrides(["pipeline.explore_share=1e-3", "ties.user_buckets=8", "build.seed = 3"])
    config = load_config(None, overrides)
    assert (config.pipeline.explore_share, config.ties.user_buckets, config.build.seed) == (0.001, 8, 3)
    for wrong in ("ties.user_buckets", "=3", "a=["):
        with pytest.raises(ConfigError):
            parse_overrides([wrong])
    with pytest.raises(ConfigError, match="ties.bucket"):
        load_config(None, {"ties.bucket": 1})


def test_config_is_frozen() -> None:
    config = EngineConfig()
    with pytest.raises(ValidationError):
        config.ties.user_buckets = 3  # type: ignore[misc]


def test_what_a_bundle_stores_comes_back() -> None:
    config = load_config(None, {"ties.user_buckets": 8, "gates": [{"name": "g", "metric": "m", "minimum": 0.5}]})
    stored = config.model_dump(mode="json")
    stored["pipeline"]["sources"]["dropped"] = {"since": 1}
    stored["dropped"] = 1
    assert stored_config(stored, where="bundle") == config
    assert config.gates == (GateRule(name="g", metric="m", minimum=0.5),)


def test_other_config_types_load_the_same_way(tmp_path: Path) -> None:
    class World(Section):
        name: str = "w"

    assert load_config_as(World, yaml(tmp_path, "name: x")).name == "x"
    with pytest.raises(ConfigError, match="nme: unknown setting; did you mean name"):
        load_config_as(World, yaml(tmp_path, "nme: x"))


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01", 1_000_000),
        ("1970-01-01T08:00:00+08:00", 0),
        (" 1970-01-01T00:00:00.000001Z ", 1),
        ("1969-12-31T23:59:59.999999Z", -1),
    ],
)
def test_instants(text: str, us: int) -> None:
    assert parse_instant(text) == us
    assert parse_instant(format_instant(us)) == us


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01", "1700000000000", "2026-05-01T25:00"])
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--at.*ISO 8601"):
        parse_instant(text, where="--at")
