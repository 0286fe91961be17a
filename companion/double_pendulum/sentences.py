"""The sentences of Section 3.2 as comparisons of measured curves, horizon by horizon, with intervals."""

import pandas as pd

from companion.double_pendulum.sweep import FEEDBACK, REWARD_UNITS

RANGES = ((1, 16), (17, 32), (33, 50), (51, 100))
"""Horizons that are judged apart."""

UNDECIDED, INCOMPARABLE = "not shown at this size", "not comparable"


def double_pendulum_claims(table: pd.DataFrame, train_horizons: tuple[int, ...] = (3, 16), *, decisive: bool = True) -> pd.DataFrame:
    """One row a claim and setting: at how many horizons the intervals say yes, and no, and what that makes of the claim.

    table: of `run_study`. A horizon counts where the two 95 % intervals do not overlap. Verdict: "holds" (or "does not hold") where
    more than half of the horizons say so and fewer than a tenth the opposite, else `UNDECIDED`; the intervals are over samples and know
    nothing of training the model again, so models too small to speak for the claim (not `decisive`) leave it undecided whatever they say.
    Variances of policies with different parameters are `INCOMPARABLE`.
    """
    first = table[(table["world"] != "true, zeroth order") & (table["setting"] != REWARD_UNITS)]
    names = [f"model, H = {h}" for h in train_horizons]
    rows = []
    for setting, part in first.groupby("setting", sort=False):
        curves = {world: curve.set_index("horizon") for world, curve in part.groupby("world")}
        for name in names:
            rows.append({"setting": setting, "claim": "lower variance than the true dynamics", "of": name}
                        | _compare(curves["true"], curves[name], "mean_variance")
                        | ({"verdict": INCOMPARABLE} if setting == FEEDBACK else {}))  # fmt: skip
            rows.append({"setting": setting, "claim": "higher ESNR than the true dynamics", "of": name}
                        | _compare(curves[name], curves["true"], "esnr"))  # fmt: skip
        beyond = {name: curve[curve.index > train_horizons[-1]] for name, curve in curves.items()}
        if all(len(curve) for curve in beyond.values()):
            claim = f"ESNR beyond horizon {train_horizons[-1]} higher than with H = {train_horizons[0]}"
            rows.append({"setting": setting, "claim": claim, "of": names[-1]} | _compare(beyond[names[-1]], beyond[names[0]], "esnr"))
    found = pd.DataFrame(rows)
    return found if decisive else found.assign(verdict=found["verdict"].where(found["verdict"] == INCOMPARABLE, UNDECIDED))


def claims_by_range(table: pd.DataFrame) -> pd.DataFrame:
    """The same sentences for each of `RANGES`, of the largest models at the end of their training: one row a claim, model and range.

    table: of `bias_study`.
    """
    own = table[(table["world"] == "true") | ((table["weights"] == table["weights"].max()) & (table["updates"] == table["updates"].max()))]
    rows = []
    for low, high in RANGES:
        curves = {world: curve.set_index("horizon") for world, curve in own[own["horizon"].between(low, high)].groupby("world")}
        true, *names = "true", *sorted(set(curves) - {"true"}, key=lambda name: int(name.rpartition(" ")[2]))
        pairs = [
            (f"{what} than the true dynamics", name, (curves[true], curves[name])[:: 1 if column == "mean_variance" else -1], column)
            for name in names
            for what, column in (("lower variance", "mean_variance"), ("higher ESNR", "esnr"))
        ]
        pairs.append(("higher ESNR than with H = 3", names[-1], (curves[names[-1]], curves[names[0]]), "esnr"))
        for claim, name, (larger, smaller), column in pairs:
            head = {"claim": claim, "of": name, "horizons": f"{low} to {high}", "compared": len(larger)}
            rows.append(head | _compare(larger, smaller, column))
    return pd.DataFrame(rows)


def _compare(larger: pd.DataFrame, smaller: pd.DataFrame, column: str) -> dict[str, object]:
    yes = float((larger[f"{column}_low"] > smaller[f"{column}_high"]).mean())
    no = float((larger[f"{column}_high"] < smaller[f"{column}_low"]).mean())
    verdict = "holds" if yes > 0.5 and no < 0.1 else "does not hold" if no > 0.5 and yes < 0.1 else UNDECIDED
    ratio = float((larger[column] / smaller[column]).median())
    return {"horizons_yes": yes, "horizons_no": no, "median_ratio": ratio, "verdict": verdict}
