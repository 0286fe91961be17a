"""The claims ledger for people: counts as pictures, rows as text, the whole as a page."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from companion.reporting.claim import VERDICTS
from companion.reporting.colours import GREY, VERDICT_COLOURS

OURS, FILES = "our runs say", "released files say"
COUNTED = {"holds": "hold", "contradicts": "contradicted", "not shown": "not shown"}
"""Beginning of a verdict -> how its claims are counted."""


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """The ledger as text, for reading. table: of `ledger.ledger_table`.

    Columns section, where, statement (with the unit of the numbers), published, released files, ours (numbers with their intervals, and
    what they rest on), "released files say" and "our runs say" (verdicts; empty where there is nothing to say it from), note, id, command.
    """
    by_us = table["basis"] == "ours"
    return pd.DataFrame(
        {
            "section": table["section"],
            "where": table["where"],
            "statement": table["statement"] + " (" + table["unit"] + ")",
            "published": table["published"].fillna(""),
            "released files": [_number(row, "recomputed") for row in table.to_dict("records")],
            FILES: table["in_the_files"].fillna(""),
            "ours": [_number(row, "ours", row["seeds"]) for row in table.to_dict("records")],
            OURS: table["verdict"].where(by_us, ""),
            "note": table["note"].fillna(""),
            "id": table["id"],
            "command": table["command"].fillna(""),
        }
    )


def _number(row: dict[str, object], name: str, rests_on: object = "") -> str:
    if pd.isna(row[name]):
        return ""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = "" if pd.isna(low) or pd.isna(high) else f" [{_digits(low)}, {_digits(high)}]"
    return _digits(row[name]) + interval + (f", {rests_on}" if isinstance(rests_on, str) and rests_on else "")


def _digits(value: object) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def matching(table: pd.DataFrame, verdicts: Sequence[str], words: str = "") -> pd.DataFrame:
    """Rows on which our runs or the released files have one of the verdicts, and which contain the words (in the id, section, place,
    statement or note; capitals do not matter). Where neither says anything, the verdict is "cannot be checked"."""
    said = table["verdict"].isin(verdicts) | table["in_the_files"].isin(verdicts)
    text = table[["id", "section", "where", "statement", "note"]].fillna("").agg(" ".join, axis=1)
    return table[said & text.str.contains(words, case=False, regex=False)]


def styled(words: pd.DataFrame) -> Styler:
    """The rows with their verdicts coloured. words: of `in_words`."""

    def colour(verdict: str) -> str:
        return f"background-color: {VERDICT_COLOURS[verdict]}55" if verdict in VERDICT_COLOURS else ""

    return words.style.map(colour, subset=[FILES, OURS]).set_properties(**{"text-align": "left"}).hide(axis="index")


def verdict_bars(table: pd.DataFrame) -> Figure:
    """How many claims of each section have which verdict: left by the released files, right by our runs."""
    by_us = table[table["basis"] == "ours"]
    panels = {"what the released files say": table.dropna(subset="in_the_files")["in_the_files"], "what our runs say": by_us["verdict"]}
    sections = list(dict.fromkeys(table["section"]))
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 0.5 * len(sections) + 1.5), sharey=True, layout="constrained")
    for ax, (title, verdicts) in zip(axes, panels.items(), strict=True):
        counts = pd.crosstab(table.loc[verdicts.index, "section"], verdicts).reindex(index=sections, columns=VERDICTS, fill_value=0)
        counts.plot.barh(stacked=True, ax=ax, color=VERDICT_COLOURS, width=0.8, legend=False)
        for bars in ax.containers:
            ax.bar_label(bars, fmt=lambda n: f"{n:.0f}" if n else "", label_type="center", fontsize=8)
        ax.set(title=f"{title} ({len(verdicts)} of {len(table)} claims)", xlabel="claims", ylabel="")
        ax.title.set_fontsize(10)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(VERDICTS), fontsize=8)
    return figure


def verdict_counts(table: pd.DataFrame) -> pd.DataFrame:
    """One line a section: of how many of its claims the released files and our runs say what. Columns section, claims, and two as in
    "5 hold, 1 contradicted, 2 not shown" (what cannot be checked is in none; a count of 0 is left out)."""

    def count(verdicts: pd.Series, none: str) -> str:
        numbers = [(verdicts.str.startswith(start).sum(), word) for start, word in COUNTED.items()]
        return ", ".join(f"{n} {word}" for n, word in numbers if n) or none

    lines = []
    for section, rows in table.groupby("section", sort=False):
        ours = rows.loc[rows["basis"] == "ours", "verdict"]
        said = {FILES: count(rows["in_the_files"].dropna(), "no files"), OURS: count(ours, "not run")}
        lines.append({"section": section, "claims": len(rows), **said})
    return pd.DataFrame(lines)


def badges(table: pd.DataFrame) -> dict[str, str]:
    """How many claims of a section our runs bear out, as small pictures for the README: file name -> SVG, one a section ("3.1.svg").
    table: of `ledger.ledger_table`."""
    counts = verdict_counts(table).set_index("section")[OURS]
    return {section[5:8] + ".svg": _badge(said.split(", ")) for section, said in counts.items()}


def _badge(parts: list[str]) -> str:
    """Text on coloured fields: each count in its verdict's colour, grey where nothing was run."""
    of_words = {word: next(c for verdict, c in VERDICT_COLOURS.items() if verdict.startswith(start)) for start, word in COUNTED.items()}
    left, fields = 0.0, []
    for text in parts:
        colour = of_words.get(text.partition(" ")[2], GREY)
        width = round(6.3 * len(text) + 12)  # px: about what fonts that are usual for badges take at 11 px
        fields += [
            f'<rect x="{left:g}" width="{width}" height="20" fill="{colour}"/>',
            f'<text x="{left + width / 2:g}" y="14" fill="#fff" text-anchor="middle">{text}</text>',
        ]
        left += width
    title = f"<title>our runs: {', '.join(parts)}</title>"
    font = 'font-family="Verdana,DejaVu Sans,sans-serif" font-size="11"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{left:g}" height="20" {font}>{title}{"".join(fields)}</svg>\n'


