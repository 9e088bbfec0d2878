"""Replay the steps of a leak path with numbers, one file per operator family."""

from leakaudit.attack.replay.registry import REPLAYS, replay, walk

__all__ = ["REPLAYS", "replay", "walk"]
