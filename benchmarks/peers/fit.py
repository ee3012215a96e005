"""One peer on one set of pairs, run by `run.py` in the peers' environment; imports nothing of this project.

fit.py PEER TRAIN.parquet OUT.parquet K [USERS.parquet]

TRAIN: user_id, item_id and, where there is one, `at`. Without USERS, OUT holds the best K unseen items of every user
(user_id, rank, item_id, score); with USERS, the scores of every item for every user of that file (user_id, item_id,
score). Settings are those the libraries' own documents recommend; nothing is tuned on the kept-back pairs.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

SEED = 1


def main() -> None:
    peer, train_path, out_path, k, *rest = sys.argv[1:]
    train = pd.read_parquet(train_path)
    users, items = np.unique(train["user_id"]), np.unique(train["item_id"])
    rows, columns = np.searchsorted(users, train["user_id"]), np.searchsorted(items, train["item_id"])
    counts = sp.csr_matrix((np.ones(len(train), dtype=np.float32), (rows, columns)), shape=(len(users), len(items)))
    score = PEERS[peer](train.assign(row=rows, column=columns), counts)
    if rest:
        asked = np.intersect1d(np.unique(pd.read_parquet(rest[0])["user_id"]), users)
        said = score(np.searchsorted(users, asked))
        frame = {"user_id": np.repeat(asked, len(items)), "item_id": np.tile(items, len(asked)), "score": said.ravel()}
        pd.DataFrame(frame).to_parquet(out_path)
        return
    parts = []
    for start in range(0, len(users), 1_000):
        block = np.arange(start, min(start + 1_000, len(users)))
        said = np.array(score(block), dtype=np.float32)
        seen = counts[block].tocoo()
        said[seen.row, seen.col] = -np.inf
        top = np.argpartition(-said, int(k) - 1, axis=1)[:, : int(k)]
        best = np.take_along_axis(said, top, axis=1)
        order = np.argsort(-best, axis=1, kind="stable")
        top, best = np.take_along_axis(top, order, axis=1), np.take_along_axis(best, order, axis=1)
        frame = pd.DataFrame({
            "user_id": np.repeat(users[block], top.shape[1]), "rank": np.tile(np.arange(1, top.shape[1] + 1), len(top)),
            "item_id": items[top.ravel()], "score": best.ravel(),
        })  # fmt: skip
        parts.append(frame[np.isfinite(frame["score"])])
    pd.concat(parts).to_parquet(out_path)


def implicit_als(_, counts):
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=128, regularization=0.05, alpha=10, iterations=15, random_state=SEED)
    model.fit(np.log1p(counts), show_progress=False)
    return lambda block: model.user_factors[block] @ model.item_factors.T


def implicit_bpr(_, counts):
    from implicit.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(factors=64, learning_rate=0.05, iterations=60, random_state=SEED, num_threads=1)
    model.fit(counts.sign(), show_progress=False)
    return lambda block: model.user_factors[block] @ model.item_factors.T


def lightfm_warp(_, counts):
    from lightfm import LightFM

    model = LightFM(no_components=64, loss="warp", random_state=SEED)
    model.fit(counts.sign().tocoo(), epochs=20, num_threads=1)
    user_bias, users = model.get_user_representations()
    item_bias, items = model.get_item_representations()
    return lambda block: users[block] @ items.T + item_bias[None, :] + user_bias[block, None]


def rectools_ease(train, counts):
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import EASEModel

    table = pd.DataFrame({
        Columns.User: train["row"], Columns.Item: train["column"], Columns.Weight: 1.0, Columns.Datetime: "2022-01-01",
    }).drop_duplicates()  # fmt: skip
    dataset = Dataset.construct(table)
    model = EASEModel(regularization=500.0)
    model.fit(dataset)
    internal = dataset.item_id_map.convert_to_internal(np.arange(counts.shape[1]))
    weight = model.weight[np.ix_(internal, internal)]
    liked = counts.sign()
    return lambda block: liked[block] @ weight


def recbole_lightgcn(train, counts):
    return _recbole(
        "LightGCN", train, counts, {"embedding_size": 64, "n_layers": 2, "epochs": 40, "learning_rate": 0.005}
    )


def recbole_sasrec(train, counts):
    settings = {
        "MAX_ITEM_LIST_LENGTH": 50, "epochs": 20, "train_neg_sample_args": None, "hidden_size": 64, "inner_size": 128,
        "n_layers": 2, "n_heads": 2, "loss_type": "CE",
    }  # fmt: skip
    return _recbole("SASRec", train, counts, settings)


def _recbole(name, train, counts, settings):
    """Train without RecBole's own split: everything before the cut is training; its last states give the scores."""
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.data.interaction import Interaction
    from recbole.utils import get_model, get_trainer, init_seed

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    (folder / "peer").mkdir()
    order = train.sort_values("at") if "at" in train else train
    table = pd.DataFrame({
        "user_id:token": order["row"].to_numpy(), "item_id:token": order["column"].to_numpy(),
        "timestamp:float": np.arange(len(order), dtype=np.float64),
    })  # fmt: skip
    table.to_csv(folder / "peer" / "peer.inter", sep="\t", index=False)
    base = {
        "data_path": str(folder), "dataset": "peer", "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp", "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "use_gpu": False,
        "eval_args": {"split": {"RS": [1.0, 0.0, 0.0]}, "order": "TO", "mode": "full", "group_by": "user"},
        "seed": SEED, "train_batch_size": 4096, "show_progress": False, "state": "ERROR", "stopping_step": 1_000,
        "checkpoint_dir": str(folder), "worker": 0,
    }  # fmt: skip
    os.chdir(folder)
    sys.argv = sys.argv[:1]
    config = Config(model=name, dataset="peer", config_dict={**base, **settings})
    init_seed(SEED, True)
    dataset = create_dataset(config)
    train_data, _, _ = data_preparation(config, dataset)
    model = get_model(name)(config, train_data.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    trainer.fit(train_data, None, saved=False, verbose=False)
    model.eval()
    ids = np.array([dataset.token2id("item_id", str(column)) for column in range(counts.shape[1])])
    if name == "LightGCN":
        with torch.no_grad():
            users, items = (part.numpy() for part in model.forward())
        rows = np.array([dataset.token2id("user_id", str(row)) for row in range(counts.shape[0])])
        return lambda block: users[rows[block]] @ items[ids].T
    histories = order.groupby("row")["column"].apply(lambda seen: ids[seen.to_numpy()[-50:]])

    def score(block):
        said = np.zeros((len(block), counts.shape[1]), dtype=np.float32)
        for start in range(0, len(block), 256):
            part = block[start : start + 256]
            lengths = torch.tensor([len(histories[row]) for row in part])
            sequences = torch.zeros((len(part), 50), dtype=torch.long)
            for i, row in enumerate(part):
                sequences[i, : lengths[i]] = torch.tensor(histories[row])
            asked = Interaction({"item_id_list": sequences, "item_length": lengths})
            with torch.no_grad():
                said[start : start + 256] = model.full_sort_predict(asked).reshape(len(part), -1).numpy()[:, ids]
        return said

    return score


PEERS = {
    "implicit ALS": implicit_als,
    "implicit BPR": implicit_bpr,
    "LightFM WARP": lightfm_warp,
    "RecTools EASE": rectools_ease,
    "RecBole LightGCN": recbole_lightgcn,
    "RecBole SASRec": recbole_sasrec,
}

if __name__ == "__main__":
    main()
