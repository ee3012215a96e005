"""Commands that measure the engine itself: the results page, planted ties, tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli import EventsArgument, JsonOption, in_a_folder, progress_of, show


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("results")(results)
    app.command("evaluate-worlds")(evaluate_worlds)
    app.command("tune")(tune)


def results(
    ctx: typer.Context,
    data: Annotated[Path, typer.Argument(metavar="DATA", exists=True, file_okay=False, help="Folder of data sets.")],
    out: Annotated[Path, typer.Option("--out", exists=True, dir_okay=False, help="Page whose tables are renewed.")],
    cache: Annotated[Path, typer.Option("--cache", file_okay=False, help="Records of parts that are done.")] = Path(
        ".results"
    ),
    only: Annotated[str, typer.Option("--only", metavar="A,B", help="These groups of tables only.")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what has a record.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure every method on every data set in DATA and on simulated worlds; renew the tables of a page."""
    from training.results.command import measure

    wanted = [name.strip() for name in only.split(",") if name.strip()]
    with progress_of(ctx) as progress:
        said = measure(data, out, cache, only=wanted, fresh=fresh, progress=progress)
    show(said, as_json=as_json)


def evaluate_worlds(
    ctx: typer.Context,
    worlds: Annotated[str, typer.Option("--worlds", metavar="A,B", help="Worlds of configs/worlds, or files.")] = (
        "private_domain,traffic,counts_suffice"
    ),
    seeds: Annotated[str, typer.Option("--seeds", metavar="1,2", help="Seeds; develop on others than you report.")] = (
        "101,102"
    ),
    cache: Annotated[Path, typer.Option("--cache", file_okay=False, help="Records of parts that are done.")] = Path(
        ".results"
    ),
    as_json: JsonOption = False,
) -> None:
    """Kendall's τ between planted ties and what memory, strength, score and an oracle say, per simulated world."""
    from recsys.errors import ConfigError
    from training.results.command import evaluate_planted

    chosen = [name.strip() for name in worlds.split(",") if name.strip()]
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError as error:
        raise ConfigError("a seed is no number", where="--seeds", got=seeds, expected="1,2,3") from error
    with progress_of(ctx) as progress:
        show(evaluate_planted(chosen, numbers, cache, progress), as_json=as_json)


def tune(
    ctx: typer.Context,
    events: EventsArgument,
    study: Annotated[Path, typer.Option("--study", dir_okay=False, help="SQLite file; a later call goes on with it.")],
    as_of: Annotated[str, typer.Option("--as-of", metavar="T", help="Look at nothing from this instant on.")],
    trials: Annotated[int, typer.Option("--trials", min=1, help="At most so many further trials.")] = 20,
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="No trial begins after so long.")] = 20.0,
    out: Annotated[
        Path | None,
        typer.Option("--out", dir_okay=False, callback=in_a_folder, help="YAML for the best settings."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tune the ranker on the stretch before --as-of; resumable, with a budget of trials and minutes."""
    from datetime import UTC, datetime

    from recsys.config import EngineConfig
    from recsys.instants import from_datetime, parse_instant
    from training.tune import tune as run

    cut, now = parse_instant(as_of, where="--as-of"), from_datetime(datetime.now(UTC))
    config = EngineConfig()
    with progress_of(ctx) as progress:
        found = run(
            events, study, config=config, as_of_us=cut, now_us=now, trials=trials, minutes=minutes, out=out,
            progress=progress,
        )  # fmt: skip
    show(found, as_json=as_json)
