"""The published artefact: what training writes, what serving opens, and nothing else passes between them.

See docs/bundle.md for the layout, and docs/decisions for why it is a directory of plain files.
"""

from recsys.bundle.gates import evaluate_gates
from recsys.bundle.manifest import (
    FORMAT_VERSION,
    DataWindow,
    FileEntry,
    GateResult,
    Manifest,
    ManifestFields,
    StageResult,
)
from recsys.bundle.reader import Bundle
from recsys.bundle.shelf import current_name, forget_stages, next_name, publish, resolve, retain, rollback
from recsys.bundle.writer import BundleWriter

__all__ = [
    "FORMAT_VERSION",
    "Bundle",
    "BundleWriter",
    "DataWindow",
    "FileEntry",
    "GateResult",
    "Manifest",
    "ManifestFields",
    "StageResult",
    "current_name",
    "evaluate_gates",
    "forget_stages",
    "next_name",
    "publish",
    "resolve",
    "retain",
    "rollback",
]
