"""Events: tables → quarantine → facts. See `facts` for the currency, `schemas` for the input."""

from recsys.events.fact_stream import fact_stream, last_fact_us, suggested_buckets, tie_facts, user_parts
from recsys.events.facts import FACT_SCHEMA, FactKind
from recsys.events.known import Known, known_before
from recsys.events.quality import validate
from recsys.events.quarantine import Events, clean
from recsys.events.reading import EventTables, from_frames, open_events
from recsys.events.report import QualityReport, TableQuality
from recsys.events.vocabularies import (
    Vocabularies,
    build_vocabularies,
    extend_vocabularies,
    host_table,
    room_table,
    user_table,
)

__all__ = [
    "FACT_SCHEMA",
    "EventTables",
    "Events",
    "FactKind",
    "Known",
    "QualityReport",
    "TableQuality",
    "Vocabularies",
    "build_vocabularies",
    "clean",
    "extend_vocabularies",
    "fact_stream",
    "from_frames",
    "host_table",
    "known_before",
    "last_fact_us",
    "open_events",
    "room_table",
    "suggested_buckets",
    "tie_facts",
    "user_parts",
    "user_table",
    "validate",
]
