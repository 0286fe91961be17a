"""Tables as Markdown."""

import pandas as pd


def markdown_table(table: pd.DataFrame) -> str:
    """One line a row, without the index; missing values are empty."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(object).where(table.notna(), "").to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)
