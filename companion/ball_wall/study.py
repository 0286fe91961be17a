"""The ball-wall study: which surrogate lets gradient descent find the way over the wall, and when (Fig. 2, 9, 10, App. A)."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.running.parameters import read_scales
from companion.running.runs import Run, resolve_device, single_thread
from pwmlib.settings import Count, Counts, SettingError, Several, settings
from pwmlib.sim.closed_form.ball_wall import THETA, BallWall

from .surrogates import Descent, SurrogateConfig, compare_surrogates

KINDS = ("relu", "layernorm_mish", "simnorm")


@settings
class BallWallScale:
    """How much of the study is run."""

    seeds: Several = 20
    steps: Count = 1000
    epochs: Counts = (100, 20)
    groups: tuple[Count, ...] = (16, 32)
    """Group sizes of SimNorm that are tried beside 8."""

    def __post_init__(self) -> None:
        for group in self.groups:
            if SurrogateConfig.hidden % group:
                raise SettingError("groups", self.groups, f"must be divisors of {SurrogateConfig.hidden}, the width of the models")


BALL_WALL_SCALES = read_scales(Path(__file__).with_name("scales.toml"), BallWallScale)


def surrogate_variants(scale: BallWallScale) -> dict[str, SurrogateConfig]:
    """Every model of the study by name: the three kinds at each number of epochs, and SimNorm's group sizes at the first."""
    names: dict[str, SurrogateConfig] = {}
    for epochs in scale.epochs:
        suffix = "" if epochs == scale.epochs[0] else f", {epochs} epochs"
        names |= {f"{kind}{suffix}": SurrogateConfig(kind=kind, epochs=epochs) for kind in KINDS}
    for group in scale.groups:
        names[f"simnorm, groups of {group}"] = SurrogateConfig(kind="simnorm", group=group, epochs=scale.epochs[0])
    return names


def descent_variants(scale: BallWallScale, start: float, lr: float) -> dict[str, Descent]:
    """Every way of descending: plain, larger steps, another start, momentum, and noise on theta."""
    plain = Descent(start=start, steps=scale.steps, lr=lr)
    return {
        "plain": plain,
        "step x5": replace(plain, lr=5 * lr),
        "start + 0.15": replace(plain, start=start + 0.15),
        "momentum 0.9": replace(plain, momentum=0.9, lr=0.3 * lr),
        "noise 0.1 rad": replace(plain, noise=0.1),
        "noise 0.5 rad": replace(plain, noise=0.5),
    }


