"""Training of the two-tower model with PyTorch (offline only).

An example is one entry: the viewer's history before it, the host entered, and rooms he could have entered instead. The
loss is the softmax over the host entered and sampled others, each corrected by −log of how often it is expected in the
sample (sampled softmax: Bengio, Senécal, 2008; logQ: Yi et al., RecSys 2019), so that it estimates the choice among all
rooms live at that instant. Negatives are drawn from those rooms; where impressions are known, what he was shown and
did not enter; and a few, shared by the batch, of all hosts. Never the batch's own positives only, which would
punish popular hosts for being popular.

Shape letters: R examples, P pairs (example, host of its history), K half-lives, S negatives of an example.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.config import TowerConfig
from recsys.models.two_tower import EPSILON, HALF_LIVES_DAYS, HOUR_SLOTS, TwoTower


@dataclass(frozen=True)
class Examples:
    """R entries with their histories.

    Args:
        host: (R,) entered; at_us: (R,) when; tier: (R,) city tier of the viewer, 0 unknown.
        starts: (R + 1,) where each history begins among the pairs; history: (P,) host rows; counts: (P, K) decayed
            entries, then the plain count.
        others: (R, S) hosts he could have entered instead, −1 where there were fewer; correction: (R, S) −log of how
            often each is expected in the sample.
    """

    host: npt.NDArray[np.int64]
    at_us: npt.NDArray[np.int64]
    tier: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    history: npt.NDArray[np.int64]
    counts: npt.NDArray[np.float32]
    others: npt.NDArray[np.int64]
    correction: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.host)


def fit_two_tower(
    examples: Examples,
    category: npt.NDArray[np.int64],
    tier_of_user: npt.NDArray[np.int8],
    config: TowerConfig,
    seed: int,
    threads: int,
) -> TwoTower:
    """Train both towers.

    Args:
        category: (H,) code of each host's category, 0 unknown.
        tier_of_user: (U,) code of each user's city tier, 0 unknown.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            n_tiers = 1 + max(int(codes.max(initial=0)) for codes in (examples.tier, tier_of_user))
            towers = _Towers(category, n_tiers, examples.counts.shape[1], config)
            _train(towers, examples, config, np.random.default_rng(seed))
            return towers.export(tier_of_user)
    finally:
        torch.set_num_threads(before)


class _Towers(nn.Module):
    def __init__(self, category: npt.NDArray[np.int64], n_tiers: int, k: int, config: TowerConfig) -> None:
        super().__init__()
        d, n_hosts = config.dimensions, len(category)
        self.category = torch.from_numpy(category)
        self.history = _table(n_hosts, d)
        self.hosts = _table(n_hosts, d + 1)
        self.category_history = nn.Parameter(torch.zeros(int(category.max(initial=0)) + 1, d))
        self.category_hosts = nn.Parameter(torch.zeros(int(category.max(initial=0)) + 1, d + 1))
        self.mix = nn.Parameter(torch.randn(config.attention_heads, k) * 0.5 - 1.0)
        self.project = nn.Parameter(torch.eye(d).repeat(config.attention_heads, 1, 1))
        self.hours = nn.Parameter(torch.zeros(HOUR_SLOTS, d))
        self.tiers = nn.Parameter(torch.zeros(n_tiers, d))

    def viewer(self, starts: Tensor, history: Tensor, counts: Tensor, slot: Tensor, tier: Tensor) -> Tensor:
        weights = torch.log1p(counts) @ functional.softplus(self.mix).T
        example = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())
        vectors = self.history(history) + self.category_history[self.category[history]]
        out = self.hours[slot] + self.tiers[tier]
        for a in range(len(self.mix)):
            weight = weights[:, a : a + 1]
            total = torch.zeros(len(starts) - 1, 1).index_add(0, example, weight)
            mean = torch.zeros(len(out), vectors.shape[1]).index_add(0, example, weight * vectors) / (EPSILON + total)
            out = out + mean @ self.project[a].T
        return out

    def host(self, rows: Tensor) -> Tensor:
        found: Tensor = self.hosts(rows) + self.category_hosts[self.category[rows]]
        return found

    def export(self, tier_of_user: npt.NDArray[np.int8]) -> TwoTower:
        with torch.no_grad():
            everybody = torch.arange(len(self.category))
            return TwoTower(
                history=(self.history(everybody) + self.category_history[self.category]).numpy().copy(),
                hosts=self.host(everybody).numpy().copy(),
                mix=functional.softplus(self.mix).numpy().copy(),
                project=self.project.numpy().copy(),
                hours=self.hours.numpy().copy(),
                tiers=self.tiers.numpy().copy(),
                of_category=self.category_hosts.numpy().copy(),
                half_lives_days=np.array(HALF_LIVES_DAYS, dtype=np.float32),
                tier_of_user=tier_of_user,
            )


