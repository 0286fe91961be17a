"""docs/badges/: how many claims of a section our runs bear out, as small pictures for the README."""

from __future__ import annotations

import re

import pandas as pd

from companion.running.paths import PROJECT

from .views import COLOURS, COUNTED, OURS, verdict_counts

__all__ = ["BADGES", "badges"]

BADGES = PROJECT / "docs" / "badges"
LETTER = 6.3
"""Width of a letter at 11 px, px: about that of the fonts that are usual for badges."""


def badges(table: pd.DataFrame) -> dict[str, str]:
    """File name -> SVG, one a section of the ledger. table: of `ledger.ledger_table`."""
    return {_name(row["section"]): _badge(row[OURS].split(", ")) for row in verdict_counts(table).to_dict("records")}


def _name(section: str) -> str:
    """Of "Sec. 4.1: one robot at a time": 4.1.svg."""
    return re.search(r"\d\.\d", section).group() + ".svg"


def _badge(parts: list[str]) -> str:
    """Text on coloured fields: each count in its verdict's colour, grey where nothing was run."""
    of_words = {word: next(c for verdict, c in COLOURS.items() if verdict.startswith(start)) for start, word in COUNTED.items()}
    left, fields = 0.0, []
    for text in parts:
        colour = of_words.get(text.partition(" ")[2], "#777777")
        width = round(LETTER * len(text) + 12)
        fields += [
            f'<rect x="{left:g}" width="{width}" height="20" fill="{colour}"/>',
            f'<text x="{left + width / 2:g}" y="14" fill="#fff" text-anchor="middle">{text}</text>',
        ]
        left += width
    title = f"<title>our runs: {', '.join(parts)}</title>"
    font = 'font-family="Verdana,DejaVu Sans,sans-serif" font-size="11"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{left:g}" height="20" {font}>{title}{"".join(fields)}</svg>\n'
