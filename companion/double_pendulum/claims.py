"""Sections 3.1 and 3.2: the ball that must get over a wall, and the double pendulum."""

from __future__ import annotations

from functools import partial

import pandas as pd

from companion.reporting.cells import results_of
from companion.reporting.claim import Claim
from companion.reporting.statistics import Cell

__all__ = ["TOYS"]

BALL_WALL, PENDULUM = "python -m companion.record ball_wall", "papermill notebooks/01_double_pendulum.ipynb out.ipynb -p scale laptop"


def _outcome(surrogate: str, descent: str) -> pd.Series:
    table = results_of("ball_wall_outcomes")
    return table[(table["surrogate"] == surrogate) & (table["descent"] == descent)].iloc[0]


def _difference(a: pd.Series, b: pd.Series, column: str) -> Cell:
    """a less b in a column with its interval; the two intervals joined as Newcombe does it for shares."""
    low, high = f"{column}_low", f"{column}_high"
    value = a[column] - b[column]
    below = ((a[column] - a[low]) ** 2 + (b[high] - b[column]) ** 2) ** 0.5
    above = ((a[high] - a[column]) ** 2 + (b[column] - b[low]) ** 2) ** 0.5
    return Cell(value, value - below, value + above, f"{a['seeds']} seeds")


def _crossings(surrogate: str, descent: str) -> Cell:
    """Share of seeds in which the surrogate's descent crosses the wall, less that of the ReLU model."""
    return _difference(_outcome(surrogate, descent), _outcome("relu", descent), "crossed")


def _nearness(surrogate: str, descent: str) -> Cell:
    """Distance from the optimum at which the ReLU model's crossing descents end, less that of the surrogate's."""
    return _difference(_outcome("relu", descent), _outcome(surrogate, descent), "gap")


def _error(surrogate: str) -> Cell:
    """Error of the surrogate in units of the ReLU model's; seeds as they were fitted."""
    table = results_of("ball_wall").drop_duplicates("surrogate").set_index("surrogate")
    relu = table.loc["relu", "rmse"]
    row = table.loc[surrogate]
    return Cell(row["rmse"] / relu, row["rmse_low"] / relu, row["rmse_high"] / relu, f"{row['seeds']:.0f} seeds")


def _horizons(setting: str, claim: str, of: str) -> Cell:
    """Share of the horizons to 50 at which the statement is true with its interval, less that at which its opposite is."""
    table = results_of("double_pendulum_claims")
    row = table[(table["setting"] == setting) & (table["claim"] == claim) & (table["of"] == of)].iloc[0]
    return Cell(row["horizons_yes"] - row["horizons_no"], rests_on="100 samples")


HORIZONS = "share of horizons where true, less where false"
COVERAGE = {"variance": "89 to 94", "esnr": "97 to 99"}
"""Of the intervals, for the double pendulum's gradients."""
SAME, FEEDBACK = "trained policy, same actions", "trained policy, feedback"

TOYS = [
    *(
        Claim(
            f"ball_wall_{name}_{descent.split()[0]}",
            "Sec. 3.1, Fig. 2",
            f"Gradient descent on a model with {label} crosses the wall more often than on a ReLU model; {how}.",
            "",
            "share of seeds that cross, less ReLU's",
            ours=partial(_crossings, name, descent),
            bar=0.0,
            full_scale=True,
            scale="laptop: 100 epochs, groups of 8",
            command=BALL_WALL,
        )
        for descent, how in (("plain", "plain descent, as described"), ("momentum 0.9", "with momentum"))
        for name, label in (("layernorm_mish", "LayerNorm and Mish"), ("simnorm", "SimNorm"))
    ),
    *(
        Claim(
            f"ball_wall_{name}_distance",
            "Sec. 3.1, Fig. 2",
            f"Where it crosses, gradient descent on a model with {label} ends nearer to the optimum than on a ReLU model; with momentum.",
            "",
            "ReLU's distance from the optimum less this one's [m], means over descents that cross",
            ours=partial(_nearness, name, "momentum 0.9"),
            bar=0.0,
            full_scale=True,
            scale="laptop: 100 epochs, groups of 8",
            command=BALL_WALL,
            note="At 100 epochs and with groups of 8, no plain descent on a regularised model crosses.",
        )
        for name, label in (("layernorm_mish", "LayerNorm and Mish"), ("simnorm", "SimNorm"))
    ),
    *(
        Claim(
            f"ball_wall_error_{name}",
            "Sec. 3.1, App. A",
            f"The model with {label} fits the objective less accurately than the ReLU model.",
            "",
            "RMSE in units of ReLU's",
            ours=partial(_error, name),
            bar=1.0,
            full_scale=True,
            scale="laptop: 100 epochs",
            command=BALL_WALL,
        )
        for name, label in (("layernorm_mish", "LayerNorm and Mish"), ("simnorm", "SimNorm"))
    ),
    *(
        Claim(
            f"pendulum_{short}_{world}{suffix}",
            "Sec. 3.2, Fig. 3",
            f"A learned model's policy gradients have {what} than the true dynamics' (model trained over {world[1:]} steps; {setting}).",
            "",
            HORIZONS,
            ours=partial(_horizons, setting, f"{what} than the true dynamics", f"model, H = {world[1:]}"),
            bar=None if (setting, short) == (FEEDBACK, "variance") else 0.5,
            scale="laptop: two 5M models, 3000 updates",
            command=PENDULUM,
            note="The models' policies read latents: other parameters, whose variance is not comparable; see the ESNR."
            if (setting, short) == (FEEDBACK, "variance")
            else f"Eq. 5, every horizon to 50; nominal 95 % intervals apart, which cover {COVERAGE[short]} % (esnr_coverage.csv).",
        )
        for setting, suffix in ((SAME, ""), (FEEDBACK, "_feedback"))
        for short, what in (("variance", "lower variance"), ("esnr", "higher ESNR"))
        for world in ("h3", "h16")
    ),
    Claim(
        "pendulum_sustained",
        "Sec. 3.2, Fig. 3",
        "A model trained over 16 steps sustains its ESNR to longer horizons than one trained over 3.",
        "",
        HORIZONS,
        ours=partial(_horizons, SAME, "ESNR beyond horizon 16 higher than with H = 3", "model, H = 16"),
        bar=0.5,
        scale="laptop: two 5M models, 3000 updates",
        command=PENDULUM,
    ),
]
