"""The paper's figures, each from the published numbers, the authors' released files, or our own results.

    paper_figure("6", "published"); paper_figure("7a", "ours"); paper_figure("13", "released", Path("their/results"))

A figure whose inputs are missing is a panel that says what is missing and which command makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion.ablations.figures import ablation_curves, extraction_curves
from companion.ablations.questions import ABLATIONS
from companion.ball_wall import figures as ball_wall_figures
from companion.double_pendulum import figures as double_pendulum_figures
from companion.mt80.figures import aggregate_bars, compared_scores, many_task_scores
from companion.reporting.drawings import bars_figure, iqm_curves, message_panel, score_pairs
from companion.reporting.published import PUBLISHED, published_aggregates, published_scores
from companion.reporting.released import CURVES, ReleasedFilesError, planner_scores, training_runs
from companion.reporting.released import many_task_scores as released_scores
from companion.reporting.statistics import aggregate, multitask_aggregates
from companion.running.results import RESULTS
from companion.single_task.figures import learning_curves
from companion.single_task.tables import NAMES
from pwmlib.errors import ExplainedError

__all__ = ["PAPER_FIGURES", "SOURCES", "Drawn", "Inputs", "PaperFigure", "Source", "paper_figure"]

Source = Literal["published", "released", "ours"]
SOURCES: tuple[Source, ...] = get_args(Source)
PRINTED = "Table 4 as printed; intervals over runs where files exist"
AT_THE_END = "IQM at the end, intervals over runs (number of runs)"
ROBOTS = ("hopper", "ant", "anymal", "humanoid", "snu_like")


class NothingToDraw(ExplainedError):
    """Why a figure cannot be drawn from a source."""


@dataclass
class Inputs:
    """Where a figure's numbers come from; notes every file that is read."""

    source: Source
    released_dir: Path | None = None
    paths: list[Path] = field(default_factory=list)

    def ours(self, name: str, command: str) -> pd.DataFrame:
        """A table of data/results."""
        return self._table(RESULTS / f"{name}.csv", f"Not run yet. It is made by: {command}")

    def published(self, name: str) -> pd.DataFrame:
        """A table of data/published."""
        return self._table(PUBLISHED / f"{name}.csv", "It comes with the project; restore it from version control.")

    def released(self, name: str) -> Path:
        """One of the authors' files."""
        if self.released_dir is None:
            raise NothingToDraw("released_dir is not given: the folder with the authors' result files (README, 'The released files').")
        path = self.released_dir / name
        if not path.is_file():
            raise NothingToDraw(f"{name} is not in {self.released_dir}.")
        self.paths.append(path)
        return path

    def only(self, *sources: Source, why: str) -> None:
        """Raise NothingToDraw for the other sources."""
        if self.source not in sources:
            raise NothingToDraw(why)

    def _table(self, path: Path, missing: str) -> pd.DataFrame:
        if not path.is_file():
            raise NothingToDraw(f"{path.name} is missing. {missing}")
        self.paths.append(path)
        return pd.read_csv(path)


@dataclass(frozen=True)
class Drawn:
    """A figure, the files it was drawn from, and, where nothing could be drawn, why."""

    figure: Figure
    paths: tuple[Path, ...]
    missing: str = ""


def paper_figure(number: str, source: Source, released_dir: Path | None = None) -> Drawn:
    """Draw a figure of the paper. number: a key of `PAPER_FIGURES`; released_dir: folder of the authors' files, for source="released"."""
    if number not in PAPER_FIGURES:
        raise ValueError(f"no figure {number!r}; known: {', '.join(PAPER_FIGURES)}")
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    inputs = Inputs(source, released_dir)
    try:
        return Drawn(PAPER_FIGURES[number].draw(inputs), tuple(inputs.paths))
    except (NothingToDraw, ReleasedFilesError) as reason:
        return Drawn(message_panel(f"Fig. {number}, {source}", str(reason)), tuple(inputs.paths), str(reason))


def _ours_only(inputs: Inputs) -> None:
    inputs.only("ours", why="No numbers of this figure were published or released.")


BALL_WALL = "python -m companion.record ball_wall"
PENDULUM = "papermill notebooks/01_double_pendulum.ipynb out.ipynb -p scale laptop"
MT80 = "papermill notebooks/03_mt80.ipynb out.ipynb -p tasks 80"


def _landscapes(inputs: Inputs) -> Figure:
    _ours_only(inputs)
    return ball_wall_figures.landscapes(inputs.ours("ball_wall_models", BALL_WALL), inputs.ours("ball_wall_ends", BALL_WALL))


def _descents(inputs: Inputs) -> Figure:
    _ours_only(inputs)
    return ball_wall_figures.losses_and_descents(inputs.ours("ball_wall_courses", BALL_WALL), inputs.ours("ball_wall_models", BALL_WALL))


