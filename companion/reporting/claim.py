"""What a claim of the ledger is, and how its verdict follows from the numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from companion.reporting.statistics import Cell

__all__ = ["VERDICTS", "Claim", "Verdict"]

Verdict = Literal["holds", "holds at smaller scale", "contradicts", "not shown at this size", "cannot be checked"]
"""contradicts: an experiment of the paper's size, its interval included, or the released file says otherwise; not shown at this size: our
runs, with their length and seeds, do not decide."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Claim:
    """One row of the ledger.

    recomputed: from data/published, what the authors' released files say. ours: from data/results; it raises FileNotFoundError
    where the experiment has no table yet. Both are in `unit`, and so is the bar.
    """

    id: str
    where: str
    """Section, table or figure."""
    statement: str
    """In our words."""
    published: str
    """As printed; empty where the paper gives no number."""
    unit: str
    recomputed: Callable[[], Cell] | None = None
    ours: Callable[[], Cell] | None = None
    bar: float | None = None
    """The statement holds where the number is above it."""
    printed: float | None = None
    """The number that the paper prints, where the statement is a number: `tolerance` says how near it must come."""
    tolerance: float = 0.005
    at_least: float = 0.95
    """Of `printed`, that our own number must reach."""
    full_scale: bool = False
    """Our experiment is of the paper's own size."""
    scale: str = ""
    """Of ours."""
    command: str = ""
    """That makes ours."""
    note: str = ""

    def verdict(self, ours: Cell) -> Verdict:
        """What our own number says."""
        bar = self.bar if self.bar is not None or self.printed is None else self.at_least * self.printed
        if bar is None:
            return "cannot be checked"
        low, high = _ends(ours)
        if low > bar:
            return "holds" if self.full_scale else "holds at smaller scale"
        return "contradicts" if high < bar and self.full_scale else "not shown at this size"

    def in_the_files(self, recomputed: Cell) -> Verdict:
        """What the authors' released files say."""
        if self.printed is not None:
            return "holds" if abs(recomputed.value - self.printed) <= self.tolerance * abs(self.printed) else "contradicts"
        if self.bar is None:
            return "cannot be checked"
        low, high = _ends(recomputed)
        return "holds" if low > self.bar else "contradicts" if high <= self.bar else "not shown at this size"


def _ends(cell: Cell) -> tuple[float, float]:
    """The interval, or the number itself where there is none."""
    return tuple(cell.value if end is None else end for end in (cell.low, cell.high))
