"""`bench-rebuy`: order table in, calibrated repurchase probabilities out, and a report of how they came about."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from recsys.errors import InputRefused
from recsys.models.calibration import FloatArray, LogitMap, calibration_error, log_loss_skill
from recsys.progress import Progress, part, silent
from training.rebuy.config import RebuyConfig
from training.rebuy.counting import counting_probability
from training.rebuy.model import PairTable, RebuyModel, pair_table
from training.rebuy.orders import Orders, day_of, read_orders

IDENTITY = LogitMap()
Method = Literal["boosting", "counting", "nothing to score"]


@dataclass(frozen=True)
class Backtest:
    """A complete earlier window, predicted by a model that was trained on labels ending before it began.

    Attributes:
        as_of: start of the window.
        mean_p: mean probability said, before any correction.
        base_rate: share of pairs bought again.
        skill, calibration_error: of the uncorrected probabilities.
        shift: correction of the log-odds that would have been right.
    """

    as_of: datetime
    pairs: int
    mean_p: float
    base_rate: float
    skill: float
    calibration_error: float
    shift: float


@dataclass(frozen=True)
class RebuyReport:
    """How the probabilities were made.

    Attributes:
        method: the estimator used; `reason` says why if it is not boosting.
        level: what was finally applied to the log-odds.
        notes: everything else a reader of the numbers should know.
    """

    method: Method
    reason: str | None
    as_of: datetime
    horizon_days: int
    customers: int
    pairs: int
    mean_p: float
    training_cuts: tuple[datetime, ...]
    training_pairs: int
    backtests: tuple[Backtest, ...]
    level: LogitMap
    dropped_rows: dict[str, int]
    missing_columns: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float


def bench_rebuy(
    orders: Path,
    as_of: datetime,
    horizon_days: int,
    out: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    config: RebuyConfig | None = None,
) -> RebuyReport:
    """Write `user_id, product, p` for every customer active before `as_of` and every product he ever bought.

    Cancelled orders (id starting with `C`, or negative quantity) are no purchases. Facts at or after `as_of` are not
    read. Deterministic given `seed`.

    Args:
        as_of: the instant of prediction; without time zone it is taken as UTC.
        out: parquet file, written whole or not at all; sorted by user_id, product; ids as given.
        config: settings; None: the defaults.

    Raises:
        InputRefused: the table is unreadable, lacks a column, or has no purchase before `as_of`.
    """
    begun = time.monotonic()
    config, progress = config or RebuyConfig(), progress or silent
    if horizon_days < 1:
        raise InputRefused("the horizon is not positive", where="horizon_days", got=horizon_days,
                           expected="at least 1 day", hint="30 is usual")  # fmt: skip
    now = day_of(as_of)
    facts = read_orders(orders, now)
    if facts.purchases.is_empty():
        n = int(pl.scan_parquet(orders).select(pl.len()).collect().item())
        hint = "check the year and the time zone of --as-of" if n else "the table is empty: write the orders into it"
        raise InputRefused("no purchase before the instant of prediction", where=orders, got=f"{n} rows, as-of {as_of}",
                           expected="at least one order that was not cancelled", hint=hint)  # fmt: skip
    progress("orders", 1.0)
    target = pair_table(facts, [now], horizon_days, config, labelled=False)
    result = _estimate(facts, target, now, horizon_days, config, seed, progress)
    _write(facts, target, result.p, out)
    return RebuyReport(
        method=result.method,
        reason=result.reason,
        as_of=_instant(now),
        horizon_days=horizon_days,
        customers=len(target.start),
        pairs=len(target.u),
        mean_p=float(result.p.mean()) if len(result.p) else float("nan"),
        training_cuts=tuple(_instant(c) for c in result.cuts),
        training_pairs=result.training_pairs,
        backtests=result.backtests,
        level=result.level,
        dropped_rows=facts.dropped,
        missing_columns=facts.missing,
        notes=result.notes,
        seconds=time.monotonic() - begun,
    )


@dataclass(frozen=True)
class _Estimate:
    p: FloatArray
    method: Method
    reason: str | None = None
    cuts: tuple[float, ...] = ()
    training_pairs: int = 0
    backtests: tuple[Backtest, ...] = ()
    level: LogitMap = IDENTITY
    notes: tuple[str, ...] = ()


def training_cuts(first_day: float, end: float, horizon_days: float, config: RebuyConfig) -> list[float]:
    """Cuts whose label window is over by `end`, youngest last; the youngest one's window ends exactly at `end`."""
    oldest, youngest = first_day + config.min_history_days, end - horizon_days
    count = int((youngest - oldest) // config.cut_step_days) + 1 if youngest >= oldest else 0
    return [youngest - k * config.cut_step_days for k in reversed(range(count))]


def _estimate(
    facts: Orders, target: PairTable, now: float, horizon: float, config: RebuyConfig, seed: int, progress: Progress
) -> _Estimate:
    """Boosting if history allows; otherwise counting, with the reason."""
    if not len(target.u):
        return _Estimate(np.zeros(0), "nothing to score", f"no customer bought within {config.active_days:g} days")
    first_day = float(facts.purchases["day"].to_numpy().min())
    cuts = training_cuts(first_day, now, horizon, config)
    if len(cuts) < config.min_cuts:
        reason = (
            f"{now - first_day:.0f} days of history give {len(cuts)} training cuts; {config.min_cuts} are needed, each "
            f"with {config.min_history_days:g} days before and {horizon:g} days after it"
        )
        return _count(facts, target, now, horizon, config, reason)
    keep, notes = _sample(facts, len(target.u) * len(cuts), config, seed)
    train = pair_table(facts, cuts, horizon, config, labelled=True, keep=keep, progress=_share(progress, "features"))
    if train.y.sum() < config.min_rebuys:
        reason = f"{train.y.sum():.0f} repurchases in the training windows, {config.min_rebuys} are needed"
        return _count(facts, target, now, horizon, config, reason)
    backtests = _backtests(facts, train, cuts, now, horizon, config, seed, progress)
    level = level_from(backtests, config)
    if not backtests:
        notes = (*notes, "too little history for a backtest: the level is not corrected")
    model = RebuyModel.fit(train, config, seed=seed, progress=_share(progress, "model"))
    p = level.apply(model.predict(target))
    return _Estimate(p, "boosting", None, tuple(cuts), len(train.u), backtests, level, notes)


def _backtests(
    facts: Orders, train: PairTable, cuts: list[float], now: float, horizon: float, config: RebuyConfig, seed: int,
    progress: Progress,
) -> tuple[Backtest, ...]:  # fmt: skip
    """Predict the latest complete windows, which do not overlap, each from cuts whose labels end before it."""
    done: list[Backtest] = []
    for k in range(1, config.backtests + 1):
        origin = now - k * horizon
        usable = [i for i, c in enumerate(cuts) if c + horizon <= origin + 1e-9]
        if len(usable) < max(config.min_cuts, 0.6 * len(cuts)):
            break  # with so much less history the error is not that of the full model
        past = _before(train, [now - horizon - cuts[i] for i in usable])
        if past.y.sum() < config.min_rebuys:
            break
        fitting = part(progress, "backtest", (k - 1) / config.backtests, k / config.backtests)
        model = RebuyModel.fit(past, config, seed=seed, with_ranker=False, progress=_share(fitting, "backtest"))
        window = pair_table(facts, [origin], horizon, config, labelled=True)
        if not 0 < window.y.sum() < len(window.y):
            break
        p = model.predict(window)
        done.append(
            Backtest(
                as_of=_instant(origin),
                pairs=len(p),
                mean_p=float(p.mean()),
                base_rate=float(window.y.mean()),
                skill=log_loss_skill(p, window.y),
                calibration_error=calibration_error(p, window.y),
                shift=LogitMap.fit(p, window.y, intercept_sd=10.0).intercept,
            )
        )
    progress("backtest", 1.0)
    return tuple(done)


def _before(table: PairTable, ages: list[float]) -> PairTable:
    """The groups of `table` whose cuts have one of `ages`, with ages counted from the youngest of them."""
    groups = np.isin(np.round(table.age, 6), np.round(ages, 6))
    rows = groups[table.group]
    number = np.cumsum(groups) - 1
    group = number[table.group[rows]]
    return PairTable(
        u=table.u[rows], p=table.p[rows], x=table.x[rows], names=table.names,
        start=np.flatnonzero(np.diff(group, prepend=-1)), group=group, age=table.age[groups] - min(ages),
        y=table.y[rows], ordered=table.ordered[groups],
    )  # fmt: skip


def level_from(backtests: tuple[Backtest, ...], config: RebuyConfig) -> LogitMap:
    """Mean shift of the backtests, shrunk towards 0.

    shift = sum(shift_k) / (K + noise^2 / bias^2): a window's own level varies from month to month by about
    `config.level_noise_sd`, an estimator's systematic error by about `config.level_sd`.
    """
    if not backtests:
        return LogitMap()
    ratio = (config.level_noise_sd / config.level_sd) ** 2
    return LogitMap(intercept=sum(b.shift for b in backtests) / (len(backtests) + ratio))


def _count(facts: Orders, target: PairTable, now: float, horizon: float, config: RebuyConfig, reason: str) -> _Estimate:
    """Counting, calibrated on the last complete window if there is one with repurchases."""
    p = counting_probability(target, horizon)
    origin = now - horizon
    if origin > float(facts.purchases["day"].to_numpy().min()):
        window = pair_table(facts, [origin], horizon, config, labelled=True)
        if len(window.y) and 0 < window.y.sum() < len(window.y):
            level = LogitMap.fit(counting_probability(window, horizon), window.y, intercept_sd=1.0, slope_sd=0.5)
            note = f"calibrated on one window of {len(window.y)} pairs that began {_instant(origin):%Y-%m-%d}"
            return _Estimate(level.apply(p), "counting", reason, level=level, notes=(note,))
    return _Estimate(p, "counting", reason, notes=("not calibrated: no complete window with repurchases",))


def _sample(
    facts: Orders, expected_pairs: int, config: RebuyConfig, seed: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]] | None, tuple[str, ...]]:
    """Which customers to train on: all of them, or a random share that keeps the table within bounds."""
    share = config.max_training_pairs / expected_pairs
    if share >= 1:
        return None, ()
    keep = np.random.default_rng(seed).random(len(facts.users)) < share
    return keep, (f"trained on {share:.1%} of the customers to stay within {config.max_training_pairs:,} pairs",)


def _share(progress: Progress, step: str) -> Callable[[float], None]:
    return lambda share: progress(step, share)


def _instant(day: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)


def _write(facts: Orders, target: PairTable, p: FloatArray, out: Path) -> None:
    frame = pl.DataFrame({"user_id": facts.users.gather(target.u), "product": facts.products.gather(target.p), "p": p})
    partial = out.with_name(out.name + ".tmp")
    partial.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(partial)
    partial.replace(out)
