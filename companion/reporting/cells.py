"""Numbers of the ledger: named statistics of tables, each with the interval that it has and what it rests on."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pwmlib.errors import ExplainedError


class StatisticError(ExplainedError):
    """A statistic that does not exist, or whose arguments do not fit it or its table."""


@dataclass(frozen=True)
class Cell:
    """A number computed from a table, with the interval (95 %, if it has one) and what it rests on."""

    value: float
    low: float | None = None
    high: float | None = None
    rests_on: str = ""
    """What it rests on, e.g. "5 seeds"."""


def iqm(runs: Sequence[float] | np.ndarray, axis: int = -1) -> Any:
    """Interquartile mean: scipy's trim_mean at a quarter, without the checks that a bootstrapped curve would pay 100 000 times."""
    values = np.moveaxis(np.asarray(runs, float), axis, -1)
    count = values.shape[-1]
    cut = count // 4
    return np.partition(values, (cut, count - cut - 1))[..., cut : count - cut].mean(-1)


def iqm_cell(runs: Sequence[float]) -> Cell:
    """IQM of one score a run; the interval resamples runs."""
    return _resampled(iqm, runs, rests_on=f"{len(runs)} seed{'s' if len(runs) > 1 else ''}")


def iqm_compared(above: Sequence[float], below: Sequence[float], compare: np.ufunc) -> Cell:
    """IQM of the first runs in units of that of the second (np.divide), or less that of the second (np.subtract), which may be near 0; the
    interval resamples both, each by itself."""

    def compared(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return compare(iqm(x, axis), iqm(y, axis))

    return _resampled(compared, above, below, rests_on=f"{len(above)} and {len(below)} seeds")


def _resampled(statistic: Callable, *runs: Sequence[float], rests_on: str) -> Cell:
    samples = tuple(np.asarray(x, float) for x in runs)
    value = float(statistic(*samples))
    if min(map(len, samples)) < 2:
        return Cell(value, rests_on=rests_on)
    from scipy import stats  # a second of imports, which no job of a run should pay

    generator = np.random.default_rng(0)
    found = stats.bootstrap(samples, statistic, n_resamples=5000, method="percentile", vectorized=True, rng=generator)
    return Cell(value, float(found.confidence_interval.low), float(found.confidence_interval.high), rests_on)


TAKEN: dict[str, Callable[[pd.Series], float]] = {
    "first": lambda numbers: numbers.iloc[0],
    "last": lambda numbers: numbers.dropna().iloc[-1],
    "mean": pd.Series.mean,
    "median": pd.Series.median,
    "sum": pd.Series.sum,
    "iqm": iqm,
}
"""How one number is taken of many."""


@dataclass(frozen=True)
class Picked:
    """Rows of a table, and of them one number a row, or one a group of rows."""

    rows: pd.DataFrame
    numbers: pd.Series
    take: str
    ends: tuple[str, ...]

    def number(self, unit: float = 1.0) -> Cell:
        """The one number of them all, with the interval that stands in the first row."""
        return Cell(float(TAKEN[self.take](self.numbers)) / unit, *(float(self.rows[end].iloc[0]) / unit for end in self.ends))


def _pick(
    read: Callable[[str], pd.DataFrame], *, table: str, column: str, where: Mapping[str, Any] | None = None,
    by: str = "", within: str = "first", take: str = "first", ends: Sequence[str] = (),
) -> Picked:  # fmt: skip
    """Select from a table.

    Args:
        read: Gives the table of a name.
        table: Its name.
        column: One of its columns, or arithmetic with them ("lost / all").
        where: Column -> the value that it must have.
        by: Column that groups the rows; each group is one number.
        within: How that number is taken of the group, one of `TAKEN`.
        take: How one number is taken of them all, one of `TAKEN`.
        ends: Columns with the ends of its interval.
    """
    rows, where = read(table), where or {}
    for unknown in {*where, *ends, by or table} - {*rows.columns, table}:
        raise StatisticError(f"table {table!r} has no column {unknown!r}; it has {', '.join(rows.columns)}")
    for unknown in {within, take} - set(TAKEN):
        raise StatisticError(f"a number is taken as one of {', '.join(TAKEN)}, not as {unknown!r}")
    for key, wanted in where.items():
        if not (rows[key] == wanted).any():
            raise StatisticError(f"table {table!r}: no row of {where} has {key} = {wanted!r}, but {list(rows[key].unique())}")
        rows = rows[rows[key] == wanted]
    try:
        numbers = rows[column] if column in rows else rows.eval(column)
    except (ValueError, SyntaxError, TypeError, NameError) as error:
        raise StatisticError(f"table {table!r}, column {column!r}: {error}; it has {', '.join(rows.columns)}") from None
    return Picked(rows, numbers.groupby(rows[by], sort=False).agg(TAKEN[within]) if by else numbers, take, tuple(ends))


def _difference(of: Picked, against: Picked, *, joined: str) -> Cell:
    """The first number less the second. joined: their intervals, as Newcombe does it for shares, or by their ends."""
    joins = {"newcombe": np.hypot, "ends": np.add}
    if joined not in joins:
        raise StatisticError(f"joined must be one of {', '.join(joins)}, got {joined!r}")
    a, b, join = of.number(), against.number(), joins[joined]
    below, above = join(a.value - a.low, b.high - b.value), join(a.high - a.value, b.value - b.low)
    return Cell(a.value - b.value, a.value - b.value - float(below), a.value - b.value + float(above))


def _iqm_ratio(of: Picked, against: Picked, *, no_more: str = "") -> Cell:
    """no_more: a column of which no run of the first may have more than any of the second."""
    if no_more and not of.rows[no_more].max() <= against.rows[no_more].min():
        raise StatisticError(f"a run of the first has more {no_more} than one of the second")
    return iqm_compared(of.numbers, against.numbers, np.divide)


STATISTICS: dict[str, Callable[..., Cell]] = {
    "value": lambda of: of.number(),
    "ratio": lambda of, against: of.number(unit=against.number().value),
    "difference": _difference,
    "share_above": lambda of, against: Cell(float((of.numbers > against.numbers).mean())),
    "iqm": lambda of: iqm_cell(of.numbers),
    "iqm_ratio": _iqm_ratio,
    "iqm_gain": lambda of, against: iqm_compared(of.numbers, against.numbers, np.subtract),
}
"""Name that a claim calls it by -> statistic: of one selection, or of one against another (share_above: group by group)."""


def computed(call: Mapping[str, Any], read: Callable[[str], pd.DataFrame]) -> Cell | None:
    """A statistic by its name and arguments, as a claim has it; None where the table has no number (nothing was released).

    Args:
        call: "statistic", one of `STATISTICS`; what of a table it is of (see `_pick`); "against", the same of the second number, where
            what is not given is as in the first; the statistic's own arguments; "rests_on", which may name columns of the first row in
            braces, of the other's ("{other[runs]}"), numbers of different values ("{unique[task]}") and sums ("{sum[rows]:.0f}").
        read: Gives the table of a name.

    Raises:
        StatisticError: Names what is unknown or missing.
    """
    options, picking = dict(call), set(inspect.signature(_pick).parameters)
    name, rests_on = options.pop("statistic", None), options.pop("rests_on", None)
    if name not in STATISTICS:
        raise StatisticError(f"unknown statistic {name!r}; known: {', '.join(STATISTICS)}")
    first = {key: options.pop(key) for key in picking & set(options)}
    of, other = _called(_pick, name, read, **first), None
    if "against" in options:
        second = options["against"]
        where = {**({} if "table" in second else first.get("where", {})), **second.get("where", {})}
        options["against"] = other = _called(_pick, name, read, **{**first, **second, "where": where})
    cell = _called(STATISTICS[name], name, of, **options)
    if rests_on is not None:
        words = {"other": other and other.rows.iloc[0], "unique": of.rows.nunique(), "sum": of.rows.sum(numeric_only=True)}
        try:
            cell = replace(cell, rests_on=rests_on.format(**words, **of.rows.iloc[0]))
        except (KeyError, ValueError) as error:
            raise StatisticError(f"{name}: rests_on = {rests_on!r}: {error} is no column") from None
    return None if np.isnan(cell.value) else cell


def _called(function: Callable, name: str, *arguments: Any, **options: Any) -> Any:
    try:
        inspect.signature(function).bind(*arguments, **options)
    except TypeError as error:
        raise StatisticError(f"{name}: {error}") from None
    return function(*arguments, **options)
