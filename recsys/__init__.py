"""Laotie: ranks live rooms by the relationship between a viewer and a host."""

from recsys.errors import BundleRefused, ConfigError, GateFailed, InputRefused, LaotieError

__version__ = "0.1.0"

__all__ = ["BundleRefused", "ConfigError", "GateFailed", "InputRefused", "LaotieError", "__version__"]
