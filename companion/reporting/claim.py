"""What a claim of the ledger is, how it is read from its section's claims.toml, and how its verdict follows from the numbers.

A file has `section`, the heading; `[words]`, text that stands for `$name` anywhere in it; and one `[[claim]]` a claim, or, with `each`, one
for every combination of its lists' entries: what an entry has is a word too, or, under the name of a key of `Claim`, that key.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from string import Template
from typing import Any, Literal, get_args

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from companion.running.paths import read_toml, shown
from companion.running.results import TableNotRecordedError, provenance, results_table
from pwmlib.errors import ExplainedError

from .cells import Cell, StatisticError, computed
from .published import published_table

Verdict = Literal["holds", "holds at smaller scale", "contradicts", "not shown at this size", "cannot be checked"]
"""contradicts: an experiment of the paper's size, its interval included, or the released file says otherwise; not shown at this size: our
runs, with their length and seeds, do not decide."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Claim:
    """One row of the ledger. Both numbers are in `unit`, and so is the bar."""

    id: str
    place: str
    """The section, table or figure that makes it."""
    statement: str
    """What it says, in our words."""
    published: str
    """The number as printed; empty where the paper gives no number. "{:.0f}": `printed`."""
    unit: str
    files: dict[str, Any] | None = None
    """What the authors' released files say: a statistic of data/published (`cells.computed`)."""
    files_decide: bool = True
    """False where the files have a number, but not of what the statement is about."""
    ours: dict[str, Any] | None = None
    """A statistic of data/results."""
    ours_decide: bool = True
    """False where our runs have a number, but not of what the statement is about."""
    bar: float | None = None
    """The statement holds where the number is above it."""
    printed: float | None = None
    """The number that the paper prints, where the statement is a number: `tolerance` says how near it must come. In the file it may be a
    statistic of data/published."""
    tolerance: float = 0.005
    at_least: float = 0.95
    """The share of `printed` that our own number must reach."""
    full_scale: bool = False
    """Our experiment is of the paper's own size."""
    scale: str = ""
    """The scale of our runs."""
    command: str = ""
    """The command that makes ours."""
    note: str = ""
    file: str = ""

    def recomputed(self) -> Cell | None:
        """What the authors' files say; None where none was released. Raises ExplainedError."""
        return _explained(self.files, published_table, f"{self.file}: claim {self.id!r}, files") if self.files else None

    def measured(self) -> Cell | None:
        """What our runs say; None where the experiment has no table yet. Raises ExplainedError."""
        place = f"{self.file}: claim {self.id!r}, ours"
        try:
            return _explained(self.ours, results_table, place) if self.ours else None
        except TableNotRecordedError as missing:
            if missing.filename in provenance() or self.command.rpartition(" ")[2] in missing.filename:
                return None
            raise ExplainedError(f"{place}: no table {missing.filename!r} in data/results, and `command` does not name it") from None

    def verdict(self, ours: Cell) -> Verdict:
        """Say what our own number makes of the statement."""
        bar = self.bar if self.bar is not None or self.printed is None else self.at_least * self.printed
        if bar is None or not self.ours_decide:
            return "cannot be checked"
        low, high = _ends(ours)
        if low > bar:
            return "holds" if self.full_scale else "holds at smaller scale"
        return "contradicts" if high < bar and self.full_scale else "not shown at this size"

    def in_the_files(self, recomputed: Cell) -> Verdict:
        """Say what the authors' released files make of the statement."""
        if not self.files_decide:
            return "cannot be checked"
        if self.printed is not None:
            return "holds" if abs(recomputed.value - self.printed) <= self.tolerance * abs(self.printed) else "contradicts"
        if self.bar is None:
            return "cannot be checked"
        low, high = _ends(recomputed)
        return "holds" if low > self.bar else "contradicts" if high <= self.bar else "not shown at this size"


def _ends(cell: Cell) -> tuple[float, float]:
    """The interval, or the number itself where there is none."""
    return tuple(cell.value if end is None else end for end in (cell.low, cell.high))


def _explained(call: Mapping[str, Any], read, place: str) -> Cell | None:
    try:
        return computed(call, read)
    except TableNotRecordedError:
        raise
    except (StatisticError, FileNotFoundError) as error:
        raise ExplainedError(f"{place}: {error}") from None


def read_claims(path: Path) -> tuple[str, list[Claim]]:
    """The section and its claims. Raises ExplainedError, which names the file, the claim, and the key that is missing, unknown or wrong."""
    file, content = shown(path), read_toml(path)
    if set(content) - {"words"} != {"section", "claim"}:
        raise ExplainedError(f"{file}: expected section, [words] and [[claim]], found {', '.join(content)}")
    known = {field.name for field in fields(Claim)}
    claims = []
    for given in content["claim"]:
        for entries in product(*given.pop("each", [])):
            entry = {key: value for part in entries for key, value in part.items()}
            claims.append(_claim({**given, **{k: v for k, v in entry.items() if k in known}}, {**content.get("words", {}), **entry}, file))
    return content["section"], claims


def _claim(given: dict[str, Any], words: Mapping[str, Any], file: str) -> Claim:
    place = f"{file}: claim {given.get('id')!r}"
    try:
        values = _filled(given, words)
        place = f"{file}: claim {values.get('id')!r}"
        if isinstance(values.get("printed"), dict):
            values["printed"] = _explained(values["printed"], published_table, f"{place}, printed").value
        claim = Claim(**values, file=file)
        return replace(claim, published=claim.published.format(claim.printed))
    except ValidationError as error:
        first = error.errors()[0]
        raise ExplainedError(f"{place}: {first['loc'][0]}: {first['msg']}") from None
    except KeyError as error:
        raise ExplainedError(f"{place}: {error} is missing") from None
    except ValueError as error:
        raise ExplainedError(f"{place}: {error}") from None


def _filled(value: Any, words: Mapping[str, Any]) -> Any:
    """Text with its words in place; text that is only a word becomes what the word stands for, e.g. a number."""
    if isinstance(value, dict):
        return {key: _filled(part, words) for key, part in value.items()}
    if not isinstance(value, str):
        return value
    return words[value[1:]] if value[:1] == "$" and value[1:] in words else Template(value).substitute(words)