def study(
    world: BallWall, scale: BallWallScale, *, start: float, lr: float, runs_dir: Path, device: str = "cpu"
) -> tuple[pd.DataFrame, Path]:
    """The tidy table of all surrogates, descents and seeds (columns as `compare_surrogates`), and the file it is in.

    Runs once per set of parameters; later calls read the file.
    """
    surrogates, descents = surrogate_variants(scale), descent_variants(scale, start, lr)
    run = Run(runs_dir, "ball_wall", f"{scale.seeds}-seeds", {"world": world, "surrogates": surrogates, "descents": descents})
    path = run.folder / "results.csv"

    def work(run: Run) -> dict[str, int]:
        with single_thread():
            table, _, _ = compare_surrogates(world, surrogates, descents, seeds=scale.seeds, device=resolve_device(device))
        table.to_csv(path, index=False)
        return {"rows": len(table)}

    run.execute(work)
    return pd.read_csv(path), path


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Model error and gap of the model's own minimum, means over seeds with 95 % intervals; `outcomes` says where descent ends."""
    rows = []
    for (surrogate, descent), group in table.groupby(["surrogate", "descent"], sort=False):
        row: dict[str, object] = {"surrogate": surrogate, "descent": descent, "seeds": len(group)}
        for column in ("rmse", "argmin_gap"):
            low, high = _mean_interval(group[column].to_numpy())
            row |= {column: group[column].mean(), f"{column}_low": low, f"{column}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A `summary` with each mean and its interval in one column, as text."""

    def text(row: pd.Series, column: str) -> str:
        return f"{row[column]:.2f} [{row[column + '_low']:.2f}, {row[column + '_high']:.2f}]"

    columns = {c: [text(row, c) for _, row in table.iterrows()] for c in ("rmse", "argmin_gap")}
    return table[["surrogate", "seeds"]].assign(**columns)


def crossed(world: BallWall, value: pd.Series) -> pd.Series:
    """Say whether a throw of objective J [m] ends beyond the wall; one that is stopped there has J = -w."""
    return value < -world.wall - 1e-3


def outcomes(table: pd.DataFrame, world: BallWall) -> pd.DataFrame:
    """Where descents end, one line per surrogate and descent. table: of `study`.

    Columns crossed: share of seeds whose ball ends beyond the wall, with a 95 % Wilson interval (_low, _high); gap: distance of those
    from the optimum, J - J* [m], mean with a 95 % bootstrap interval, NaN where none crosses (the interval: fewer than two).
    """
    from scipy import stats  # a second of imports, which no job of a run should pay

    rows, (_, best) = [], world.optimum()
    for (surrogate, descent), group in table.groupby(["surrogate", "descent"], sort=False):
        beyond = group["gap"][crossed(world, group["gap"] + best)].to_numpy()
        share = stats.binomtest(len(beyond), len(group)).proportion_ci(method="wilson")
        gap = beyond.mean() if len(beyond) else np.nan
        low, high = _mean_interval(beyond) if len(beyond) > 1 else (np.nan, np.nan)
        row = {"surrogate": surrogate, "descent": descent, "seeds": len(group), "crossed": len(beyond) / len(group)}
        rows.append({**row, "crossed_low": share.low, "crossed_high": share.high, "gap": gap, "gap_low": low, "gap_high": high})
    return pd.DataFrame(rows)


def _mean_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean; the value itself when all are equal."""
    if len(values) < 2 or np.ptp(values) < 1e-9:
        return float(values.mean()), float(values.mean())
    from scipy import stats

    result = stats.bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0))
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


@dataclass(frozen=True)
class Example:
    """What Fig. 2, 9 and 10 are drawn from."""

    models: pd.DataFrame
    """One line a point: surrogate ("true J" among them), seed, theta [rad], value [m]."""
    ends: pd.DataFrame
    """One line a descent: surrogate, descent, seed, start and end [rad], J at the end [m], its gap to the optimum [m], and whether the ball
    crossed the wall."""
    courses: pd.DataFrame
    """One line a step: quantity ("training loss" or a descent's name), surrogate, step; median, low and high (10 and 90 %) over seeds."""


def example(world: BallWall, scale: BallWallScale, *, start: float, lr: float, device: str = "cpu", points: int = 300) -> Example:
    """The three models of the paper's figure with their plain and momentum descents, for drawing."""
    surrogates = {kind: SurrogateConfig(kind=kind, epochs=scale.epochs[0]) for kind in KINDS}
    descents = descent_variants(scale, start, lr)
    chosen = {name: descents[name] for name in ("plain", "momentum 0.9")}
    with single_thread():
        _, models, paths = compare_surrogates(world, surrogates, chosen, seeds=scale.seeds, device=resolve_device(device))
    best, best_value = world.optimum()
    grid = torch.cat([torch.linspace(*THETA, points), torch.tensor([best])]).sort().values
    lines, ends, courses = [], [], []

    def along(surrogate: str, seed: int, values: Tensor) -> pd.DataFrame:
        return pd.DataFrame({"surrogate": surrogate, "seed": seed, "theta": grid.numpy(), "value": values.numpy()})

    lines.append(along("true J", 0, world.objective(grid)))
    for kind, model in models.items():
        with torch.no_grad():
            fits = model(grid.expand(model.weights[0].shape[0], -1))
        lines += [along(kind, seed, fit) for seed, fit in enumerate(fits[:DRAWN_SEEDS])]
        courses.append(_course("training loss", kind, model.losses))
    for (kind, descent), path in paths.items():
        reached = world.objective(path[-1])
        line = {"surrogate": kind, "descent": descent, "seed": range(path.shape[1]), "start": path[0].numpy(), "end": path[-1].numpy()}
        end = pd.DataFrame({**line, "value": reached.numpy(), "gap": (reached - best_value).numpy()})
        ends.append(end.assign(crossed=crossed(world, end["value"])))
        courses.append(_course(descent, kind, world.objective(path)))
    return Example(*(pd.concat(parts, ignore_index=True) for parts in (lines, ends, courses)))


DRAWN_SEEDS = 8
"""Surrogates of this many seeds are drawn."""


def _course(quantity: str, surrogate: str, values: Tensor, most: int = 200) -> pd.DataFrame:
    """Quantiles over seeds of values [steps, seeds], at no more than `most` steps."""
    low, median, high = torch.quantile(values, torch.tensor([0.1, 0.5, 0.9]), dim=1)
    steps = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int))
    numbers = {"step": steps, "median": median.numpy()[steps], "low": low.numpy()[steps], "high": high.numpy()[steps]}
    return pd.DataFrame({"quantity": quantity, "surrogate": surrogate, **numbers})


def verdicts(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The claim for each way of descending, in its two parts: does descent on the regularised model cross the wall more often than on
    ReLU and on the true J, and does it end nearer to the optimum than on ReLU, where both cross?

    "holds" and "contradicts" are said only when the 95 % intervals do not overlap. The paper's settings only (its epochs, groups of 8).
    """
    rows = []
    for descent, group in outcomes.groupby("descent", sort=False):
        by = group.set_index("surrogate")
        for kind in ("layernorm_mish", "simnorm"):
            ours, relu, truth = by.loc[kind], by.loc["relu"], by.loc["true J"]
            if ours.crossed == 0 and relu.crossed == 0:
                often = "no model crosses"
            else:
                often = _said(ours.crossed_low > max(relu.crossed_high, truth.crossed_high), ours.crossed_high < relu.crossed_low)
            both = ours.crossed > 0 and relu.crossed > 0
            nearer = _said(ours.gap_high < relu.gap_low, ours.gap_low > relu.gap_high) if both else ""
            shares = {"true J crosses": truth.crossed, "ReLU crosses": relu.crossed, "regularised crosses": ours.crossed}
            gaps = {"ReLU ends at [m]": relu.gap, "regularised ends at [m]": ours.gap}
            rows.append(
                {"descent": descent, "regularised model": kind, **shares, "crosses more often": often, **gaps, "ends nearer": nearer}
            )
    return pd.DataFrame(rows)


def _said(better: bool, worse: bool) -> str:
    return "holds" if better else "contradicts: ReLU does better" if worse else "not shown at this size"
