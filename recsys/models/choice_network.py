"""Small networks that score candidates, trained on the listwise softmax loss: served, and teachers of the tables.

They see what trees see badly (smooth sums of many weak features) and so err elsewhere. Offline only: nothing online
imports torch; what is served is `recsys.models.block_network`.

Shape letters: N rows, F features, R requests, B requests of a batch, L candidates of the longest of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from recsys.models.block_network import TIE, VIEWER, BlockNetwork
from recsys.models.common_scale import scaled

Floats = npt.NDArray[np.float64]
_BATCH, _FEWEST = 256, 16
"""Requests of a batch, at most and at least."""
_STEPS = 40
"""Batches of an epoch, if that leaves enough requests for each: few requests take small steps, not few."""
_BLOCK = 65_536
_WIDTHS = (96, 32)
_LEAST_SPREAD = 1e-9


@dataclass
class ChoiceNetwork:
    """Trained networks, averaged, with the scaling of their inputs."""

    nets: list[nn.Module]
    centre: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    def score(self, rows: npt.NDArray[np.float32]) -> Floats:
        """Scores (N,) of rows (N, F), in log-odds up to a constant per request."""
        out = np.empty(len(rows))
        with torch.no_grad():
            for start in range(0, len(rows), _BLOCK):
                block = torch.from_numpy(_scaled(rows[start : start + _BLOCK], self.centre, self.scale))
                said = torch.stack([net(block).squeeze(-1) for net in self.nets]).sum(dim=0)
                out[start : start + _BLOCK] = said.numpy() / len(self.nets)
        return out

    def served(
        self, features: Sequence[str], blocks: Mapping[str, Sequence[str]], reference: Mapping[str, float]
    ) -> BlockNetwork:
        """The same networks, hidden layers and all, in the form that is served.

        Args:
            features: names of the F inputs; those that never vary where the networks learnt are left out.
            blocks: features by block, between them all of `features`.
            reference: of some features the value at which they say nothing; of the others it is the mean.
        """
        order = [VIEWER, TIE, *(name for name in blocks if name not in (VIEWER, TIE))]
        of_block = {name: np.isin(features, blocks.get(name, ())) & np.isfinite(self.scale) for name in order}
        kept = np.concatenate([np.flatnonzero(inside) for inside in of_block.values()])
        names = tuple(features[j] for j in kept)
        silent = np.array([[reference.get(name, np.nan)] for name in names]).reshape(-1, 1)
        layers = [[layer for layer in net.modules() if isinstance(layer, nn.Linear)] for net in self.nets]
        weights = [
            [(layer.weight.detach().numpy().astype(np.float64), layer.bias.detach().numpy()) for layer in net]
            for net in layers
        ]
        first, second, last = ([net[i] for net in weights] for i in range(3))
        centre, scale = self.centre[kept].astype(np.float64), self.scale[kept].astype(np.float64)
        return BlockNetwork(
            names,
            tuple(name for name, inside in of_block.items() for _ in range(int(inside.sum()))),
            centre,
            scale,
            scaled(silent, centre, scale)[:, 0],
            np.concatenate([w[:, kept] for w, _ in first]),
            np.concatenate([b for _, b in first]).astype(np.float64),
            np.stack([w for w, _ in second]),
            np.stack([b for _, b in second]).astype(np.float64),
            np.concatenate([w for w, _ in last]) / len(self.nets),
            float(np.mean([b for _, b in last])),
        ).bound_to(features)


@dataclass(frozen=True)
class SecondTask:
    """Rows (M, F) float32 and answers (M,) 0 or 1 that share all layers of the network but the last."""

    rows: npt.NDArray[np.float32]
    answers: npt.NDArray[np.float32]


def fit_choice_network(
    rows: npt.NDArray[np.float32],
    groups: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int8],
    correction: Floats,
    weights: Floats | None,
    *,
    epochs: int = 14,
    rate: float = 3e-3,
    decay: float = 0.02,
    dropout: float = 0.1,
    networks: int = 2,
    seed: int = 0,
    threads: int = 1,
    wide: bool = True,
    second: SecondTask | None = None,
) -> ChoiceNetwork:
    """Train `networks` networks from different starts.

    Args:
        rows: (N, F) float32, NaN for missing; candidates of a request stand together.
        groups: (R,) candidates per request.
        labels: (N,) 1 for the room entered.
        correction: (N,) added to the scores inside the softmax (sampled candidates).
        weights: (R,) weight of each request, or None.
        epochs, rate, decay, dropout: as `RankerConfig.network_…` says.
        wide: with hidden layers; without them it is a linear floor.
        second: a binary question asked of other rows along the way (multi-task); it does not change what is scored.
    """
    torch.set_num_threads(threads)
    moved = _spread(rows[:: max(1, len(rows) // 200_000)])
    known = ~np.isnan(moved)
    count = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, moved, 0.0).sum(axis=0, dtype=np.float64) / count
    spread = np.sqrt(np.where(known, (moved - centre) ** 2, 0.0).sum(axis=0) / count)
    spread = np.where(spread > _LEAST_SPREAD, spread, np.inf)  # what never varied must not speak when it does
    network = ChoiceNetwork([], centre.astype(np.float32), spread.astype(np.float32))
    inputs = torch.from_numpy(_scaled(rows, network.centre, network.scale))
    added = torch.from_numpy(correction.astype(np.float32))
    starts = np.cumsum(groups) - groups
    right = torch.from_numpy(np.flatnonzero(labels) - starts)
    weight = torch.ones(len(groups)) if weights is None else torch.from_numpy(weights.astype(np.float32))
    asked = None
    if second is not None:
        scaled = torch.from_numpy(_scaled(second.rows, network.centre, network.scale))
        asked = (scaled, torch.from_numpy(second.answers))
    for number in range(networks):
        torch.manual_seed(seed + number)
        net = _network(inputs.shape[1], dropout) if wide else nn.Sequential(nn.Linear(inputs.shape[1], 1))
        rng = np.random.default_rng(seed + number)
        _train(net, inputs, added, starts, groups, right, weight, epochs, rate, decay, rng, asked)
        network.nets.append(net.eval())
    return network


def _network(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, _WIDTHS[0]),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(*_WIDTHS),
        nn.ReLU(),
        nn.Linear(_WIDTHS[1], 1),
    )


def _train(
    net: nn.Sequential,
    inputs: torch.Tensor,
    added: torch.Tensor,
    starts: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    right: torch.Tensor,
    weight: torch.Tensor,
    epochs: int,
    rate: float,
    decay: float,
    rng: np.random.Generator,
    second: tuple[torch.Tensor, torch.Tensor] | None,
) -> None:
    batches = max(1, len(groups) // min(_BATCH, max(_FEWEST, len(groups) // _STEPS)))
    other = nn.Linear(_WIDTHS[1], 1)
    parameters = [*net.parameters(), *(other.parameters() if second is not None else ())]
    optimiser = torch.optim.AdamW(parameters, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * batches + 1)
    for _ in range(epochs):
        order = rng.permutation(len(groups))
        for batch in np.array_split(order, batches):
            longest = int(groups[batch].max())
            inside = np.arange(longest)[None, :] < groups[batch][:, None]
            at = (starts[batch][:, None] + np.arange(longest)[None, :])[inside]
            scores_BL = torch.full(inside.shape, -1e9)
            scores_BL[torch.from_numpy(inside)] = net(inputs[at]).squeeze(-1) + added[at]
            chosen = torch.from_numpy(batch)
            loss = nn.functional.cross_entropy(scores_BL, right[chosen], reduction="none")
            total = (loss * weight[chosen]).mean()
            if second is not None:
                drawn = torch.from_numpy(rng.integers(0, len(second[1]), _BATCH))
                said = other(net[:-1](second[0][drawn])).squeeze(-1)
                total = total + nn.functional.binary_cross_entropy_with_logits(said, second[1][drawn])
            optimiser.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()


def _spread(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Counts and ages on a scale a network can read: sign(x)·log(1 + |x|)."""
    return np.asarray(np.sign(rows) * np.log1p(np.abs(rows)), dtype=np.float32)


def _scaled(
    rows: npt.NDArray[np.float32], centre: npt.NDArray[np.float32], scale: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Centred, divided by the spread, cut at ±4; missing values lie at the centre."""
    out = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):
        moved = np.clip((_spread(rows[start : start + _BLOCK]) - centre) / scale, -4.0, 4.0)
        out[start : start + _BLOCK] = np.nan_to_num(moved)
    return out
