"""Cells of the ledger from the project's tables: interquartile means over runs, their ratios, shares."""

from __future__ import annotations

import pandas as pd

from companion.running.results import RESULTS

from .published import PUBLISHED

__all__ = ["published_table", "results_of"]


def results_of(name: str) -> pd.DataFrame:
    """A table of data/results; FileNotFoundError where the experiment was not recorded."""
    return pd.read_csv(RESULTS / f"{name}.csv")


def published_table(name: str) -> pd.DataFrame:
    """A table of data/published."""
    return pd.read_csv(PUBLISHED / f"{name}.csv")
