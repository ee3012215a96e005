"""Exact search over the rooms live now. FAISS lives here and nowhere else."""

from recsys.index.epoch import Epoch, HostJoin
from recsys.index.flat import IndexInputError
from recsys.index.live_rooms import LiveIndexConfig, LiveRoomIndex

__all__ = ["Epoch", "HostJoin", "IndexInputError", "LiveIndexConfig", "LiveRoomIndex"]
