"""Moments that run along with a training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["RunningMoments"]


class RunningMoments(nn.Module):
    """Mean and variance of all batches seen so far (Chan et al. 1979); as a layer it standardises its input."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(shape, dtype=dtype))
        self.variance = nn.Buffer(torch.ones(shape, dtype=dtype))
        self.count = nn.Buffer(torch.tensor(1e-4, dtype=dtype))  # what it begins with has almost no weight

    @torch.no_grad()
    def add(self, batch: Tensor) -> None:
        """Fold in a batch, shape [..., *shape]."""
        values = batch.to(self.mean.dtype).reshape(-1, *self.mean.shape)
        n, delta = len(values), values.mean(0) - self.mean
        total = self.count + n
        squares = self.variance * self.count + values.var(0, unbiased=False) * n + delta.square() * self.count * n / total
        self.variance.copy_(squares / total)
        self.mean.add_(delta * n / total)
        self.count.copy_(total)

    @property
    def std(self) -> Tensor:
        """The standard deviation, sqrt(variance + 1e-5)."""
        return (self.variance + 1e-5).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        """Standardise x [..., *shape]."""
        return (x - self.mean) / self.std