def _pendulum(inputs: Inputs) -> Figure:
    _ours_only(inputs)
    return double_pendulum_figures.gradient_curves(inputs.ours("double_pendulum", PENDULUM))


def _pendulum_switches(inputs: Inputs) -> Figure:
    _ours_only(inputs)
    return double_pendulum_figures.gradient_switches(inputs.ours("double_pendulum", PENDULUM))


def _line(label: str, tick: str, scores: pd.Series, *, hollow: bool = False) -> dict[str, object]:
    """IQM of one score a run with an interval over runs."""
    a = aggregate(pd.DataFrame({"task": "one", "train_seed": range(len(scores)), "score": scores.to_numpy()}))["iqm"]
    low, high = (np.nan if end is None else end for end in (a.low, a.high))
    return {"label": label, "tick": f"{tick} ({len(scores)})", "value": a.value, "low": low, "high": high, "hollow": hollow}


def _robots(inputs: Inputs) -> Figure:
    """Fig. 5: returns in units of PPO's published peak."""
    if inputs.source == "published":
        table = inputs.published("single_task_aggregate").rename(columns={"method": "label", "iqm": "value", "lo": "low", "hi": "high"})
        wanted = {
            "at the peak, as drawn\ntasks anew in each run": ("peak", "as in the notebooks"),
            "at the peak\nintervals over tasks": ("peak", "tasks"),
            "at the end\nintervals over runs": ("final", "runs"),
        }
        panels = {name: table[(table["point"] == point) & (table["resampled"] == over)] for name, (point, over) in wanted.items()}
        return bars_figure(panels, "return / PPO's peak", "Fig. 5, published: IQM over the five robots")
    ppo = inputs.published("single_task").query("algorithm == 'ppo'").set_index("task")["ppo_norm"]
    panels = {}
    for robot in ROBOTS:
        lines = _released_robot(inputs, robot, ppo[robot]) if inputs.source == "released" else _our_robot(inputs, robot, ppo[robot])
        if lines:
            panels[robot] = pd.DataFrame(lines)
    if not panels:
        raise NothingToDraw(
            "No robot has results. They are made by: python -m companion.record hopper_shac (and hopper_pwm, ant_shac, ...)"
        )
    heading = "at the end (filled) and at the peak (hollow), intervals over runs, number of runs below"
    return bars_figure(panels, "return / PPO's published peak", f"Fig. 5, {inputs.source}: {heading}")


def _our_robot(inputs: Inputs, robot: str, unit: float) -> list[dict[str, object]]:
    lines = []
    for algorithm, name in NAMES.items():
        path = RESULTS / f"single_task_{robot}_{algorithm}.csv"
        if path.is_file():
            runs = inputs.ours(path.stem, f"python -m companion.record {robot}_{algorithm}")
            lines += [_line(name, name, runs[point].fillna(0.0) / unit, hollow=point == "best") for point in ("last", "best")]
    return lines


def _released_robot(inputs: Inputs, robot: str, unit: float) -> list[dict[str, object]]:
    lines = []
    for curve in CURVES:
        if curve.figure == "13" and curve.task == robot:
            try:
                runs = training_runs(inputs.released(curve.file)).interpolate() / unit
            except NothingToDraw:
                if inputs.released_dir is None:
                    raise
                continue
            lines += [_line(curve.label, curve.label, runs.iloc[-1]), _line(curve.label, curve.label, runs.max(), hollow=True)]
    return lines


def _many_tasks(inputs: Inputs) -> Figure:
    """Fig. 6, left."""
    if inputs.source == "ours":
        table = inputs.ours("multitask_80", MT80)
        inputs.published("multitask_aggregate")
        return aggregate_bars(multitask_aggregates(table), published_aggregates("mt80"))
    panels = {}
    for name in ("mt30", "mt80"):
        if inputs.source == "published":
            table = inputs.published("multitask_aggregate")
            rows = table[table["set"].isin([f"{name.upper()} PWM", f"{name.upper()} TD-MPC2"]) & table["variant"].isin(["tasks", "runs"])]
            over = rows["variant"].map({"tasks": "over tasks", "runs": "over episodes"})
            label = rows["set"].str.partition(" ")[2]
            panels[name.upper()] = pd.DataFrame(
                {"label": label, "tick": label + "\n" + over, "value": rows["iqm"], "low": rows["lo"], "high": rows["hi"]}
            )
        else:
            panels[name.upper()] = _released_many(inputs, name)
    return bars_figure(panels, "IQM of scores", f"Fig. 6, {inputs.source}: intervals over tasks or over evaluation episodes")


