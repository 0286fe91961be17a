"""Mean and variance of everything seen so far, a batch at a time (Chan et al. 1979)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RunningMoments"]


class RunningMoments:
    """Cumulative moments of scalars that never forget, as the released code divides returns by (ret_rms)."""

    def __init__(self):
        self.tensor = torch.tensor([0.0, 1.0, 1e-4], dtype=torch.float64)
        """Mean, variance, count; it begins with almost no weight."""

    def add(self, batch: Tensor) -> None:
        """Fold in scalars of any shape."""
        mean, variance, count = self.tensor.tolist()
        values = batch.double()
        n, delta = values.numel(), float(values.mean()) - mean
        total = count + n
        squares = variance * count + float(values.var(unbiased=False)) * n + delta**2 * count * n / total
        self.tensor = torch.tensor([mean + delta * n / total, squares / total, total], dtype=torch.float64)

    @property
    def std(self) -> float:
        """sqrt(variance + 1e-5)."""
        return (float(self.tensor[1]) + 1e-5) ** 0.5
