"""Settings of the repurchase model; every default was chosen on as-of cuts inside the data (docs/formulas/rebuy.md)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TreeConfig(BaseModel):
    """One LightGBM ensemble."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(default=160, ge=1)
    leaves: int = Field(default=15, ge=2)
    learning_rate: float = Field(default=0.06, gt=0, le=1)
    min_leaf_rows: int = Field(default=500, ge=1)
    l2: float = Field(default=50.0, ge=0)
    feature_share: float = Field(default=0.3, gt=0, le=1)
    row_share: float = Field(default=0.6, gt=0, le=1)


class RebuyConfig(BaseModel):
    """The whole estimator."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    active_days: float = Field(
        default=90.0, gt=0, description="a customer is scored if he bought within this before as-of"
    )
    cut_step_days: float = Field(
        default=10.0, gt=0, description="distance of training cuts; their label windows overlap"
    )
    min_history_days: float = Field(default=60.0, gt=0, description="no training cut has less history before it")
    min_cuts: int = Field(default=2, ge=1, description="fewer usable cuts: the counting estimator is used and reported")
    min_rebuys: int = Field(default=200, ge=1, description="fewer positive pairs in training: the same")
    max_training_pairs: int = Field(default=2_500_000, ge=1_000, description="above it customers are sampled")
    cut_half_life_days: float = Field(default=60.0, gt=0, description="weight of a training cut by its age")
    backtests: int = Field(
        default=2, ge=0, description="earlier origins whose error corrects the level of the prediction"
    )
    level_sd: float = Field(default=0.05, gt=0, description="expected systematic error of the level, log-odds")
    level_noise_sd: float = Field(default=0.1, gt=0, description="expected chance variation of a window, log-odds")
    rank_share: float = Field(default=0.6, ge=0, le=1, description="share of the ranker in the order within a customer")
    orders_trees: TreeConfig = TreeConfig(rounds=110, leaves=6, learning_rate=0.04, min_leaf_rows=100, l2=20.0)
    product_trees: TreeConfig = TreeConfig()
    rank_trees: TreeConfig = TreeConfig(rounds=160, learning_rate=0.05, min_leaf_rows=300)
