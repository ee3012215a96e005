"""What the service counts, as Prometheus reads it at /metrics.

Every worker counts for itself, and a scrape reaches one of them: of several, what each counted bears its number, or a
counter would seem to fall and rise from scrape to scrape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest

from recsys.events.schemas import TABLES
from serving.engine import Engine, Event
from serving.intake import Verdict
from serving.streams.following import Follower

_LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Measures:
    """All metrics of one worker.

    Args:
        worker: its number; None: it is the only one.
    """

    def __init__(self, worker: int | None = None) -> None:
        self.worker = worker
        self.counted, self.registry = CollectorRegistry(), CollectorRegistry()
        r = self.counted
        self.requests = Counter("laotie_requests", "Requests by route and status", ["route", "status"], registry=r)
        self.seconds = Histogram("laotie_request_seconds", "Time to answer", ["route"], buckets=_LATENCIES, registry=r)
        self.lookups = Counter("laotie_lookups", "Answers by step of the ladder", ["degraded"], registry=r)
        self.refused = Counter("laotie_refused", "Requests refused under load", ["reason"], registry=r)
        self.short = Counter("laotie_short_answers", "Answers with fewer rooms than asked for", registry=r)
        self.events = Counter("laotie_events", "Events by table and result", ["table", "status", "reason"], registry=r)
        self.swaps = Counter("laotie_swaps", "Bundle changes by result", ["result"], registry=r)
        self.impressions_lost = Counter(
            "laotie_impressions_lost", "Answers not logged: intake full, log failed", registry=r
        )
        self._gauges = {  # of the state, which is the same in every worker
            name: Gauge(f"laotie_{name}", text, registry=self.registry)
            for name, text in (
                ("live_rooms", "Rooms live now"),
                ("log_offset", "Last offset applied"),
                ("bundle_age_seconds", "Since the bundle's as-of"),
                ("feed_age_seconds", "Since an event was received last"),
                ("fresh_users", "Users whose ties differ from the bundle"),
                ("fresh_ties_bytes", "Memory of ties that differ from the bundle"),
                ("fresh_ties_file_bytes", "The same beyond most_fresh_mb, in a file"),
                ("dedup_ids", "Event ids remembered"),
            )
        }
        self.follower: Follower | None = None
        """Whose stream this worker follows or waits to follow."""
        self._stream = {
            name: Gauge(f"laotie_stream_{name}", text, registry=r)
            for name, text in (
                ("following", "1: this worker reads the stream"),
                ("up", "1: the broker of the stream answers"),
                ("records", "Records read by this worker since its start"),
                ("failures", "Times the broker or the log failed since the start"),
                ("gaps", "Times the broker no longer held what came next: records were lost"),
            )
        }

    def count_events(self, events: Sequence[Event], verdicts: Sequence[Verdict]) -> None:
        """Count arriving events by result; names of tables that there are not count as `unknown`."""
        for (_, table, _), (status, reason) in zip(events, verdicts, strict=True):
            self.events.labels(table if table in TABLES else "unknown", status, reason or "").inc()

    def text(self, engine: Engine) -> bytes:
        """The page."""
        for name, value in engine.vitals().items():
            if name in self._gauges:
                self._gauges[name].set(float("inf") if value is None else value)  # no event ever: the feed is stalled
        if self.follower is not None:
            vitals = self.follower.vitals()
            for name, gauge in self._stream.items():
                gauge.set(vitals[name])
        counted = self.counted if self.worker is None else _Numbered(self.counted, self.worker)
        return generate_latest(counted) + generate_latest(self.registry)


class _Numbered:
    """What a registry collects, every series with the number of a worker."""

    def __init__(self, registry: CollectorRegistry, worker: int) -> None:
        self._registry, self._label = registry, {"worker": str(worker)}

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [one._replace(labels={**one.labels, **self._label}) for one in metric.samples]
            yield metric
