"""Figures, each drawn from tidy tables, saved as PNG and PDF with their provenance."""

import hashlib
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import seaborn as sns
from matplotlib.figure import Figure

from companion.reporting.colours import VERMILION
from companion.running.stamp import environment_stamp
from pwmlib.data.checkpoints import write_atomic

WIDTH = 9.5
"""Inches that a figure is wide at most: a notebook's width; in print, at 6.75 inches, their text of 8 points has almost 6."""


def use_style() -> None:
    """The project's look: quiet axes, readable at notebook width and in print."""
    quiet = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    saved = {"figure.dpi": 110, "savefig.dpi": 200, "savefig.bbox": "tight", "pdf.fonttype": 42}
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=0.85, rc={**quiet, **saved})


def save_figure(
    figure: Figure, folder: Path, name: str, *, paper: str, inputs: Sequence[Path] = (), command: str = "", source: str = "ours",
    changed: Mapping[str, object] = MappingProxyType({}),
) -> Path:  # fmt: skip
    """Write name.png and name.pdf and note in index.json which paper figure it is, whose numbers it shows and what it was drawn from.

    changed: parameters that are not the usual ones. They stand above the picture and in its name, so that it replaces none of those.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if changed:
        told = ", ".join(f"{key} = {value}" for key, value in changed.items())
        figure.text(0.5, 1.0, textwrap.fill(f"changed: {told}", 110), ha="center", va="bottom", fontsize=8, color=VERMILION)
        slug = re.sub(r"[^\w.-]+", "-", told).strip("-")
        name = f"{name}--{slug if len(slug) <= 80 else slug[:60] + hashlib.sha256(slug.encode()).hexdigest()[:8]}"
    stamp = environment_stamp()
    entry = {
        "paper": paper,
        "source": source,
        "inputs": {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in inputs},
        "command": command,
        "commit": stamp["commit"],
        "versions": stamp["versions"],
    }
    note = json.dumps(entry)
    png = folder / f"{name}.png"
    figure.savefig(png, metadata={"Description": note})
    figure.savefig(folder / f"{name}.pdf", metadata={"Subject": note})
    index = folder / "index.json"
    known = json.loads(index.read_text()) if index.is_file() else {}
    write_atomic(index, json.dumps({**known, name: entry}, indent=1, sort_keys=True) + "\n")
    return png
