"""Typed configuration: one class per section, defaults in code, YAML for what one tunes.

To add a setting, add a field with its default, bounds and a docstring line to its section; to add a section, subclass
`Section` and give `EngineConfig` a field. Nothing else needs to know: YAML, `--set section.field=value`, the paths in
errors and the resolved config in the bundle follow from the class.

Types are strict: `"64"` is no integer and `true` is no number. Unknown and doubled keys are refused.
"""

from __future__ import annotations

from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """Base of every config class: immutable, strict types, unknown keys refused, docstrings under fields kept."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        arbitrary_types_allowed=False,
    )


class TiesConfig(Section):
    """How the tie state is laid out and what counts as staying for the person."""

    user_buckets: int = Field(default=64, ge=1, le=65_536)
    """Parts of the users that a build of more than 20,000 works on, as many at once as threads and memory allow; of a
    lake at most as many as it has buckets, unless those are large. A power of two."""
    product_slot_s: float = Field(default=360.0, gt=0)
    """Seconds a host spends on one product; a stay beyond two slots counts as staying for the person."""
    layer_share: float = Field(default=0.2, ge=0, le=1)
    """A nightly delta writes the ties that changed beside those of its base; beyond this share of them, all as one."""

    @field_validator("user_buckets")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("must be a power of two")
        return value


class AffinityConfig(Section):
    """What a tie weighs in collaborative filtering, beside the logarithm of its entries."""

    follow: float = Field(default=1.0, ge=0)
    """Confidence of a follow."""
    order: float = Field(default=2.0, ge=0)
    """Factor on log(1 + order lines)."""
    comment: float = Field(default=1.0, ge=0)
    """Factor on log(1 + comments)."""


class BuildConfig(Section):
    """Offline training: windows on the time axis, seeds, threads."""

    learn_share: float = Field(default=0.65, gt=0, lt=1)
    """Latest share of the data window that is replayed to learn from; what lies before is history only."""
    learn_days: float = Field(default=28.0, gt=0)
    """The replayed stretch is no longer than this, days."""
    later_share: float = Field(default=0.25, gt=0, lt=1)
    """Latest share of the replayed stretch: strength is calibrated there, and the build's own metrics are measured."""
    refits: int = Field(default=3, ge=0)
    """How often the collaborative models are fitted anew inside the replayed stretch, so that they are as fresh there
    as the service has them; each costs a batch of ties and a fit."""
    ranker_requests: int = Field(default=60_000, ge=100)
    """Requests sampled to train the ranker on."""
    ranker_candidates: int = Field(default=3_000_000, ge=1_000)
    """Candidates of all sampled requests together; where so many rooms are live that they would be more, fewer requests
    are sampled. A candidate takes half a kilobyte, and once more while the ranker is trained."""
    ranker_rooms: int = Field(default=200, ge=2)
    """Up to so many live rooms all of them are candidates in training; above it those the sources bring."""
    strength_rows: int = Field(default=200_000, ge=100)
    """Ties sampled to train and calibrate strength on."""
    factors: int = Field(default=64, ge=1)
    """Length of the host vectors."""
    graph_neighbours: int = Field(default=300, ge=1)
    """Entries of the host graph kept for each host of a history, those of largest magnitude, where there are more than
    a thousand hosts: a lookup reads them all for every host the viewer has ties with, and more say hardly more
    (docs/results.md, «The host graph of a build»)."""
    graph_solved: int = Field(default=10_000, ge=0)
    """Up to so many hosts, or viewers if these are fewer, the graph is solved for (EASE): time is the cube of it,
    memory 5 bytes times its square. Beyond, hosts are compared in pairs, which takes the square of viewers' ties."""
    seed: int = Field(default=1, ge=0)
    """Seed of everything random in a build."""
    threads: int = Field(default=2, ge=1)
    """Threads of numeric kernels; one pool at a time is opened this wide."""
    keep_bundles: int = Field(default=5, ge=2)
    """Newest bundles kept after a publish; two are needed for a rollback."""


class RankerConfig(Section):
    """How the ranker is trained; found on validation days of one public data set (docs/decisions)."""

    network_epochs: int = Field(default=14, ge=0)
    """Passes over the requests when the networks are trained that are served if they beat the tables on later
    requests. 0: no network is tried; the settings of the tables below hold."""
    network_rate: float = Field(default=3e-3, gt=0, le=0.1)
    """Highest rate of learning, reached after a third of the way and left again."""
    network_decay: float = Field(default=0.02, ge=0)
    """Of the weights, by AdamW."""
    network_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the first layer's units that is left out of a step."""
    private_bonus: float = Field(default=0.1, ge=0, le=5)
    """By how much more than the log-odds of his choice hosts a viewer knows are scored by the network, in log-odds.
    What known hosts gain by it new ones lose; over all the order is nearly as good on either side of 0. Here neither
    falls behind its own best part (docs/decisions/0013)."""
    networks: int = Field(default=1, ge=1)
    """Networks that are averaged; each is as much work for every answer, and a second one gained nothing measurable."""

    teacher_rounds: int = Field(default=250, ge=0)
    """Trees of the wide teacher (31 leaves); the second one (8 leaves) has 1.4 times as many. 0: no teachers."""
    network_share: float = Field(default=0.4, ge=0, le=1)
    """Share of a small network in what the teachers say; 0: trees only."""
    rounds: int = Field(default=700, ge=1)
    """Trees of depth two."""
    learning_rate: float = Field(default=0.15, gt=0, le=1)
    """Of the trees of depth two."""
    pairs: int = Field(default=120, ge=0)
    """Joint terms of two features at most: the ones a first quarter of the trees gained most by."""
    truth_share: float = Field(default=0.4, ge=0, le=1)
    """Weight of the truth against the teachers' opinion in the target."""
    kept_popular: int = Field(default=6, ge=0)
    """Most popular candidates of a request that always stay."""
    sampled_share: float = Field(default=0.3, gt=0, le=1)
    """Share of the other candidates that stays."""
    bins: int = Field(default=127, ge=3, le=255)
    """Thresholds per feature at most."""
    recency: float = Field(default=0.85, gt=0, le=1)
    """A request one day older counts this much less."""


