"""Two stages of boosted trees: P(the customer orders) x P(he buys this product | he orders).

Rows of one customer at one cut share one coin toss, whether he orders at all. A model of pairs sees that toss
hundreds of times and learns it by heart; a model of customers sees it once. Hence the split. A ranker, trained on the
order within a customer alone, adjusts the second stage without moving its mean per customer.
Formulas and measurements: docs/formulas/rebuy.md.

Shape letters: n pairs, c (cut, customer) groups, F features, U customer features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.models.calibration import FloatArray, logit, sigmoid
from training.rebuy.config import RebuyConfig, TreeConfig
from training.rebuy.features import KEYS, pair_features, rebought
from training.rebuy.orders import Orders

Matrix = NDArray[np.float32]
Rows = NDArray[np.int64]

CUSTOMER_PREFIXES = ("u_", "w_u_")
CUSTOMER_IN_PRODUCT_STAGE = (
    "u_n", "u_last", "u_first", "u_days", "u_n30", "u_decayed_orders60", "u_gap_mean", "u_size", "u_size_recent",
    "u_products", "u_products_twice", "u_repeat", "u_repeat90", "u_repeat_last3", "w_u_given_order",
)  # fmt: skip
"""The second stage sees few facts of the customer: with all of them it recognises him and learns his tosses."""


@dataclass(frozen=True)
class PairTable:
    """Pairs to score at one or several cuts, a customer's pairs at a cut being neighbours.

    Attributes:
        u, p: dense rows, (n,).  x: features, NaN where unknown, (n, F).  names: the F columns.
        start: first pair of each group, (c,).  group: group of each pair, (n,).
        age: days from the group's cut to the youngest cut, (c,).
        y: bought again, (n,).  ordered: the customer ordered anything, (c,). Both empty if not labelled.
    """

    u: Rows
    p: Rows
    x: Matrix
    names: tuple[str, ...]
    start: Rows
    group: Rows
    age: FloatArray
    y: FloatArray
    ordered: FloatArray

    @property
    def pairs_per_group(self) -> FloatArray:
        return np.bincount(self.group, minlength=len(self.start)).astype(np.float64)


def pair_table(
    orders: Orders,
    cuts: Sequence[float],
    horizon_days: float,
    config: RebuyConfig,
    *,
    labelled: bool,
    keep: NDArray[np.bool_] | None = None,
    progress: Callable[[float], None] | None = None,
) -> PairTable:
    """Features (and labels) of all pairs at every cut; `keep` (users,) samples customers after their features are made.

    Labels of a cut lie in [cut, cut + horizon): the caller answers for that window being over.
    """
    u, p, x, y, ordered, age, start = [], [], [], [], [], [], []
    names: tuple[str, ...] = ()
    size = 0
    for number, cut in enumerate(cuts):
        table = pair_features(orders, cut, horizon_days, config.active_days)
        if keep is not None:
            table = table.filter(pl.lit(pl.Series(keep)).gather(pl.col("u")))
        names = tuple(c for c in table.columns if c not in KEYS)
        users = table["u"].to_numpy().astype(np.int64)
        if labelled:
            found = rebought(orders, cut, horizon_days)
            label = table.select("u", "p").join(found, on=["u", "p"], how="left", maintain_order="left")["y"]
            y.append(label.fill_null(0).to_numpy().astype(np.float64))
            inside = orders.purchases.filter((pl.col("day") >= cut) & (pl.col("day") < cut + horizon_days))
            ordered.append(np.isin(np.unique(users), inside["u"].unique().to_numpy()).astype(np.float64))
        first = np.unique(users, return_index=True)[1]
        start.append(first + size)
        age.append(np.full(len(first), max(cuts) - cut))
        size += len(users)
        u.append(users)
        p.append(table["p"].to_numpy().astype(np.int64))
        x.append(table.select(pl.col(names).cast(pl.Float32)).fill_null(np.nan).to_numpy())
        if progress is not None:
            progress((number + 1) / len(cuts))
    starts = np.concatenate(start).astype(np.int64)
    lengths = np.diff(np.append(starts, size))
    none = np.zeros(0)
    return PairTable(
        u=np.concatenate(u), p=np.concatenate(p), x=np.concatenate(x), names=names, start=starts,
        group=np.repeat(np.arange(len(starts)), lengths), age=np.concatenate(age),
        y=np.concatenate(y) if y else none, ordered=np.concatenate(ordered) if ordered else none,
    )  # fmt: skip


@dataclass(frozen=True)
class RebuyModel:
    """The fitted stages; `ranker` is None where only the level is of interest."""

    customer_columns: Rows
    product_columns: Rows
    orders_stage: Any
    product_stage: Any
    ranker: Any
    rank_share: float

    @classmethod
    def fit(
        cls,
        table: PairTable,
        config: RebuyConfig,
        *,
        seed: int,
        with_ranker: bool = True,
        progress: Callable[[float], None] | None = None,
    ) -> Self:
        """Train on labelled cuts; a cut weighs 0.5^(age / half-life).

        A customer's weight in the first stage grows with the root of his number of pairs, and a pair's in the second
        falls with it: a compromise between judging pairs (calibration) and customers (ranking).
        """
        report = progress or _ignore
        product_columns, customer_columns = split_columns(table.names)
        freshness = 0.5 ** (table.age / config.cut_half_life_days)
        root = np.sqrt(table.pairs_per_group / table.pairs_per_group.mean())
        orders_stage = _boost(
            table.x[table.start][:, customer_columns], table.ordered, freshness * root, config.orders_trees, seed
        )
        report(0.1)
        rows = table.ordered[table.group] > 0
        x, y, groups = table.x[rows][:, product_columns], table.y[rows], table.group[rows]
        product_stage = _boost(x, y, (freshness / root)[groups], config.product_trees, seed + 1)
        report(0.5)
        ranker = None
        if with_ranker and config.rank_share > 0:
            lengths = np.bincount(groups, minlength=len(table.start))
            lengths = lengths[lengths > 0]
            ranker = _boost(x, y, freshness[groups], config.rank_trees, seed + 2, group=lengths)
        report(1.0)
        return cls(customer_columns, product_columns, orders_stage, product_stage, ranker, config.rank_share)

    def predict(self, table: PairTable) -> FloatArray:
        """P(bought again within the horizon), (n,), before the level is corrected."""
        ordering = np.asarray(self.orders_stage.predict(table.x[table.start][:, self.customer_columns]))
        x = table.x[:, self.product_columns]
        z = logit(self.product_stage.predict(x))
        if self.ranker is not None:
            z = blend_within(z, np.asarray(self.ranker.predict(x)), table.group, self.rank_share)
        return np.asarray(sigmoid(z) * ordering[table.group])


def _ignore(_: float) -> None:
    """The progress nobody looks at."""


def split_columns(names: Sequence[str]) -> tuple[Rows, Rows]:
    """Columns of the product stage and of the customer stage."""
    customer = [i for i, name in enumerate(names) if name.startswith(CUSTOMER_PREFIXES)]
    shared = {i for i in customer if names[i] in CUSTOMER_IN_PRODUCT_STAGE}
    product = [i for i in range(len(names)) if i in shared or i not in set(customer)]
    return np.array(product, dtype=np.int64), np.array(customer, dtype=np.int64)


def blend_within(z: FloatArray, score: FloatArray, group: Rows, share: float) -> FloatArray:
    """Mix a ranking score into the log-odds `z` without moving the mean of `z` in any group.

    z' = m + (1 - share)(z - m) + share x s x (score - mean score), with m the group mean of z and s the ratio of the
    within-group standard deviations of z and of score. A score that is constant within groups changes nothing but
    the share.
    """
    count = np.bincount(group)
    centre = (np.bincount(group, z) / np.maximum(count, 1))[group]
    deviation = z - centre
    score_deviation = score - (np.bincount(group, score) / np.maximum(count, 1))[group]
    spread = float(score_deviation.std())
    if spread == 0.0:
        return z
    return centre + (1 - share) * deviation + share * float(deviation.std()) / spread * score_deviation


def _boost(
    x: Matrix, y: FloatArray, weight: FloatArray, trees: TreeConfig, seed: int, *, group: Rows | None = None
) -> Any:
    """One LightGBM ensemble on one thread; binary cross-entropy, or LambdaMART if `group` gives group lengths."""
    parameters: dict[str, Any] = {
        "objective": "binary" if group is None else "lambdarank",
        "lambdarank_truncation_level": 20,
        "num_leaves": trees.leaves,
        "learning_rate": trees.learning_rate,
        "min_data_in_leaf": trees.min_leaf_rows,
        "lambda_l2": trees.l2,
        "feature_fraction": trees.feature_share,
        "bagging_fraction": trees.row_share,
        "bagging_freq": 1,
        "max_bin": 63,
        "seed": seed,
        "num_threads": 1,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }
    data = lgb.Dataset(x, y, weight=weight, group=group, free_raw_data=True, params={"max_bin": 63, "verbose": -1})
    return lgb.train(parameters, data, trees.rounds)
