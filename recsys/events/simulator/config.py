"""What a simulated market is like: one frozen, typed config per world.

The defaults are the calibrated *private domain* world. The YAML files in configs/worlds/ name only what makes a world
different; an unknown key is refused with its path. No constant here is known to the engine that is measured on the
simulated events.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recsys.config.loading import load_config_as
from recsys.errors import ConfigError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
HourWeights = Annotated[tuple[NonNegative, ...], Field(min_length=24, max_length=24)]

WORLD_FOLDERS = (
    Path(__file__).resolve().parents[2] / "configs" / "worlds",  # inside an installed package
    Path(__file__).resolve().parents[3] / "configs" / "worlds",  # a checkout
)


class Section(BaseModel):
    """Base of every section: frozen, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Category(Section):
    """A kind of goods."""

    name: str
    share: Positive = 1.0
    trust_need: NonNegative = 1.0
    """Exponent on host trust when a viewer decides to buy: non-standard goods need more."""
    cycle_days: Positive = 14.0
    """After this many days a buyer is due again."""
    price_median_minor: Positive = 6_000.0


class Rhythm(Section):
    """Hours of the local day. Weights are relative; index = local hour."""

    utc_offset_hours: float = 8.0
    broadcast_start: HourWeights = (
        0.2, 0.1, 0.1, 0.1, 0.1, 0.2, 0.6, 0.9, 1.2, 1.4, 1.4, 1.4,
        1.3, 1.2, 1.3, 1.6, 2.6, 5.0, 9.0, 9.0, 5.0, 1.6, 0.6, 0.3,
    )  # fmt: skip
    viewing: HourWeights = (
        0.9, 0.5, 0.3, 0.2, 0.2, 0.3, 0.6, 1.0, 1.2, 1.4, 1.6, 2.4,
        3.4, 2.4, 1.6, 1.5, 1.7, 2.2, 3.6, 5.0, 5.6, 5.4, 4.4, 2.6,
    )  # fmt: skip


class Hosts(Section):
    """Hosts and their broadcasts."""

    popularity_sigma: NonNegative = 2.8
    """Standard deviation of log popularity: what the feed shows and who starts with fans."""
    broadcast_share_mean: Share = 0.55
    broadcast_share_spread: Positive = 2.5
    """Beta concentration of the share of days with a broadcast; large = all hosts alike."""
    start_jitter_hours: NonNegative = 0.25
    duration_median_hours: Positive = 2.6
    duration_sigma: NonNegative = 0.45
    newcomer_share: Share = 0.08
    leaves_per_30_days: NonNegative = 0.35
    leave_days_mean: Positive = 4.0
    announced_share: Share = 0.8
    joint_share: Share = 0.05
    """Share of broadcasts with one or two guests brought on air."""
    trust_mean: Share = 0.82
    trust_concentration: Positive = 7.0
    warmth_sigma: NonNegative = 0.35
    price_sigma: NonNegative = 0.5
    tier_shares: tuple[NonNegative, ...] = (0.18, 0.24, 0.22, 0.2, 0.16)


class Users(Section):
    """Viewers and their habits."""

    sessions_per_day_median: Positive = 0.9
    sessions_sigma: NonNegative = 0.8
    regular_share: Share = 0.35
    """Users with an hour of their own; the others come when the market does."""
    regular_jitter_hours: NonNegative = 0.35
    interest_sharpness: NonNegative = 1.6
    availability_min: Share = 0.6
    """An appointment is kept with strength × availability; availability is uniform in [this, 1]."""
    loyalty_sigma: NonNegative = 0.6
    buyer_share: Share = 0.45
    gifter_share: Share = 0.35
    newcomer_share: Share = 0.1
    tier_shares: tuple[NonNegative, ...] = (0.12, 0.18, 0.22, 0.26, 0.22)


class Relations(Section):
    """The latent tie. strength = logistic(base + affinity_weight·affinity + bond_weight·bond), in (0, 1): the
    probability that the user plans to come to the host's next broadcast."""

    slots: Annotated[int, Field(ge=2, le=64)] = 16
    """Hosts a user can keep in mind."""
    initial_mean: NonNegative = 6.0
    initial_bond_mean: Share = 0.35
    initial_bond_concentration: Positive = 1.2
    taste_dimensions: Annotated[int, Field(ge=1, le=64)] = 6
    strength_base: float = -4.3
    affinity_weight: float = 0.5
    bond_weight: float = 5.0
    growth: Share = 0.085
    """Share of the way to a full bond that one fully satisfying visit covers."""
    cooling: Share = 0.05
    """Share of the bond lost with each broadcast missed; none while the host is not on air."""
    good_order_growth: Share = 0.3
    bad_order_loss: Share = 0.55
    guest_discount: Share = 0.45
    """Pull of a host who is only a guest in another host's broadcast."""
    memorable_minutes: NonNegative = 4.0