def _released_many(inputs: Inputs, name: str) -> pd.DataFrame:
    pwm = released_scores(inputs.released(f"{name}_results.csv")).rename("score").reset_index().assign(train_seed=0)
    planner = planner_scores(inputs.released(f"tdmpc2_{name}_scores.csv")).rename(columns={"episode": "train_seed"})
    lines = []
    for label, table, over in (("PWM", pwm, "tasks"), ("TD-MPC2", planner, "tasks"), ("TD-MPC2", planner, "runs")):
        a = aggregate(table, over=over)["iqm"]
        of = {"tasks": "over tasks", "runs": "over episodes"}[over]
        lines.append({"label": label, "tick": f"{label}\n{of}", "value": a.value, "low": a.low, "high": a.high})
    return pd.DataFrame(lines)


def _curves_of(inputs: Inputs, number: str) -> tuple[dict[str, dict[str, pd.DataFrame]], list[str]]:
    """Panel (a task) -> label -> training curves of a figure's released files, and the names of those that are not there."""
    panels: dict[str, dict[str, pd.DataFrame]] = {}
    absent: list[NothingToDraw] = []
    for curve in CURVES:
        if curve.figure == number:
            try:
                runs = training_runs(inputs.released(curve.file))
                of_time = ", time" if runs.index.name == "seconds" and number == "13" else ""
                panels.setdefault(curve.task + of_time, {})[curve.label] = runs
            except NothingToDraw as reason:
                absent.append(reason)
    if not panels:
        raise absent[0]
    return panels, [str(reason).partition(" ")[0] for reason in absent]


def _released_curves(inputs: Inputs, number: str) -> Figure:
    panels, absent = _curves_of(inputs, number)
    return iqm_curves(panels, f"Fig. {number}, released" + (f" (not in the folder: {', '.join(absent)})" if absent else ""))


def _ablation(number: str, name: str) -> Callable[[Inputs], Figure]:
    """Fig. 7a, 7b, 8a, 17: bars as published, curves as released, and our variations of the question `name`."""

    def draw(inputs: Inputs) -> Figure:
        tasks = list(dict.fromkeys(c.task for c in CURVES if c.figure == number))
        if inputs.source == "published":
            table = inputs.published("ablations")
            rows = table[table["figure"].astype(str) == number]
            lines = rows.assign(value=rows["final_iqm"], low=rows["final_lo"], high=rows["final_hi"])
            lines["tick"] = lines["label"].astype(str) + " (" + lines["runs"].astype(str) + ")"
            panels = {task: lines[lines["task"] == task] for task in tasks}
            return bars_figure(panels, "return / PPO's peak", f"Fig. {number}, published: {AT_THE_END}")
        if inputs.source == "released":
            return _released_curves(inputs, number)
        command = f"python -m companion.record ablation_{name}"
        results, curves = inputs.ours(f"ablation_{name}", command), inputs.ours(f"ablation_{name}_curves", command)
        return ablation_curves(results, curves, f"Fig. {number}, ours: {ABLATIONS[name].question}")

    return draw


def _sample_efficiency(inputs: Inputs) -> Figure:
    """Fig. 8b."""
    inputs.only("published", "ours", why="PWM's line has no file: three numbers in the authors' notebook (source published draws them).")
    if inputs.source == "ours":
        found = extraction_curves(inputs.ours("extraction", "python -m companion.record extraction"))
        found.suptitle("Fig. 8b, ours", fontsize=10)
        return found
    table = inputs.published("extraction").rename(columns={"model_updates": "updates", "tdmpc2": "mean_return"})
    literals = inputs.published("literals")
    line = literals[literals["figure"] == "8b"]
    pwm = pd.DataFrame({"updates": line["label"].str.extract(r"(\d+)")[0].astype(int), "mean_return": line["value"]})
    mean = table.groupby("updates", as_index=False)["mean_return"].mean()
    parts = [mean.assign(method="TD-MPC2 without planning, one run a task"), pwm.assign(method="PWM, numbers written in the notebook")]
    found = extraction_curves(pd.concat(parts).assign(task="mean of 5 tasks"))
    found.suptitle("Fig. 8b, published", fontsize=10)
    return found


def _learning(inputs: Inputs) -> Figure:
    """Fig. 13."""
    if inputs.source == "released":
        return _released_curves(inputs, "13")
    published = inputs.published("single_task")
    if inputs.source == "published":
        rows = published.assign(label=published["algorithm"].map(LABELS), value=published["paper_t4_iqm"] / published["ppo_norm"])
        rows = rows.assign(low=rows["peak_lo"] / rows["ppo_norm"], high=rows["peak_hi"] / rows["ppo_norm"])
        return bars_figure({r: rows[rows["task"] == r] for r in ROBOTS}, "return / PPO's peak", f"Fig. 13, published: {PRINTED}")
    paths = sorted(RESULTS.glob("single_task_*_curves.csv"))
    if not paths:
        raise NothingToDraw(
            "No robot has results. They are made by: python -m companion.record hopper_shac (and hopper_pwm, ant_shac, ...)"
        )
    tables = [inputs.ours(path.stem, "python -m companion.record") for path in paths]
    return learning_curves(
        pd.concat(tables, ignore_index=True).sort_values("task", key=lambda t: t.map(ROBOTS.index), kind="stable"), published
    )


