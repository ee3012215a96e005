"""Laotie: ranks live rooms by the relationship between a viewer and a host."""

__version__ = "0.1.0"
