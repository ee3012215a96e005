"""Settings of the service; YAML shows what one tunes (`configs/serving.yaml`), every default is here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from recsys.config import Section, load_config_as
from recsys.errors import ConfigError

Role = Literal["lookup", "events", "admin"]


class ApiKey(Section):
    """One caller. The key itself is nowhere stored: `printf %s KEY | sha256sum`."""

    name: str = Field(min_length=1)
    """Who it is, in logs and metrics."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the key, hex."""
    roles: tuple[Role, ...] = ("lookup",)
    """What the caller may do; `admin` may everything."""
    requests_per_s: float = Field(default=0.0, ge=0)
    """Requests a second on average; 0: no limit."""
    burst: int = Field(default=100, ge=1)
    """Requests at once beyond the average."""


class StreamConfig(Section):
    """A broker's stream whose records are events, see `serving.streams`."""

    url: str = Field(pattern=r"^(kafka|valkeys?|rediss?)://[^/\s]+/[^/\s]+$")
    """`kafka://broker:9092/topic`, or `valkey://host:6379/stream`."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where to begin when this log has read nothing of the stream yet."""
    batch: int = Field(default=1_000, ge=1, le=20_000)
    """Records in one commit at most; as many are held in memory."""
    wait_s: float = Field(default=1.0, gt=0, le=60)
    """Longest wait for the next record before looking whether to stop."""
    retry_s: float = Field(default=5.0, gt=0)
    """Longest pause before a broker that is gone is asked again; it begins with a twentieth of it."""
    most_record_bytes: int = Field(default=1_000_000, ge=100)
    """Larger records are set aside."""
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Settings of the client: librdkafka's, or arguments of redis-py."""


class ServingConfig(Section):
    """How a bundle is served."""

    host: str = "127.0.0.1"
    """Address to listen on; anything but loopback needs API keys."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """0: any free port, printed at the start."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that share the mapped bundle and the log."""
    k: int = Field(default=20, ge=1)
    """Rooms in an answer when the caller does not say."""
    most_k: int = Field(default=500, ge=1)
    """Most rooms one may ask for."""
    most_users: int = Field(default=64, ge=1)
    """Most users in one lookup."""
    most_events: int = Field(default=2_000, ge=1)
    """Most events in one batch."""
    most_body_bytes: int = Field(default=4_000_000, ge=1_000)
    """Larger bodies are refused."""
    deadline_ms: float = Field(default=100.0, gt=0)
    """A lookup is answered within this or refused; what is left of it when its turn comes decides how rich it is."""
    waiting_lookups: int = Field(default=64, ge=1)
    """More lookups than this waiting for their turn: the next is refused at once (503)."""
    users_together: int = Field(default=8, ge=1)
    """Lookups that wait at the same time are answered together, so many users at most: the first waits for the last."""
    waiting_events: int = Field(default=20_000, ge=1)
    """More events than this waiting for the log: the next batch is refused at once (503)."""
    lease_s: float = Field(default=3_600.0, ge=0)
    """A room without a sign of life for so long vanishes; 0: rooms stay until they end."""
    dedup_horizon: int = Field(default=500_000, ge=1)
    """Event ids and row keys remembered at least: a repeat further back is not recognised."""
    snapshot_every: int = Field(default=500_000, ge=0)
    """A snapshot of the overlay is made after so many records; a restart reads at most about as many. 0: never."""
    log_impressions: bool = True
    """Answers over HTTP go to the log as impressions."""
    lake: Path | None = None
    """The lake the bundles are built from: erasing a user over HTTP takes him out of it too."""
    most_mapped_mb: int = Field(default=3_000, ge=0)
    """MiB of files that stay mapped into the process; above it pages go back to the page cache. 0: no limit."""
    read_ahead_mb: int = Field(default=500, ge=0)
    """States of a bundle of so many MiB or less are read from disk and mapped on loading, not page by page as viewers
    come."""
    most_fresh_mb: int = Field(default=2_000, ge=0)
    """MiB of memory for ties that changed since the bundle; further ones lie in a nameless file beside the log. 0: no
    limit."""
    watch_current_s: float = Field(default=2.0, ge=0)
    """How often a folder of bundles is asked for a new `CURRENT`; 0: never."""
    verify: Literal["sizes", "hashes"] = "sizes"
    """What is checked when a bundle is loaded; hashes are checked once at publish."""
    stream: StreamConfig | None = None
    """Events also come from a broker; None: over HTTP only. As text: its url."""
    keys: tuple[ApiKey, ...] = ()
    """Callers; none: everybody on loopback may do everything."""

    @field_validator("stream", mode="before")
    @classmethod
    def _url_alone(cls, given: object) -> object:
        return {"url": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [key.name for key in self.keys]
        if len(set(names)) < len(names):
            raise ValueError("names of keys must differ")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether the address is reachable from this machine only."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def load_serving_config(path: Path | None, overrides: dict[str, object] | None = None) -> ServingConfig:
    """Settings from a YAML file (None: all defaults), some of them overridden.

    Raises:
        ConfigError: unreadable, unknown or wrong settings; or an open address without keys.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    if "stream" in given:  # the address alone: how it is followed may stand in the file
        given["stream.url"] = given.pop("stream")
    config = load_config_as(ServingConfig, path, given, secret=("keys", "stream"))
    if not config.is_loopback and not config.keys:
        raise ConfigError(
            "an address that others reach needs API keys",
            where="host",
            got=config.host,
            hint="add keys to the serving config, or listen on 127.0.0.1",
        )
    return config
