"""The lake: event tables kept by day and bucket of users, grown by every export. See docs/lake.md.

`manifest` (what a lake holds), `partition` (where a row lies) and `view` (part of it, lazily) are read by
`recsys.events.reading`; `ingest`, `compaction` and `erasing` write.
"""