LABELS = {"ppo": "PPO", "sac": "SAC", "shac": "SHAC", "tdmpc2": "TD-MPC2", "pwm": "PWM"}


def _horizons(inputs: Inputs) -> Figure:
    """Fig. 14."""
    if inputs.source == "ours":
        return compared_scores(inputs.ours("multitask_horizon", f"{MT80} -p scale laptop -p comparisons '[\"horizon\"]'"), "Fig. 14, ours")
    names = {"PWM, published": "world model of H = 16", "PWM H = 3, published": "world model of H = 3"}
    if inputs.source == "published":
        inputs.published("multitask_per_task")
        table = (published_scores("mt80")[list(names)] / 100).rename(columns=names)
    else:
        files = {"world model of H = 16": "mt80_results.csv", "world model of H = 3": "mt80_results_h3.csv"}
        table = pd.DataFrame({name: released_scores(inputs.released(file)) for name, file in files.items()})
    return score_pairs(table.dropna(), f"Fig. 14, {inputs.source}: MT80, one policy a task; H = 3 had ten times the policy updates")


def _per_task(task_set: Literal["mt30", "mt80"]) -> Callable[[Inputs], Figure]:
    """Fig. 15 and 16."""

    def draw(inputs: Inputs) -> Figure:
        number = {"mt30": "15", "mt80": "16"}[task_set]
        if inputs.source != "released":
            inputs.published("multitask_per_task")
        if inputs.source == "ours":
            table = inputs.ours("multitask_80", MT80)
            wanted = table if task_set == "mt80" else table[table["task"].isin(published_scores("mt30").index)]
            return many_task_scores(wanted, published_scores(task_set))
        if inputs.source == "published":
            table = published_scores(task_set)[["PWM, published", "TD-MPC2, published"]] / 100
            table = table.rename(columns=lambda name: name.removesuffix(", published"))
        else:
            planner = planner_scores(inputs.released(f"tdmpc2_{task_set}_scores.csv")).groupby("task")["score"].mean()
            table = pd.DataFrame({"PWM": released_scores(inputs.released(f"{task_set}_results.csv")), "TD-MPC2": planner})
        return score_pairs(table, f"Fig. {number}, {inputs.source}: one policy a task; TD-MPC2 the mean of ten episodes")

    return draw


def _one_policy(inputs: Inputs) -> Figure:
    _ours_only(inputs)
    return compared_scores(
        inputs.ours("multitask_one_policy", f"{MT80} -p scale laptop -p comparisons '[\"one_policy\"]'"), "Fig. 18, ours"
    )


def _td_lambda(inputs: Inputs) -> Figure:
    _ours_only(inputs)
    return _ablation("19", "td_lambda_actor")(inputs)


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper: what it shows, and how it is drawn from a source."""

    title: str
    draw: Callable[[Inputs], Figure]


PAPER_FIGURES: dict[str, PaperFigure] = {
    "2": PaperFigure("ball and wall, the objective and gradient descent on its models", _landscapes),
    "3": PaperFigure("double pendulum, variance and ESNR of policy gradients", _pendulum),
    "5": PaperFigure("one robot at a time, aggregates", _robots),
    "6": PaperFigure("30 and 80 tasks, aggregates", _many_tasks),
    "7a": PaperFigure("stiff contact", _ablation("7a", "stiffness")),
    "7b": PaperFigure("batch of imagined trajectories", _ablation("7b", "batch")),
    "8a": PaperFigure("regularisation of the world model", _ablation("8a", "regularisation_ant")),
    "8b": PaperFigure("return against updates of the world model", _sample_efficiency),
    "9": PaperFigure("ball and wall, the models", _landscapes),
    "10": PaperFigure("ball and wall, training losses and descents", _descents),
    "11": PaperFigure("double pendulum, what the units of the reward and the formula of the ESNR change", _pendulum_switches),
    "13": PaperFigure("one robot at a time, learning curves", _learning),
    "14": PaperFigure("world model trained over 3 and over 16 steps", _horizons),
    "15": PaperFigure("30 tasks, each score", _per_task("mt30")),
    "16": PaperFigure("80 tasks, each score", _per_task("mt80")),
    "17": PaperFigure("regularisation of the world model, other robots", _ablation("17", "regularisation")),
    "18": PaperFigure("one policy for all tasks", _one_policy),
    "19": PaperFigure("lambda-return for the actor", _td_lambda),
}
"""Number in the paper -> what it shows and how it is drawn."""
