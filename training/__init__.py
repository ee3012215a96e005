"""Offline: stages, nightly build, gates, publishing. Never imports `serving`."""
