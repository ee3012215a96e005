"""Learning what a host's next broadcast may expect, and summing it over all ties (docs/formulas/demand.md).

Ties at rest (`training.at_rest`) teach one probability per tie, calibrated on later instants. Totals of broadcasts,
each counted once, then say how much each host's ratio is worth and how far totals scatter around their expectation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import gammaln
from scipy.stats import nbinom

from recsys.bundle import Bundle, BundleWriter, StageResult
from recsys.config import EngineConfig
from recsys.errors import InputRefused
from recsys.evaluation.probabilities import ProbabilityReport, judge
from recsys.events import Vocabularies
from recsys.models.calibration import sigmoid
from recsys.models.demand import QUANTITIES, Demand, Quantity
from recsys.models.strength import StrengthHead
from recsys.pipeline.world import World
from recsys.progress import Progress, silent
from training.calibrating import calibration, one_outcome
from training.heads import fitted, too_little
from training.labels import LoggedTies
from training.tie_log import TieLog

HEAD_OF = {"viewers": "returns", "buyers": "buys"}
COVERED = 0.9
"""Share of broadcasts whose total lies in the interval."""
_SHAPES = np.geomspace(0.3, 3000.0, 120)
_USERS_AT_ONCE = 2_000
REPORTED = 20
"""Hosts in the report of a build."""

Floats = npt.NDArray[np.float64]


@dataclass
class LearntDemand:
    """The demand model or None, judgements of its heads at rest by quantity, and what became of each."""

    demand: Demand | None = None
    reports: dict[str, ProbabilityReport] = field(default_factory=dict)
    stages: list[StageResult] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        """Figures of the probabilities at rest."""
        return {f"demand_{name}_{figure}": v for name, r in self.reports.items() for figure, v in r.figures().items()}


def learn_demand(logged: LoggedTies, n_hosts: int, config: EngineConfig) -> LearntDemand:
    """Learn from ties at rest (`logged`) of hosts whose rows lie below `n_hosts`."""
    learnt = LearntDemand()
    labels, met = logged.labels(config.ties.product_slot_s)
    rows, later_us = logged.rows, logged.later_us
    of: dict[str, Quantity] = {}
    for name, head in HEAD_OF.items():
        if head in labels.absent:
            learnt.stages.append(_stage(name, "skipped", labels.absent[head]))
            continue
        outcome = met.select("row", "room", "orders")
        asked = logged.asked(labels.of[head]).join(outcome, on="row", how="left", maintain_order="left")
        early, later = logged.split(asked)
        middle = len(later) // 2
        if why := too_little(early, (later.head(middle), later.tail(len(later) - middle))):
            learnt.stages.append(_stage(name, "skipped", why))
            continue
        settings = config.strength if head == "returns" else config.heads
        model = fitted(rows, early, settings, config)
        truth, weight = later["y"].to_numpy(), later["weight"].to_numpy()
        said = sigmoid(model.score(rows[later["row"]].T))
        former = np.arange(len(later)) < middle
        held = calibration(said[former], truth[former], weight[former]).apply(said[~former])
        users = later["user"].to_numpy()[~former]
        same = one_outcome(later)[~former]
        learnt.reports[name] = judge(
            held, truth[~former], users=users, weight=weight[~former], outcomes=same, seed=config.build.seed
        )
        at_rest = StrengthHead(head, model, calibration(said, truth, weight), float("nan"))
        totals = totals_of(asked, at_rest.probability(rows[asked["row"]].T.astype(np.float64)), ("y", "orders"))
        of[name] = _quantity(at_rest, 1.0, totals, "y", later_us, n_hosts)
        if name == "buyers":
            per_buyer = float(totals["orders"].sum()) / max(float(totals["y"].sum()), 1e-9)
            of["orders"] = _quantity(at_rest, per_buyer, totals, "orders", later_us, n_hosts)
        learnt.stages.append(_stage(name, "passed", ""))
    learnt.demand = Demand(of) if of else None
    return learnt


def totals_of(asked: pl.DataFrame, said: Floats, of: tuple[str, ...]) -> pl.DataFrame:
    """Sums over the logged ties of every broadcast: host, room, at, `said` and each of `of`.

    A broadcast asked about at several instants counts at the first of them only, so that its outcome counts once.

    Args:
        asked: host, room, at, weight and the columns `of`, one row per tie; said: (R,) its probabilities.
    """
    weighed = asked.with_columns(said=pl.Series(said)).with_columns(pl.col("said", *of) * pl.col("weight"))
    sums = weighed.group_by("host", "room", "at").agg(pl.col("said", *of).sum())
    return sums.sort("at", "room").unique(["host", "room"], keep="first", maintain_order=True)


def _quantity(
    head: StrengthHead, per_tie: float, totals: pl.DataFrame, column: str, later_us: int, n_hosts: int
) -> Quantity:
    """Ratios from all broadcasts; how far totals of `column` scatter, from later ones by the ratios of the earlier."""
    said, happened = totals["said"].to_numpy(), totals["y"].to_numpy()
    host, early = totals["host"].to_numpy(), (totals["at"] < later_us).to_numpy()
    before = host_ratios(host[early], said[early], happened[early], n_hosts)
    expected = per_tie * said[~early] * before[host[~early]]
    counted = totals[column].to_numpy().astype(np.float64)[~early]
    level = counted.sum() / max(expected.sum(), 1e-9) - 1.0
    shape = 1.0 / (1.0 / gamma_shape(expected, counted) + level**2)
    return Quantity(head, per_tie, host_ratios(host, said, happened, n_hosts), shape)


def host_ratios(host: npt.NDArray[np.int64], said: Floats, happened: Floats, n_hosts: int) -> Floats:
    """(H,) how often it happened at each host over what was said, shrunk towards 1 as far as hosts are alike.

    Posterior mean of a rate with a gamma prior of mean 1, whose shape is the likeliest (empirical Bayes).

    Args:
        host, said, happened: (n,) of broadcasts.
    """
    expected, seen = (np.bincount(host, values, minlength=n_hosts).astype(np.float64) for values in (said, happened))
    shape = gamma_shape(expected, seen)
    return np.asarray((shape + seen) / (shape + expected))


def gamma_shape(expected: Floats, seen: Floats) -> float:
    """Shape of the gamma by which means scatter around their expectations: maximum likelihood of the negative binomial.

    Args:
        expected, seen: (n,) expectations and counts; weighted counts need not be whole.
    """
    known = expected > 0
    mean, count = expected[known], seen[known]
    if not len(mean):
        return float(_SHAPES[0])
    likelihood = [
        float((gammaln(a + count) - gammaln(a) + a * np.log(a / (a + mean)) + count * np.log(mean / (a + mean))).sum())
        for a in _SHAPES
    ]
    return float(_SHAPES[int(np.argmax(likelihood))])


def expected_demand(
    world: World, demand: Demand, users: npt.NDArray[np.int64], at: int, progress: Progress = silent
) -> pl.DataFrame:
    """What the next broadcast of every host may expect as of an instant, the ties of all `users` summed.

    Args:
        world: the state; it holds facts before `at`, µs, only.

    Returns:
        host, ties, and of every quantity the expectation with the ends of its interval (`COVERED`), `<name>`,
        `<name>_low`, `<name>_high`; hosts with a tie, by row.
    """
    n_hosts = len(world.standings)
    sums = {name: np.zeros(n_hosts) for name in demand.of}
    ties = np.zeros(n_hosts, dtype=np.int64)
    for begin in range(0, len(users), _USERS_AT_ONCE):
        log = TieLog(world, np.random.default_rng(0), strangers=0, most=None)
        for user in users[begin : begin + _USERS_AT_ONCE].tolist():
            log.log(at, user)
        host, values = log.frame()["host"].to_numpy(), log.rows().T.astype(np.float64)
        ties += np.bincount(host, minlength=n_hosts)
        for name, quantity in demand.of.items():
            sums[name] += np.bincount(host, quantity.per_tie_of(values), minlength=n_hosts)
        progress("demand", min(1.0, (begin + _USERS_AT_ONCE) / len(users)))
    table: dict[str, Any] = {"host": np.arange(n_hosts), "ties": ties}
    for name, quantity in demand.of.items():
        table |= with_interval(name, quantity.of_hosts(sums[name]), quantity.shape)
    return pl.DataFrame(table).filter(pl.col("ties") > 0)


def with_interval(name: str, expected: Floats, shape: float) -> Mapping[str, Floats]:
    """Columns of a quantity: the expectation and the quantiles of its negative binomial."""
    tail = (1.0 - COVERED) / 2.0
    p = shape / (shape + expected)
    low, high = (np.nan_to_num(nbinom.ppf(q, shape, p)) for q in (tail, 1.0 - tail))
    return {name: expected, f"{name}_low": low, f"{name}_high": high}


def write_demand(
    writer: BundleWriter, world: World, vocabularies: Vocabularies, as_of_us: int, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Write the table `demand` of a bundle, for `laotie demand`: host_id and the columns of `expected_demand`.

    Returns:
        the hosts of whom most viewers are expected, for the report; nothing without a demand model.
    """
    if world.models.demand is None:
        return []
    users = np.arange(len(vocabularies.users))
    found = expected_demand(world, world.models.demand, users, as_of_us, progress)
    named = found.select(pl.Series("host_id", vocabularies.hosts.ids(found["host"].to_numpy())), pl.exclude("host"))
    writer.table("demand", named)
    first = next(name for name in QUANTITIES if name in named.columns)
    return named.sort(first, descending=True).head(REPORTED).to_dicts()


def read_demand(bundle: Bundle) -> list[dict[str, Any]]:
    """What `write_demand` wrote, hosts of the largest expectation first.

    Raises:
        InputRefused: the bundle has none; its stages say why.
    """
    if not bundle.has("demand"):
        why = [f"{stage.name}: {stage.why}" for stage in bundle.manifest.stages if stage.name.startswith("demand")]
        raise InputRefused("the bundle expects no demand", where=bundle.path, got="; ".join(why) or "no such table",
                           expected="a table of demand", hint="build it anew from watches and rooms")  # fmt: skip
    table = bundle.table("demand")
    first = next(name for name in QUANTITIES if name in table.columns)
    return table.sort(first, "host_id", descending=[True, False]).to_dicts()


def expected_line(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table of expected demand, intervals in words."""
    line = {"host": row["host_id"], "ties": row["ties"]}
    for name in QUANTITIES:
        if name in row:
            line[name] = f"{row[name]:.1f} ({row[f'{name}_low']:.0f}–{row[f'{name}_high']:.0f})"
    return line


def _stage(name: str, status: str, why: str) -> StageResult:
    return StageResult.model_validate({"name": f"demand {name}", "status": status, "why": why})
