"""Cells of the ledger from the project's tables: interquartile means over runs, their ratios, shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from ..published import PUBLISHED
from ..results import RESULTS
from .claim import Cell

__all__ = ["iqm_cell", "iqm_gain", "iqm_ratio", "published_table", "results_of"]

DRAWS, SEED = 5000, 0


def results_of(name: str) -> pd.DataFrame:
    """A table of data/results; FileNotFoundError where the experiment was not recorded."""
    return pd.read_csv(RESULTS / f"{name}.csv")


def published_table(name: str) -> pd.DataFrame:
    """A table of data/published."""
    return pd.read_csv(PUBLISHED / f"{name}.csv")


def _iqm(runs: np.ndarray, axis: int = -1) -> np.ndarray:
    return stats.trim_mean(runs, 0.25, axis=axis)


def iqm_cell(runs: Sequence[float]) -> Cell:
    """IQM of one score a run; the interval resamples runs."""
    values = np.asarray(runs, float)
    rests_on = f"{len(values)} seed{'s' if len(values) > 1 else ''}"
    if len(values) < 2:
        return Cell(float(_iqm(values)), rests_on=rests_on)
    low, high = _interval((values,), _iqm)
    return Cell(float(_iqm(values)), low, high, rests_on)


def iqm_ratio(above: Sequence[float], below: Sequence[float]) -> Cell:
    """IQM of the first runs in units of that of the second; the interval resamples both, each by itself."""
    return _of_two(above, below, np.divide)


def iqm_gain(above: Sequence[float], below: Sequence[float]) -> Cell:
    """IQM of the first runs less that of the second, where the second may be near 0; the interval resamples both, each by itself."""
    return _of_two(above, below, np.subtract)


def _of_two(above: Sequence[float], below: Sequence[float], compare: Callable) -> Cell:
    a, b = np.asarray(above, float), np.asarray(below, float)

    def compared(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return compare(_iqm(x, axis), _iqm(y, axis))

    rests_on = f"{len(a)} and {len(b)} seeds"
    if min(len(a), len(b)) < 2:
        return Cell(float(compared(a, b)), rests_on=rests_on)
    low, high = _interval((a, b), compared)
    return Cell(float(compared(a, b)), low, high, rests_on)


def _interval(samples: tuple[np.ndarray, ...], statistic) -> tuple[float, float]:
    found = stats.bootstrap(samples, statistic, n_resamples=DRAWS, method="percentile", vectorized=True, rng=np.random.default_rng(SEED))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