class Exposure(Section):
    """The logging policy of the simulated app and the viewer's choice on a slate."""

    feed_positions: Annotated[int, Field(ge=1, le=12)] = 2
    feed_refresh_minutes: Annotated[float, Field(ge=5.0, le=120.0)] = 20.0
    rail_share: Share = 0.25
    """Chance that a live followed host is put on the follow rail of one slate."""
    newcomer_slot_share: Share = 0.25
    venue_slot_share: Share = 0.1
    commercial_slot_share: Share = 0.15
    enter_base: float = -1.1
    enter_affinity: float = 0.5
    enter_bond: float = 2.2
    enter_rail: float = 0.6
    position_decay: NonNegative = 0.12
    scroll_on_share: Share = 0.5
    """Chance of a further slate after one from which nothing was entered."""
    stay_on_share: Share = 0.5
    """Chance of a further slate after leaving a room."""


class Visits(Section):
    """Stays and interactions."""

    stay_median_minutes: Positive = 2.05
    stay_sigma: NonNegative = 1.15
    stay_affinity: float = 0.25
    stay_bond: float = 1.8
    comments_per_minute: NonNegative = 0.0125
    likes_per_minute: NonNegative = 0.0145
    """Bursts of taps a viewer-minute; each burst is one row whose count is the number of taps."""
    taps_per_like: Annotated[float, Field(ge=1.0)] = 11.0
    depth_bond: NonNegative = 0.5
    """How much a bond multiplies the comment rate, in logs."""
    shares_per_minute: NonNegative = 0.001
    gift_rate: NonNegative = 0.2
    gift_bond: NonNegative = 2.5
    gift_value_median_minor: Positive = 300.0
    gift_sigma: NonNegative = 1.0
    giver_sigma: NonNegative = 2.8
    """Spread of log gift values from gift to gift, and from giver to giver."""
    follow_rate: NonNegative = 0.05
    unfollow_daily: Share = 0.004
    not_interested_share: Share = 0.01
    block_share: Share = 0.0008
    unblock_share: Share = 0.35


class Commerce(Section):
    """Orders and what becomes of them."""

    buy_rate: NonNegative = 0.012
    buy_bond: NonNegative = 4.2
    rebuy_boost: NonNegative = 2.3
    """Factor, in logs, on the chance to buy where a good order was had before."""
    basket_sigma: NonNegative = 0.6
    extra_lines_mean: NonNegative = 0.25
    after_watch_share: Share = 0.12
    bad_order_scale: Share = 0.35
    """Chance of a bad order at a host with no trust at all."""
    plain_return_share: Share = 0.03
    refund_delay_days: Positive = 4.0


class Brushing(Section):
    """Order brushing: hosts who pay fake buyers for orders."""

    cheat_host_share: Share = 0.01
    fake_user_share: Share = 0.01
    orders_per_broadcast: Share = 0.6


class WorldConfig(Section):
    """One simulated market. `name` and `about` say what the world is for; the rest are its laws."""

    name: str = "private_domain"
    about: str = "relationships carry visits and orders; the calibrated world"
    categories: tuple[Category, ...] = (
        Category(name="apparel", share=2.0, trust_need=0.8, cycle_days=16, price_median_minor=8_900),
        Category(name="food", share=1.8, trust_need=0.7, cycle_days=9, price_median_minor=3_900),
        Category(name="beauty", share=1.4, trust_need=1.2, cycle_days=14, price_median_minor=7_900),
        Category(name="home", share=1.2, trust_need=0.8, cycle_days=18, price_median_minor=5_900),
        Category(name="farm_produce", share=1.0, trust_need=0.9, cycle_days=8, price_median_minor=3_500),
        Category(name="tea", share=0.6, trust_need=2.0, cycle_days=15, price_median_minor=16_800),
        Category(name="jewellery", share=0.6, trust_need=2.6, cycle_days=25, price_median_minor=59_900),
        Category(name="services", share=0.4, trust_need=2.4, cycle_days=28, price_median_minor=19_900),
    )
    rhythm: Rhythm = Rhythm()
    hosts: Hosts = Hosts()
    users: Users = Users()
    relations: Relations = Relations()
    exposure: Exposure = Exposure()
    visits: Visits = Visits()
    commerce: Commerce = Commerce()
    brushing: Brushing = Brushing()

    @model_validator(mode="after")
    def _check(self) -> WorldConfig:
        names = [category.name for category in self.categories]
        if not names or len(set(names)) != len(names):
            raise ValueError("categories: at least one is needed and names must differ")
        slots = self.exposure
        if slots.newcomer_slot_share + slots.venue_slot_share + slots.commercial_slot_share > 1.0:
            raise ValueError("exposure: the three explore slot shares must not exceed 1 in sum")
        return self


def load_world(name_or_path: str | Path) -> WorldConfig:
    """The world of a YAML file, or of a name in configs/worlds/.

    Raises ConfigError when there is no such file, it is not YAML, or a key or value is not allowed (all at once).
    """
    return load_config_as(WorldConfig, _find_world(name_or_path))


def _find_world(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if path.is_file():
            return path
        raise ConfigError("there is no such world file", where=path, hint="a name of configs/worlds will do, too")
    for folder in WORLD_FOLDERS:
        candidate = folder / f"{name_or_path}.yaml"
        if candidate.is_file():
            return candidate
    known = sorted({file.stem for folder in WORLD_FOLDERS if folder.is_dir() for file in folder.glob("*.yaml")})
    raise ConfigError(
        "there is no such world", got=str(name_or_path), expected=", ".join(known) or None, hint="or give a .yaml file"
    )
