"""The executors of this machine, and two that share nothing with the caller, keep the contract."""

from __future__ import annotations

import pytest

from benchmarks.executors import Remote, Spawned
from tests.contract.executor_kit import ExecutorContract
from training.executor import Executor, OneByOne, Threads


@pytest.mark.parametrize("executor", [OneByOne(), Threads(2), Remote(), Spawned(2)], ids=lambda e: type(e).__name__)
class TestExecutors(ExecutorContract):
    """Each of them."""


def test_the_kit_finds_an_executor_that_mixes_up_parts() -> None:
    class Backwards(OneByOne):
        def run(self, work, n_parts):  # type: ignore[no-untyped-def]
            return map(work, reversed(range(n_parts)))

    executor: Executor = Backwards()
    with pytest.raises(AssertionError):
        ExecutorContract().test_results_come_in_the_order_of_the_parts(executor)
