"""The claims ledger: what the paper says, what its released files say, what we get, and a verdict.

    python -m companion.paper.ledger     # writes data/claims.csv, docs/claims.md and docs/badges/

Every number is computed from data/published and data/results; each section's claims.toml says how, row by row.
"""

from pathlib import Path

import pandas as pd

from companion.reporting.cells import Cell
from companion.reporting.claim import Claim, read_claims
from companion.running.paths import DATA, PROJECT
from pwmlib.data.checkpoints import write_atomic

from .views import badges, claims_page

CLAIMS = DATA / "claims.csv"
PAGE = PROJECT / "docs" / "claims.md"
BADGES = PROJECT / "docs" / "badges"
SECTIONS = ("ball_wall", "double_pendulum", "single_task", "mt80", "ablations")
"""Folders of the companion, each with its claims.toml."""
LEDGER: dict[str, list[Claim]] = dict(read_claims(Path(__file__).parents[1] / section / "claims.toml") for section in SECTIONS)
"""Section of the paper -> its rows."""


def ledger_table() -> pd.DataFrame:
    """One line a claim: columns id, section, where, statement, published, unit, recomputed and ours (each with _low and _high),
    in_the_files (what the first says), verdict (what ours says; without ours, what the files say), basis of the verdict, scale and seeds of
    ours, note, command. ours is empty where the experiment has no table yet."""
    return pd.DataFrame([_line(section, claim) for section, claims in LEDGER.items() for claim in claims])


def _line(section: str, claim: Claim) -> dict[str, object]:
    recomputed, ours = claim.recomputed(), claim.measured()
    in_the_files = claim.in_the_files(recomputed) if recomputed else None
    if ours:
        verdict, basis = claim.verdict(ours), "ours"
    else:
        verdict, basis = in_the_files or "cannot be checked", "released files" if recomputed else "none"
    return {
        "id": claim.id,
        "section": section,
        "where": claim.place,
        "statement": claim.statement,
        "published": claim.published,
        "unit": claim.unit,
        **_numbers("recomputed", recomputed),
        "recomputed_from": recomputed.rests_on if recomputed else "",
        "in_the_files": in_the_files,
        **_numbers("ours", ours),
        "scale": claim.scale if ours else "",
        "seeds": ours.rests_on if ours else "",
        "verdict": verdict,
        "basis": basis,
        "note": claim.note if ours or not claim.ours else f"Not run yet. {claim.note}".strip(),
        "command": claim.command,
    }


def _numbers(name: str, cell: Cell | None) -> dict[str, float | None]:
    return {name: cell and cell.value, f"{name}_low": cell and cell.low, f"{name}_high": cell and cell.high}


def main() -> None:
    """Write data/claims.csv, docs/claims.md and docs/badges/, and print how many rows have which verdict."""
    table = ledger_table()
    write_atomic(CLAIMS, table.to_csv(index=False, float_format="%.6g"))
    write_atomic(PAGE, claims_page(table))
    for name, picture in badges(table).items():
        write_atomic(BADGES / name, picture)
    counts = table.groupby(["basis", "verdict"]).size()
    print(f"{CLAIMS.relative_to(PROJECT)}: {len(table)} rows\n{counts.to_string()}")


if __name__ == "__main__":
    main()
