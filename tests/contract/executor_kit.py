"""What every executor must do (`training.executor.Executor`). To plug in another one, subclass `ExecutorContract` in a
test module and give it the fixture `executor`; no code that makes features changes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import training.states
from recsys.config import EngineConfig
from recsys.events import Events, Vocabularies, build_vocabularies, clean, open_events
from recsys.events.facts import FOREVER
from recsys.events.lake.ingest import ingest
from recsys.events.simulator import WorldConfig, simulate
from training.executor import Executor, OneByOne
from training.states import snapshot


class ExecutorContract:
    """Results in order, errors as they were raised, and states to the last bit as in one thread."""

    @pytest.fixture(scope="class")
    @classmethod
    def market(cls, tmp_path_factory: pytest.TempPathFactory) -> Events:
        folder = tmp_path_factory.mktemp("parts")
        simulate(WorldConfig(), users=60, hosts=8, days=4, seed=11, out=folder / "events")
        ingest(folder / "events", folder / "lake", buckets=4)
        return clean(open_events(folder / "lake"))

    def test_results_come_in_the_order_of_the_parts(self, executor: Executor) -> None:
        assert list(executor.run(lambda part: part * part, 5)) == [0, 1, 4, 9, 16]
        assert list(executor.run(lambda part: part, 0)) == []

    def test_the_first_error_is_raised_as_it_was_and_no_more_parts_begin(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        def work(part: int) -> int:
            (tmp_path / str(part)).touch()
            if part == 1:
                raise ValueError("part 1")
            return part

        with pytest.raises(ValueError, match="part 1"):
            list(executor.run(work, 40))
        assert len(list(tmp_path.iterdir())) <= 8

    def test_states_are_the_same_to_the_last_bit(
        self, executor: Executor, market: Events, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(training.states, "user_parts", lambda *_: 4)
        vocabularies: Vocabularies = build_vocabularies(market, as_of_us=FOREVER)
        ours, theirs = (
            snapshot(market, vocabularies, EngineConfig(), FOREVER, executor=where).states
            for where in (executor, OneByOne())
        )
        assert len(theirs["visits"]) > 20
        for name, state in theirs.items():
            for part, array in state.flat().arrays().items():
                np.testing.assert_array_equal(ours[name].flat().arrays()[part], array, err_msg=f"{name} {part}")
