"""Exact search over the rooms live now, and over hosts. FAISS lives here and nowhere else."""

from recsys.index.epoch import Epoch, HostJoin
from recsys.index.flat import IndexInputError
from recsys.index.hosts import HostIndex
from recsys.index.live_config import LiveIndexConfig
from recsys.index.live_rooms import LiveRoomIndex

__all__ = ["Epoch", "HostIndex", "HostJoin", "IndexInputError", "LiveIndexConfig", "LiveRoomIndex"]