class ProbabilityConfig(Section):
    """How a model of one probability is boosted."""

    rounds: int = Field(default=300, ge=1)
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    bins: int = Field(default=63, ge=3, le=255)


class StrengthConfig(ProbabilityConfig):
    """Strength: a regression on logarithms of counts (`bins`, `shrinkage`). The others boost the head `returns`."""

    shrinkage: float = Field(default=20.0, ge=0)
    """Precision of the normal prior of every coefficient, per standard deviation of its feature; 0: none."""


class HeadsConfig(ProbabilityConfig):
    """The heads besides strength and `returns`: each as cheap to read as it is worth."""

    rounds: int = Field(default=120, ge=1)
    customer_facts: int = Field(default=2_000_000, ge=1_000)
    """Facts of a bucket of users that are read to learn whether customers buy again within 30 days."""


class DemandConfig(Section):
    """How the expected demand of a host's next broadcast is learnt."""

    instants: int = Field(default=24, ge=4)
    """Instants of the replayed stretch at which ties are written down at rest."""
    users: int = Field(default=24_000, ge=100)
    """Users asked at all of these instants together; half a millisecond each."""


class TowerConfig(Section):
    """How the two-tower model is trained."""

    dimensions: int = Field(default=32, ge=1)
    attention_heads: int = Field(default=3, ge=1)
    """Mixes of short and long memory."""
    epochs: int = Field(default=3, ge=1)
    batch: int = Field(default=1024, ge=1)
    learning_rate: float = Field(default=0.01, gt=0, le=1)
    """Of Adam in the first epoch; it falls in equal steps from one to the next, and would be zero after the last."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """Factor on the squared vectors of a batch."""
    negatives: int = Field(default=32, ge=1)
    """Live rooms drawn for an example."""
    shared_negatives: int = Field(default=512, ge=1)
    """Hosts drawn for a whole batch."""
    shared_share: float = Field(default=0.1, ge=0, le=1)
    """Weight of the shared negatives against the live ones."""
    examples: int = Field(default=60_000, ge=100)
    """Entries sampled to train on."""


class GateRule(Section):
    """A threshold on one metric of a finished bundle; at least one bound is given, bounds are inclusive."""

    name: str = Field(min_length=1)
    """How the gate is called in the manifest and in messages."""
    metric: str = Field(min_length=1)
    """Key in the metrics of the manifest."""
    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.minimum is None and self.maximum is None:
            raise ValueError("needs a minimum, a maximum or both")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum lies above maximum")
        return self


DEFAULT_GATES: Final = (
    GateRule(name="strength is calibrated", metric="strength_ece_beyond_chance", maximum=0.05),
    GateRule(name="strength is not worse than the base rate", metric="head_strength_skill_high", minimum=0.0),
    GateRule(name="index finds what brute force finds", metric="index_recall_at_100", minimum=0.999),
    GateRule(name="strength has not drifted from the base", metric="drift_psi_strength", maximum=0.25),
    GateRule(name="strength tells ties apart as the base did", metric="drift_strength_slope", minimum=0.5, maximum=2.0),
    GateRule(name="features have not drifted from the base", metric="drift_psi_features_max", maximum=0.25),
)
"""Gates of every build; a gate whose metric a bundle lacks is reported as skipped."""


class SourceSizes(Section):
    """Most candidates a source of the public domain brings; the private domain is always complete."""

    nearest: int = Field(default=200, ge=0)
    """Live rooms nearest to the viewer's vector."""
    transition: int = Field(default=100, ge=0)
    """Live rooms of hosts that viewers went to from this viewer's last hosts."""
    popular: int = Field(default=100, ge=0)
    """Live rooms with the most recent entries."""
    newcomers: int = Field(default=20, ge=0)
    """Live rooms of hosts with hardly any history."""


class PipelineConfig(Section):
    """How candidates become an answer."""

    k: int = Field(default=20, ge=1)
    """Rooms in an answer when the caller does not say."""
    explore_share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the k places reserved for newcomers, rounded down; 0.05 of 20 is one place. 0 switches it off."""
    cohost_discount: float = Field(default=0.5, ge=0, le=1)
    """λ: how much of a co-host's tie and vector a joint broadcast inherits."""
    sources: SourceSizes = SourceSizes()


class EngineConfig(Section):
    """Everything one can tune. The resolved config is stored in the bundle and read back from there when serving."""

    ties: TiesConfig = TiesConfig()
    affinity: AffinityConfig = AffinityConfig()
    build: BuildConfig = BuildConfig()
    ranker: RankerConfig = RankerConfig()
    strength: StrengthConfig = StrengthConfig()
    heads: HeadsConfig = HeadsConfig()
    demand: DemandConfig = DemandConfig()
    tower: TowerConfig = TowerConfig()
    gates: tuple[GateRule, ...] = DEFAULT_GATES
    pipeline: PipelineConfig = PipelineConfig()

    @field_validator("gates")
    @classmethod
    def _names_differ(cls, value: tuple[GateRule, ...]) -> tuple[GateRule, ...]:
        names = [gate.name for gate in value]
        if len(set(names)) < len(names):
            raise ValueError("gate names must differ")
        return value
