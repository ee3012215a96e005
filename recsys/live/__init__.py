"""The state that moves: one update per fact, the same for replay, for training logs and for the service."""

from recsys.live.state import LiveState

__all__ = ["LiveState"]
