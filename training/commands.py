"""Offline commands of `laotie`: each checks its arguments, then imports what is heavy and calls one function."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli import BundleOption, EventsArgument, JsonOption, KOption, OutFileOption, SeedOption, progress_of, show
from recsys.instants import from_datetime, parse_instant, to_datetime
from training import data_commands, measuring_commands

ConfigOption = Annotated[
    Path | None, typer.Option("--config", exists=True, dir_okay=False, help="YAML; see configs/default.yaml.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Override one setting; repeatable.")
]
AsOfOption = Annotated[
    str | None, typer.Option("--as-of", metavar="T", help="Read facts before this instant only (ISO 8601).")
]


def register(app: typer.Typer) -> None:
    """Add the offline commands to the command line."""
    for command in (demo, validate, simulate, build, rollback, demand, evaluate):
        app.command()(command)
    data_commands.register(app)
    measuring_commands.register(app)
    app.command("bench-pairs")(bench_pairs)
    app.command("bench-rebuy")(bench_rebuy)


def _now() -> datetime:
    """The clock is read here, at the edge, and handed down."""
    return datetime.now(UTC)


def _now_us() -> int:
    return from_datetime(_now())


def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Where bundles go.")] = Path("demo-out"),
    as_json: JsonOption = False,
) -> None:
    """The main job end to end on embedded data: events → ties → models → index → ranked live rooms with reasons."""
    from training.demo import run_demo

    with progress_of(ctx) as progress:
        result = run_demo(out, now_us=_now_us(), progress=progress)
    show(result, as_json=as_json)


def validate(events: EventsArgument, as_json: JsonOption = False) -> None:
    """Check event tables: rows used, rows set aside and why."""
    from recsys.events.quality import validate as run

    show(run(events, now=_now()).to_json(), as_json=as_json)


def simulate(
    ctx: typer.Context,
    users: Annotated[int, typer.Option("--users", min=1)],
    hosts: Annotated[int, typer.Option("--hosts", min=1)],
    days: Annotated[int, typer.Option("--days", min=1)],
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="New folder for the event tables.")],
    seed: SeedOption = 1,
    start: Annotated[str | None, typer.Option("--start", metavar="T", help="First instant of the market.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", exists=True, dir_okay=False, help="YAML with the laws of the world.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the event tables of a simulated market, with its planted truth."""
    from recsys.events.simulator import WorldConfig, load_world
    from recsys.events.simulator import simulate as run

    world = WorldConfig() if config is None else load_world(config)
    begin = None if start is None else to_datetime(parse_instant(start, where="--start"))
    with progress_of(ctx) as progress:
        report = run(world, users=users, hosts=hosts, days=days, seed=seed, out=out, start=begin, progress=progress)
    show(report, as_json=as_json)


def build(
    ctx: typer.Context,
    events: EventsArgument,
    out: Annotated[Path, typer.Option("--out", file_okay=False, metavar="BUNDLES", help="Folder of bundles.")],
    as_of: AsOfOption = None,
    base: Annotated[
        Path | None, typer.Option("--base", exists=True, help="Bundle of the same lake to continue: the nightly delta.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ties, training, index, gates; publish the bundle atomically."""
    from recsys.config import load_config, parse_overrides

    now = _now_us()  # as of a later instant a bundle would tell the service that all facts until then are in it
    as_of_us = None if as_of is None else min(parse_instant(as_of, where="--as-of"), now)
    engine = load_config(config, parse_overrides(settings or ()))

    from training.build import build as run

    with progress_of(ctx) as progress:
        result = run(events, out, config=engine, as_of_us=as_of_us, now_us=now, base=base, progress=progress)
    show(result, as_json=as_json)


def rollback(
    bundles: Annotated[Path, typer.Argument(metavar="BUNDLES", exists=True, file_okay=False)],
    as_json: JsonOption = False,
) -> None:
    """Serve the bundle before the current one again."""
    from recsys.bundle import rollback as run

    show({"current": run(bundles)}, as_json=as_json)


def demand(bundle: BundleOption, as_json: JsonOption = False) -> None:
    """Viewers, buyers and orders to expect at every host's next broadcast, with intervals, as of the bundle's as-of."""
    from recsys.bundle import Bundle, resolve
    from training.demand import read_demand

    show(read_demand(Bundle.open(resolve(bundle))), as_json=as_json)


def evaluate(
    ctx: typer.Context,
    events: EventsArgument,
    out: Annotated[Path | None, typer.Option("--out", file_okay=False, help="Folder for the report.")] = None,
    as_of: AsOfOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also train and judge LambdaMART, a network, a linear floor and parts.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Offline report on a time cut: train before --as-of, judge after it on every room live at each request."""
    from recsys.config import load_config, parse_overrides

    as_of_us = None if as_of is None else parse_instant(as_of, where="--as-of")
    engine = load_config(config, parse_overrides(settings or ()))

    from training.evaluate import evaluate as run

    with progress_of(ctx) as progress:
        result = run(
            events, out=out, config=engine, as_of_us=as_of_us, now_us=_now_us(), progress=progress, compare=compare
        )
    show(result, as_json=as_json)


def bench_pairs(
    ctx: typer.Context,
    train: Annotated[Path, typer.Argument(metavar="TRAIN.parquet", exists=True, help="Columns user_id, item_id.")],
    out: OutFileOption,
    k: KOption = 20,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Train the collaborative source alone; write user_id, rank, item_id, score of unseen items."""
    from training.bench_pairs import bench_pairs as run

    with progress_of(ctx) as progress:
        result = run(train, k, out, seed=seed, progress=progress)
    show(result, as_json=as_json)


def bench_rebuy(
    ctx: typer.Context,
    orders: Annotated[Path, typer.Argument(metavar="ORDERS.parquet", exists=True, help="Past purchases.")],
    as_of: Annotated[str, typer.Option("--as-of", metavar="T", help="The instant of the prediction (ISO 8601).")],
    out: OutFileOption,
    horizon_days: Annotated[int, typer.Option("--horizon-days", min=1)] = 30,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Probability that a customer buys a product again within the horizon; write user_id, product, p."""
    moment = to_datetime(parse_instant(as_of, where="--as-of"))

    from training.rebuy.bench import bench_rebuy as run

    with progress_of(ctx) as progress:
        result = run(orders, moment, horizon_days, out, seed=seed, progress=progress)
    show(result, as_json=as_json)
