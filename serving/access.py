"""Who may do what, and how often: API keys kept as hashes, compared in constant time; a token bucket per key."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping

from serving.config import ApiKey, Role, ServingConfig
from serving.problems import Problem

ANYBODY = ApiKey(name="loopback", sha256="0" * 64, roles=("admin",))
"""Who asks when no keys are configured, which is possible on loopback only."""


class Access:
    """Checks callers by the keys of the config. Used from one event loop."""

    def __init__(self, config: ServingConfig) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key) for key in config.keys]
        self._buckets = {key.name: _Bucket(key.requests_per_s, key.burst) for key in config.keys}

    def admit(self, headers: Mapping[str, str], role: Role) -> ApiKey:
        """The caller, if he may.

        Raises:
            Problem: 401 without a known key, 403 without the role, 429 beyond the rate.
        """
        if not self._keys:
            return ANYBODY
        given = headers.get("x-api-key", "")
        if not given:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = token.strip() if scheme.lower() == "bearer" else ""
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        caller = None
        for known, key in self._keys:  # all of them, so that time tells nothing
            if hmac.compare_digest(known, digest):
                caller = key
        if caller is None:
            raise Problem(401, "unauthorised", "no known API key; send it as X-API-Key or as a bearer token")
        if role not in caller.roles and "admin" not in caller.roles:
            raise Problem(403, "forbidden", f"this key lacks the role {role}")
        wait_s = self._buckets[caller.name].take()
        if wait_s > 0:
            raise Problem(429, "rate_limited", "too many requests for this key", retry_after_s=wait_s)
        return caller


class _Bucket:
    """A token bucket: `burst` requests at once, refilled at `rate` a second."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, float(burst)
        self._tokens, self._at = float(burst), time.monotonic()

    def take(self) -> float:
        """0 if a token was had, else the seconds until there is one."""
        if not self._rate:
            return 0.0
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate
