"""The bundle: what is written is what is read; whatever goes wrong, what was served stays served."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from recsys.bundle import (
    Bundle,
    BundleWriter,
    publish,
    resolve,
)
from recsys.bundle import writer as writer_module
from recsys.config import EngineConfig
from recsys.errors import BundleRefused, ConfigError, LaotieError
from tests.unit.written_bundle import fields, visible, write

FROZEN = Path(__file__).parents[1] / "fixtures" / "bundles" / "format-v1"


def test_frozen_format_1_loads_for_ever() -> None:
    bundle = Bundle.open(FROZEN, verify="hashes")
    manifest = bundle.manifest
    assert (manifest.format_version, manifest.name, manifest.laotie) == (1, "format-v1", "0.1.0")
    assert manifest.created_at_us == 1_795_309_323_000_004
    assert (manifest.window.from_us, manifest.window.as_of_us) == (1_777_593_600_000_000, 1_778_241_600_000_001)
    assert manifest.offsets == {"watches": 12345}
    assert manifest.counts == {"hosts": 2, "users": 3}
    assert manifest.metrics["strength_ece"] == 0.0125
    assert np.isnan(manifest.metrics["unmeasurable"])
    assert [(stage.name, stage.status, stage.why) for stage in manifest.stages] == [
        ("ties", "passed", ""),
        ("als", "skipped", "no watches"),
    ]
    assert [gate.status for gate in manifest.gates] == ["passed", "skipped"]
    assert bundle.config.ties.user_buckets == 64
    assert bundle.array("ties/last_at").tolist() == [-(2**63), 0, 2**63 - 1]
    vectors = bundle.array("models/vectors")
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert bundle.array("models/none").shape == (0, 4)
    assert bundle.table("hosts").rows() == [("老铁", 7), ("b", 0)]
    assert bundle.json("report") == {"ndcg_at_10": 0.5, "strata": {"known": [1, 2]}}
    assert bundle.file("notes.txt").read_text() == "streamed\n"


def test_written_is_read(tmp_path: Path) -> None:
    bundle = Bundle.open(write(tmp_path, "one"), verify="hashes")
    array = bundle.array("a")
    assert isinstance(array.base.base.obj, mmap.mmap)  # type: ignore[union-attr]
    assert not array.flags.writeable
    assert bundle.table("deep/table").rows() == [(1, "p"), (2, None)]
    assert bundle.json("doc") == {"a": [None, 2.5], "b": 1}
    assert bundle.has("deep/table")
    assert not bundle.has("als")
    assert bundle.config == EngineConfig()
    with pytest.raises(BundleRefused, match="no such part.*als.npy"):
        bundle.array("als")


def test_equal_builds_differ_in_created_at_only(tmp_path: Path) -> None:
    first, second = (write(tmp_path / side, "same", at) for side, at in (("l", 1), ("r", 2)))
    texts = [(path / "manifest.json").read_text() for path in (first, second)]
    assert texts[0] != texts[1]
    assert texts[0].replace("00.000001Z", "00.000002Z") == texts[1]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../b", ".hidden", "a//b", "", "a/", "ü", "a\\b", "manifest.json"])
def test_names_stay_inside(tmp_path: Path, name: str) -> None:
    with BundleWriter(tmp_path, "one") as writer, pytest.raises(ValueError, match="plain"):
        writer.path(name)
    with pytest.raises(ConfigError):
        BundleWriter(tmp_path, name + "/")


def test_writer_refuses_what_needs_pickle_and_what_is_written_twice(tmp_path: Path) -> None:
    with BundleWriter(tmp_path, "one") as writer:
        with pytest.raises(TypeError, match="Python objects"):
            writer.array("o", np.array([{}], dtype=object))
        writer.json("doc", 1)
        with pytest.raises(ValueError, match="twice"):
            writer.json("doc", 2)


def test_a_bundle_never_changes(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with pytest.raises(ConfigError, match="exists already"):
        write(tmp_path, "one")
    with pytest.raises(RuntimeError, match="finished"), BundleWriter(tmp_path, "two") as writer:
        writer.finish(fields())
        writer.path("late")


@pytest.mark.parametrize("step", ["sha256_of", "sync_tree", "_check_opens", "sync_path", "rename"])
def test_a_failure_at_any_step_leaves_the_old_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    publish(tmp_path, write(tmp_path, "old").name)

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        if step == "rename":
            patch.setattr(Path, "rename", fail)
        else:
            patch.setattr(writer_module, step, fail)
        with pytest.raises((OSError, LaotieError), match="no space"):
            write(tmp_path, "new")
    assert visible(tmp_path) - {"new"} == {"old", "CURRENT", "HISTORY"}
    assert resolve(tmp_path) == tmp_path / "old"
    if step != "sync_path":  # that one comes after the rename: the bundle is whole by then
        assert not (tmp_path / "new").exists()
        write(tmp_path, "new")
    Bundle.open(tmp_path / "new", verify="hashes")


def test_an_error_of_the_builder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), BundleWriter(tmp_path, "one") as writer:
        writer.json("doc", 1)
        raise KeyboardInterrupt
    assert visible(tmp_path) == set()


def test_a_killed_writer_is_swept_by_the_next_and_a_live_one_is_not(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from recsys.bundle import BundleWriter\n"
        "with BundleWriter(Path(sys.argv[1]), 'killed') as w:\n"
        "    w.json('doc', 1); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        alive = f"killed.tmp-{process.pid}"
        write(tmp_path, "one")
        assert alive in visible(tmp_path)
        process.send_signal(signal.SIGKILL)
    ours = tmp_path / f"crashed.tmp-{os.getpid()}"  # left by a dead process that had our pid, as in a container
    ours.mkdir()
    write(tmp_path, "two")
    assert visible(tmp_path) == {"one", "two"}


def test_corrupt_bundles_are_refused(tmp_path: Path) -> None:
    whole = write(tmp_path, "whole")

    def broken(change: str) -> Path:
        copy = tmp_path / change
        shutil.copytree(whole, copy)
        return copy

    missing = broken("missing")
    (missing / "b.npy").unlink()
    truncated = broken("truncated")
    (truncated / "b.npy").write_bytes((whole / "b.npy").read_bytes()[:-1])
    for path, message in ((missing, "lacks a file.*b.npy"), (truncated, "wrong size.*b.npy.*hint")):
        with pytest.raises(BundleRefused, match=message):
            Bundle.open(path)

    flipped = broken("flipped")
    raw = bytearray((whole / "b.npy").read_bytes())
    raw[-1] ^= 1
    (flipped / "b.npy").write_bytes(raw)
    swapped = broken("swapped")
    (swapped / "a.npy").rename(swapped / "c")
    (swapped / "b.npy").rename(swapped / "a.npy")
    (swapped / "c").rename(swapped / "b.npy")
    for path in (flipped, swapped):
        with pytest.raises(BundleRefused, match="was changed"):
            Bundle.open(path, verify="hashes")


def test_unreadable_parts_are_refused_even_if_sizes_match(tmp_path: Path) -> None:
    path = write(tmp_path, "one")
    for name in ("a.npy", "deep/table.parquet", "doc.json"):
        (path / name).write_bytes(b"\0" * (path / name).stat().st_size)
    bundle = Bundle.open(path)
    with pytest.raises(BundleRefused, match=r"a\.npy"):
        bundle.array("a")
    with pytest.raises(BundleRefused, match=r"table\.parquet"):
        bundle.table("deep/table")
    with pytest.raises(BundleRefused, match=r"doc\.json"):
        bundle.json("doc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "format is unknown.*newer laotie"),
        ({"format_version": "1"}, "format is unknown"),
        ({"files": {"../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}}, "leaves the bundle"),
        ({"files": {"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}}}, "leaves the bundle"),
        ({"files": {"a.npy": {"bytes": 1, "sha256": "zz"}}}, "sha256"),
        ({"window": {"from": None, "to": None}}, "as_of"),
        ({"created_at": "yesterday"}, "created_at.*ISO 8601"),
    ],
)
def test_broken_manifests_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    manifest = write(tmp_path, "one") / "manifest.json"
    manifest.write_bytes(orjson.dumps(orjson.loads(manifest.read_bytes()) | change))
    with pytest.raises(BundleRefused, match=message):
        Bundle.open(manifest.parent)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", '{"format_version": 1}'])
def test_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BundleRefused, match="manifest|format"):
        Bundle.open(tmp_path)


def test_a_later_field_does_not_hinder_and_a_dropped_setting_neither(tmp_path: Path) -> None:
    manifest = write(tmp_path, "one") / "manifest.json"
    document = orjson.loads(manifest.read_bytes())
    document["of_tomorrow"] = 1
    document["config"]["ties"]["of_yesterday"] = 1
    document["config"]["ties"]["user_buckets"] = 8
    manifest.write_bytes(orjson.dumps(document))
    assert Bundle.open(manifest.parent).config.ties.user_buckets == 8
    document["config"]["ties"]["user_buckets"] = 7
    manifest.write_bytes(orjson.dumps(document))
    with pytest.raises(BundleRefused, match="power of two"):
        _ = Bundle.open(manifest.parent).config