HEAD = """# Claims ledger

What the paper says, what its released files say, what we get. Written by `python -m companion.paper.ledger` from `data/published` and
`data/results`; `data/claims.csv` has the same with more columns, `notebooks/06_figures_and_claims.ipynb` filters it.

- **Released files say**: whether they bear the statement out, and the number, recomputed from the authors' files, or from the numbers
  printed where no file was released.
- **Our runs say**: what our runs give, at the scale named. "holds at smaller scale": they show the same. "contradicts": at the paper's own
  size they show the contrary, interval included. "not shown at this size": runs this short, with so few seeds, cannot decide. "cannot be
  checked": the files or the runs have no number that speaks to the claim. Empty: not run.
- Intervals, in square brackets, are of 95 %; seeds or samples that they rest on stand behind them.
"""


def markdown_table(table: pd.DataFrame) -> str:
    """One line a row, without the index; missing values are empty."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(object).where(table.notna(), "").to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def claims_page(table: pd.DataFrame) -> str:
    """Write the ledger as Markdown: a table a section, a row a claim."""
    words, lines = in_words(table).assign(scale=table["scale"].fillna("")), [HEAD]
    for section, rows in words.groupby("section", sort=False):
        lines += [f"## {section}", "", markdown_table(pd.DataFrame([_row(claim) for claim in rows.to_dict("records")])), ""]
    return "\n".join(lines)


def _row(claim: dict[str, str]) -> dict[str, str]:
    printed = f"printed: {claim['published']}" if claim["published"] else ""
    made = claim["ours"] + (f" ({claim['scale']})" if claim["scale"] and claim["ours"] else "")
    return {
        "claim": _cell(claim["statement"], f"{claim['where']}, `{claim['id']}`", f"*{claim['note']}*" if claim["note"] else ""),
        FILES: _cell(_marked(claim[FILES]), claim["released files"], printed),
        OURS: _cell(_marked(claim[OURS]), made),
    }


def _cell(*parts: str) -> str:
    return "<br>".join(part for part in parts if part)


def _marked(verdict: str) -> str:
    return f"**{verdict}**" if verdict.startswith(("contradicts", "not shown")) else verdict
