"""Symmetric logarithm and two-hot regression of rewards (Sec. 3.3; Hafner et al. 2023).

A scalar is squashed by symlog and spread over the two neighbouring bins of a fixed grid; a classifier learns that distribution.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pwmlib.settings import Real, SettingError, Several, settings

__all__ = ["TwoHot", "symexp", "symlog"]


def symlog(x: Tensor) -> Tensor:
    """Return sign(x) log(1 + |x|), any shape."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """Invert `symlog`: sign(x) (e^|x| - 1), any shape.

    Its derivative is e^|x| everywhere, 0 included: there sign(x) would make autograd's answer 0, so x itself stands in.
    """
    return torch.where(x == 0, x, torch.sign(x) * torch.expm1(x.abs()))


@lru_cache(maxsize=32)
def _bins(low: float, high: float, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # the first to ask may be in it; the cached tensor must serve training too
        return torch.linspace(low, high, count, device=device, dtype=dtype)


@settings
class TwoHot:
    """A two-hot code over `bins` equally spaced points of [low, high] in symlog space (Table 1: 101 bins on [-10, 10])."""

    bins: Several = 101
    low: Real = -10.0
    high: Real = 10.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise SettingError("low", self.low, f"must be less than high={self.high}")

    def points(self, like: Tensor) -> Tensor:
        """Return the bin centres in symlog space, shape [bins], on the device and dtype of `like`."""
        return _bins(self.low, self.high, self.bins, like.device, like.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """Return the two-hot distribution, [..., bins], of scalars x, [...].

        Values beyond the ends go to the end bin, and NaN gives NaN, so that training can stop on it.
        """
        position = (symlog(x).clamp(self.low, self.high) - self.low) / ((self.high - self.low) / (self.bins - 1))
        lower = position.floor().clamp(max=self.bins - 2)
        weight = (position - lower).unsqueeze(-1)
        index = lower.nan_to_num(0.0).long().unsqueeze(-1)
        code = torch.zeros(*x.shape, self.bins, device=x.device, dtype=x.dtype)
        return code.scatter_(-1, index, 1.0 - weight).scatter_(-1, index + 1, weight)

    def decode(self, logits: Tensor, *, inverse_symlog: bool) -> Tensor:
        """Return the expected value, [...], under softmax(logits), [..., bins].

        inverse_symlog=True gives the reward in its own units; False stays in symlog space, which is what the paper (and the
        released code) optimises: "we omit SymExp".
        """
        if logits.shape[-1] != self.bins:
            raise ValueError(f"TwoHot.decode: expected {self.bins} logits in the last dimension, got shape {tuple(logits.shape)}")
        value = logits.softmax(-1) @ self.points(logits)
        return symexp(value) if inverse_symlog else value

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy (second term of Eq. 10) of logits [..., bins] against the two-hot code of target [...]; shape [...]."""
        if logits.shape[:-1] != target.shape:
            raise ValueError(f"TwoHot.cross_entropy: logits {tuple(logits.shape)} do not fit targets {tuple(target.shape)} + [{self.bins}]")
        return -(self.encode(target) * F.log_softmax(logits, -1)).sum(-1)
