"""Reading configuration: YAML, overrides on top, and every fault at once with its dotted path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson
import yaml
from pydantic import BaseModel, ValidationError

from recsys.config.sections import EngineConfig
from recsys.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound=BaseModel)


def load_config(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> EngineConfig:
    """The engine's config: defaults, over them the YAML file, over it the overrides.

    Args:
        path: YAML file, or None for the defaults alone.
        overrides: nested mappings, or dotted paths such as `{"ties.user_buckets": 128}`.

    Raises:
        ConfigError: unreadable file, broken YAML, or wrong settings: all of them, each with its dotted path.
    """
    return load_config_as(EngineConfig, path, overrides)


def load_config_as(
    config_type: type[ConfigT],
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    secret: Sequence[str] = (),
) -> ConfigT:
    """Same as `load_config` for any config type, such as those of the market simulator and of the service.

    Args:
        secret: sections whose values no message repeats.
    """
    data: dict[str, Any] = {} if path is None else _read_yaml(path)
    for key, value in (overrides or {}).items():
        _put(data, key.split("."), value)
    return parse_config(config_type, data, where=path if path is not None else "settings", secret=secret)


def parse_config(
    config_type: type[ConfigT], data: Mapping[str, Any], *, where: object, secret: Sequence[str] = ()
) -> ConfigT:
    """Check plain data, for example the config stored in a manifest, against a config type.

    Args:
        secret: sections whose values no message repeats.

    Raises:
        ConfigError: all faults at once, each with its dotted path.
    """
    try:
        document = orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise ConfigError(
            "not plain data", where=where, got=str(error), expected="numbers, text, lists, maps"
        ) from error
    try:
        return config_type.model_validate_json(document)
    except ValidationError as error:
        faults = [_fault(config_type, detail, secret) for detail in error.errors(include_url=False)]
        wrong = "a wrong setting" if len(faults) == 1 else f"{len(faults)} wrong settings"
        raise ConfigError(wrong, where=where, got="\n  " + "\n  ".join(faults)) from error


def stored_config(data: Mapping[str, Any], *, where: object) -> EngineConfig:
    """The config a bundle carries. Settings dropped since it was written are ignored, everything else is checked.

    Raises:
        ConfigError: a stored value is no longer allowed.
    """
    known: dict[str, Any] = orjson.loads(orjson.dumps(data))
    try:
        EngineConfig.model_validate_json(orjson.dumps(known))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["type"] == "extra_forbidden":
                holder: Any = known
                for part in detail["loc"][:-1]:
                    holder = holder[part]
                del holder[detail["loc"][-1]]
    return parse_config(EngineConfig, known, where=where)


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """`["ties.user_buckets=128", …]` to overrides; values are read as YAML.

    Raises:
        ConfigError: an entry without `=` or with a broken value.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError("not an assignment", got=repr(assignment), expected="section.field=value")
        overrides[key.strip()] = _parse_yaml(value, where=assignment)
    return overrides


def _put(data: dict[str, Any], path: list[str], value: Any) -> None:
    """Set `value` at the dotted path, merging maps and replacing everything else."""
    for key in path[:-1]:
        inner = data.get(key)
        data[key] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        data = inner
    if isinstance(value, Mapping):
        for key, inner_value in value.items():
            _put(data, [*path, str(key)][-2:], inner_value)
    else:
        data[path[-1]] = value


def _fault(config_type: type[BaseModel], detail: Any, secret: Sequence[str]) -> str:
    location = detail["loc"]
    path = ".".join(str(part) for part in location) or "(whole file)"
    if detail["type"] == "extra_forbidden":
        known = _fields_at(config_type, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        advice = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}" if known else ""
        return f"{path}: unknown setting; {advice}".rstrip("; ")
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    got, hidden = detail["input"], bool(location) and location[0] in secret
    return f"{path}: {message}" + ("" if isinstance(got, dict | list) or hidden else f", got {got!r}")


def _fields_at(config_type: Any, location: tuple[Any, ...]) -> list[str]:
    """Names of the settings of the section at `location`; empty where it is no section."""
    for part in location:
        if isinstance(part, int):
            config_type = getattr(config_type, "__args__", (None,))[0]
        elif isinstance(config_type, type) and issubclass(config_type, BaseModel) and part in config_type.model_fields:
            config_type = config_type.model_fields[part].annotation
        else:
            return []
    if isinstance(config_type, type) and issubclass(config_type, BaseModel):
        return list(config_type.model_fields)
    return []


class _StrictLoader(yaml.SafeLoader):
    """Plain YAML, except that a doubled key is an error and `1e-3` is a number, as everyone expects."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"doubled key {key_node.value}", key_node.start_mark
                )
            seen.add(str(key_node.value))
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _parse_yaml(text: str, where: object) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError("not valid YAML", where=where, got=" ".join(str(error).split())) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config file cannot be read", where=path, got=str(error)) from error
    data = _parse_yaml(text, where=path)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            "not a map of sections", where=path, got=type(data).__name__, expected="section: {field: value}"
        )
    return data
