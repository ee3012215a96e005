"""Typed configuration: sections with their defaults, and how YAML becomes one of them."""

from recsys.config.loading import load_config, load_config_as, parse_config, parse_overrides, stored_config
from recsys.config.sections import (
    DEFAULT_GATES,
    AffinityConfig,
    BuildConfig,
    DemandConfig,
    EngineConfig,
    GateRule,
    HeadsConfig,
    PipelineConfig,
    ProbabilityConfig,
    RankerConfig,
    Section,
    SourceSizes,
    StrengthConfig,
    TiesConfig,
    TowerConfig,
)

__all__ = [
    "DEFAULT_GATES",
    "AffinityConfig",
    "BuildConfig",
    "DemandConfig",
    "EngineConfig",
    "GateRule",
    "HeadsConfig",
    "PipelineConfig",
    "ProbabilityConfig",
    "RankerConfig",
    "Section",
    "SourceSizes",
    "StrengthConfig",
    "TiesConfig",
    "TowerConfig",
    "load_config",
    "load_config_as",
    "parse_config",
    "parse_overrides",
    "stored_config",
]
