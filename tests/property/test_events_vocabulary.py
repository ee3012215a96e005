"""A vocabulary is a dictionary that never forgets and never renumbers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import BundleRefused, InputRefused
from recsys.id_kinds import id_in
from recsys.ids import Vocabulary

ints = st.lists(st.one_of(st.integers(-5, 50), st.integers(-(2**63), 2**63 - 1)), max_size=40)
texts = st.lists(st.text(max_size=3), max_size=40)
steps = st.one_of(st.lists(ints, max_size=4), st.lists(texts, max_size=4))


@given(steps, st.booleans())
def test_like_a_dictionary_through_files(batches: list[list[int]] | list[list[str]], reload: bool) -> None:
    vocabulary, model = Vocabulary(), dict[int | str, int]()
    for batch in batches:
        expected = [model.setdefault(external, len(model)) for external in batch]
        dtype = pl.String if batch and isinstance(batch[0], str) else pl.Int64
        if batch:
            assert vocabulary.extend(pl.Series(batch, dtype=dtype)).tolist() == expected
        if reload:
            with tempfile.TemporaryDirectory() as folder:
                vocabulary.save(Path(folder) / "v")
                vocabulary = Vocabulary.load(Path(folder) / "v")
    assert len(vocabulary) == len(model)
    asked = [*model, "nobody", 77, *model]
    assert vocabulary.rows_listed(asked) == [model.get(external, -1) for external in asked]
    assert [vocabulary.row(external) for external in model] == list(model.values())
    assert [vocabulary.id(row) for row in model.values()] == list(model)
    assert vocabulary.ids(np.arange(len(model))).to_list() == list(model)
    for some in (np.arange(len(model))[::-1], np.arange(len(model))[:1], np.arange(len(model))[-1:], np.arange(0)):
        assert vocabulary.listed(some) == [list(model)[row] for row in some]


def test_unknown_null_and_other_kinds() -> None:
    vocabulary = Vocabulary()
    assert vocabulary.kind is None and vocabulary.row(3) == -1
    assert vocabulary.rows(pl.Series([3, None])).tolist() == [-1, -1]
    vocabulary.extend(pl.Series([10, 20, 10]))
    assert vocabulary.add(15) == 2 == vocabulary.add(15)
    assert vocabulary.rows_listed([10, 99, 15, 10]) == vocabulary.rows_listed([10, 99, 15, 10]) == [0, -1, 2, 0]
    assert vocabulary.rows(pl.Series([15, None, 10, 99], dtype=pl.Int32)).tolist() == [2, -1, 0, -1]
    assert vocabulary.row("10") == -1 and vocabulary.row(2**70) == -1
    for wrong in (
        lambda: vocabulary.rows(pl.Series(["a"])),
        lambda: vocabulary.add("a"),
        lambda: vocabulary.add(2**70),
    ):
        with pytest.raises(InputRefused):
            wrong()
    with pytest.raises(InputRefused, match="null"):
        vocabulary.extend(pl.Series([1, None]))
    with pytest.raises(InputRefused, match="cannot hold ids"):
        vocabulary.rows(pl.Series([1.5]))
    with pytest.raises(IndexError):
        vocabulary.ids(np.array([3]))
    with pytest.raises(IndexError):
        vocabulary.listed(np.array([0, 3]))
    with pytest.raises(IndexError):
        vocabulary.id(-1)


@pytest.mark.parametrize("ids", [[10, 20, 30], ["a", "b", "c"]])
def test_a_forgotten_id_is_unknown_and_comes_back_under_a_new_row(ids: list[int] | list[str], tmp_path: Path) -> None:
    vocabulary = Vocabulary()
    vocabulary.extend(pl.Series(ids[:2]))
    vocabulary.save(tmp_path / "ids")
    vocabulary = Vocabulary.load(tmp_path / "ids")
    vocabulary.add(ids[2])
    for row in (0, 2):  # of the file, and added
        assert vocabulary.row(ids[row]) == row
        vocabulary.forget(row)
        assert vocabulary.row(ids[row]) == -1
        assert vocabulary.rows_listed(ids[row : row + 1]) == [-1]
    assert vocabulary.rows(pl.Series(ids)).tolist() == [-1, 1, -1] and vocabulary.forgotten == [0, 2]
    assert vocabulary.extend(pl.Series([ids[2], ids[0]])).tolist() == [3, 4]
    assert vocabulary.rows(pl.Series(ids)).tolist() == [4, 1, 3] == [vocabulary.row(one) for one in ids]
    vocabulary.forget(4)
    assert vocabulary.row(ids[0]) == -1 and vocabulary.add(ids[0]) == 5


@pytest.mark.parametrize("text", ["1_0", " 1", "+1", "١", "1e3", "", "9223372036854775808", "1\n", "0x1"])
def test_a_text_that_is_no_integer_names_no_integer(text: str) -> None:
    assert id_in(text, "int") is None and id_in(text, "str") == id_in(text, None) == text
    assert (id_in("-9223372036854775808", "int"), id_in("10", "int")) == (-(2**63), 10)


def test_large_batches_take_both_ways(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for ids in (rng.permutation(5_000), rng.integers(-(2**62), 2**62, 5_000)):
        vocabulary = Vocabulary()
        vocabulary.extend(pl.Series(ids))
        asked = pl.Series(np.concatenate([ids[::-1], [2**61 + 1, -1]]))
        assert vocabulary.rows(asked)[:-2].tolist() == list(range(len(ids)))[::-1]
        assert vocabulary.rows(asked)[-2:].tolist() == [-1, -1]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x93NUMPY\x01\x00", b"ARROW1\x00\x00"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "v"
    path.write_bytes(content)
    with pytest.raises(BundleRefused, match="vocabulary"):
        Vocabulary.load(path)
    with pytest.raises(BundleRefused):
        Vocabulary.load(tmp_path / "absent")