def _table(rows: int, width: int) -> nn.Embedding:
    table = nn.Embedding(rows, width, sparse=True)
    nn.init.normal_(table.weight, std=0.05)
    return table


def _train(towers: _Towers, examples: Examples, config: TowerConfig, rng: np.random.Generator) -> None:
    tables = [towers.history.weight, towers.hosts.weight]
    dense = [p for p in towers.parameters() if not any(p is table for table in tables)]
    sparse_step = torch.optim.SparseAdam(tables, lr=config.learning_rate)
    dense_step = torch.optim.Adam(dense, lr=config.learning_rate)
    popularity = np.bincount(examples.host, minlength=len(towers.category)) + 1.0
    chance = popularity**0.75 / (popularity**0.75).sum()
    for epoch in range(config.epochs):
        rate = config.learning_rate * (1.0 - epoch / config.epochs)
        for group in sparse_step.param_groups + dense_step.param_groups:
            group["lr"] = rate
        order = rng.permutation(len(examples))
        for begin in range(0, len(order), config.batch):
            rows = order[begin : begin + config.batch]
            shared = rng.choice(len(chance), config.shared_negatives, p=chance)
            loss = _loss(towers, examples, rows, shared, np.log(config.shared_negatives * chance[shared]), config)
            sparse_step.zero_grad()
            dense_step.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            sparse_step.step()  # type: ignore[no-untyped-call]
            dense_step.step()


def _loss(
    towers: _Towers,
    examples: Examples,
    rows: npt.NDArray[np.int64],
    shared: npt.NDArray[np.int64],
    shared_log_q: npt.NDArray[np.float64],
    config: TowerConfig,
) -> Tensor:
    lengths = examples.starts[rows + 1] - examples.starts[rows]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    pairs = np.repeat(examples.starts[rows] - starts[:-1], lengths) + np.arange(starts[-1])
    slot = (examples.at_us[rows] // (86_400_000_000 // HOUR_SLOTS)) % HOUR_SLOTS
    viewer = towers.viewer(
        torch.from_numpy(starts), torch.from_numpy(examples.history[pairs]), torch.from_numpy(examples.counts[pairs]),
        torch.from_numpy(slot), torch.from_numpy(examples.tier[rows]),
    )  # fmt: skip
    right, others = torch.from_numpy(examples.host[rows]), torch.from_numpy(examples.others[rows])
    candidates = torch.cat([right[:, None], others.clamp(min=0)], dim=1)
    vectors = towers.host(candidates.ravel()).view(*candidates.shape, -1)
    scores = torch.einsum("rd,rcd->rc", viewer, vectors[..., :-1]) + vectors[..., -1]
    correction = torch.cat([torch.zeros(len(rows), 1), torch.from_numpy(examples.correction[rows])], dim=1)
    absent = torch.cat([torch.zeros(len(rows), 1, dtype=torch.bool), (others < 0) | (others == right[:, None])], dim=1)
    scores = (scores + correction).masked_fill(absent, -1e9)
    common = towers.host(torch.from_numpy(shared))
    wide = viewer @ common[:, :-1].T + common[:, -1] - torch.from_numpy(shared_log_q).float()
    wide = wide.masked_fill(torch.from_numpy(shared)[None, :] == right[:, None], -1e9)
    live = functional.cross_entropy(scores, torch.zeros(len(rows), dtype=torch.long), reduction="none")
    every = torch.logsumexp(torch.cat([scores[:, :1], wide], dim=1), dim=1) - scores[:, 0]
    each = (1.0 - config.shared_share) * live + config.shared_share * every
    penalty = config.weight_decay * ((viewer**2).sum() + (vectors[..., :-1] ** 2).sum() / vectors.shape[1])
    return (each.sum() + penalty) / len(rows)
