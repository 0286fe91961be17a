"""Episodes on disk and in batches: the store, the sampler, and the behaviours that fill it."""

from .behaviours import BEHAVIOURS, make_behaviour
from .sampler import SliceSampler
from .store import Episode, EpisodeFileError, EpisodeStore

__all__ = ["BEHAVIOURS", "Episode", "EpisodeFileError", "EpisodeStore", "SliceSampler", "make_behaviour"]
