"""Progress of long work: the library reports, the command line shows.

Library functions take `progress: Progress = silent` and call it as often as they like: `progress("ties", 0.25)` says
that the step named «ties» is a quarter done. They never know whether anybody looks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, float], None]
"""`(step, share)`: the share in [0, 1] of the named step that is done; 1.0 finishes the step."""


def silent(step: str, share: float) -> None:
    """The progress nobody looks at; the default everywhere."""


def part(progress: Progress, step: str, start: float, end: float) -> Progress:
    """A progress for an inner call, shown as the stretch from `start` to `end` of the outer `step`.

    The inner call's own step names are dropped.
    """

    def report(_: str, share: float) -> None:
        progress(step, start + (end - start) * share)

    return report


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """Bars on stderr, one line per step in order of appearance; `silent` if `quiet` or stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    steps: dict[str, TaskID] = {}
    with Bars(*columns, console=Console(stderr=True)) as bars:

        def report(step: str, share: float) -> None:
            if step not in steps:
                steps[step] = bars.add_task(step, total=1.0)
            bars.update(steps[step], completed=min(max(share, 0.0), 1.0))

        yield report
