"""The paper's figures, each from the published numbers, the authors' released files, or our own results.

    paper_figure("6", "published"); paper_figure("7a", "ours"); paper_figure("13", "released", Path("their/results"))

A figure whose inputs are missing is a panel that says what is missing and which command makes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure

from companion.ablations.figures import extraction_curves
from companion.ablations.questions import ABLATIONS
from companion.mt80.figures import COMPARED, many_task_scores
from companion.reporting.drawings import bars_figure, iqm_curves, message_panel, score_pairs
from companion.reporting.published import CURVES, ReleasedFilesError, planner_scores, published_scores, training_runs
from companion.reporting.published import many_task_scores as released_scores
from companion.reporting.statistics import iqm_with_interval
from companion.running.results import results_paths
from companion.single_task.figures import learning_curves
from companion.single_task.scales import SINGLE_TASKS as ROBOTS
from companion.single_task.tables import NAMES

from .inputs import SOURCES, Inputs, NothingToDraw, Source
from .recorded_figures import DRAWN, ablation_figure
from .released_aggregates import many_task_aggregates

NO_ROBOTS = "No robot has results. They are made by: python -m companion.record hopper_shac (and hopper_pwm, ant_shac, ...)"


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


def _recorded(name: str, inputs: Inputs, **options: str) -> Figure:
    """A figure of `DRAWN`; of what it shows no numbers were published or released."""
    inputs.only("ours", why="No numbers of this figure were published or released.")
    return DRAWN[name].draw(*map(inputs.ours, DRAWN[name].tables), **options)


def _last_and_best(label: str, last: pd.Series, best: pd.Series) -> list[dict[str, object]]:
    """Two bars: IQMs of one score a run with their intervals over runs."""
    lines = []
    for scores in (last, best):
        a = iqm_with_interval(pd.DataFrame({"task": "one", "train_seed": range(len(scores)), "score": scores.to_numpy()}))
        tick = f"{label} ({len(scores)})"
        lines.append({"label": label, "tick": tick, "value": a.value, "low": a.low, "high": a.high, "hollow": scores is best})
    return lines


def _robots(inputs: Inputs) -> Figure:
    """Draw Fig. 5, returns in units of PPO's published peak."""
    if inputs.source == "published":
        table = inputs.published("single_task_aggregate").rename(columns={"method": "label", "iqm": "value", "lo": "low", "hi": "high"})
        wanted = {
            "at the peak, as drawn\ntasks anew in each run": ("peak", "as in the notebooks"),
            "at the peak\nintervals over tasks": ("peak", "tasks"),
            "at the end\nintervals over runs": ("final", "runs"),
        }
        panels = {name: table[(table["point"] == point) & (table["resampled"] == over)] for name, (point, over) in wanted.items()}
        return bars_figure(panels, "return / PPO's peak", "Fig. 5, published: IQM over the five robots")
    units = inputs.published("single_task").query("algorithm == 'ppo'").set_index("task")["ppo_norm"]
    lines: dict[str, list[dict[str, object]]] = {robot: [] for robot in ROBOTS}
    if inputs.source == "released":
        for curve, runs in _released_runs(inputs, "13")[0]:
            runs = runs.interpolate() / units[curve.task]
            lines[curve.task] += _last_and_best(curve.label, runs.iloc[-1], runs.max())
    else:
        for robot, (algorithm, name) in product(ROBOTS, NAMES.items()):
            for path in results_paths(f"single_task_{robot}_{algorithm}"):
                runs = inputs.ours(path.stem)[["last", "best"]].fillna(0.0) / units[robot]
                lines[robot] += _last_and_best(name, runs["last"], runs["best"])
    panels = {robot: pd.DataFrame(found) for robot, found in lines.items() if found}
    if not panels:
        raise NothingToDraw(NO_ROBOTS)
    heading = "at the end (filled) and at the peak (hollow), intervals over runs, number of runs below"
    return bars_figure(panels, "return / PPO's published peak", f"Fig. 5, {inputs.source}: {heading}")


def _released_runs(inputs: Inputs, number: str) -> tuple[list[tuple[Any, pd.DataFrame]], list[str]]:
    """Entries of `CURVES` for a figure with their runs; and the files that are not in the folder."""
    found, absent = [], {}
    for curve in CURVES:
        if curve.figure == number:
            try:
                found.append((curve, training_runs(inputs.released(curve.file))))
            except NothingToDraw as reason:
                absent[curve.file] = reason
    if not found:
        raise next(iter(absent.values()))
    return found, list(absent)


def _many_tasks(inputs: Inputs) -> Figure:
    """Draw the left of Fig. 6."""
    if inputs.source == "ours":
        drawn = _recorded("fig06_multitask_80_tasks", inputs)
        inputs.published("multitask_aggregate")
        return drawn
    panels, resampled = {}, {"tasks": "over tasks", "runs": "over episodes"}
    for name in ("mt30", "mt80"):
        if inputs.source == "published":
            rows = inputs.published("multitask_aggregate")
            rows = rows[rows["set"].isin([f"{name.upper()} PWM", f"{name.upper()} TD-MPC2"]) & rows["variant"].isin(resampled)]
            rows = rows.assign(label=rows["set"].str.partition(" ")[2], over=rows["variant"])
            lines = rows.rename(columns={"iqm": "value", "lo": "low", "hi": "high"})
        else:
            files = inputs.released(f"{name}_results.csv"), inputs.released(f"tdmpc2_{name}_scores.csv")
            found = many_task_aggregates(*files)
            lines = pd.DataFrame([{"label": m, "over": over, "value": a.value, "low": a.low, "high": a.high} for m, over, a in found])
        panels[name.upper()] = lines.assign(tick=lines["label"] + "\n" + lines["over"].map(resampled))
    return bars_figure(panels, "IQM of scores", f"Fig. 6, {inputs.source}: intervals over tasks or over evaluation episodes")


def _released_curves(inputs: Inputs, number: str) -> Figure:
    """Training curves of a figure's released files; a panel a task."""
    panels: dict[str, dict[str, pd.DataFrame]] = {}
    found, absent = _released_runs(inputs, number)
    for curve, runs in found:
        of_time = ", time" if runs.index.name == "seconds" and number == "13" else ""
        panels.setdefault(curve.task + of_time, {})[curve.label] = runs
    return iqm_curves(panels, f"Fig. {number}, released" + (f" (not in the folder: {', '.join(absent)})" if absent else ""))


def _ablation(number: str, name: str, inputs: Inputs) -> Figure:
    """Draw Fig. 7a, 7b, 8a and 17: as published, bars; as released, curves; ours, the question `name`. Fig. 19 has ours only."""
    tasks = dict.fromkeys(c.task for c in CURVES if c.figure == number)
    if inputs.source == "published" and tasks:
        rows = inputs.published("ablations").astype({"figure": str, "label": str, "runs": str}).query("figure == @number")
        rows = rows.rename(columns={"final_iqm": "value", "final_lo": "low", "final_hi": "high"})
        rows["tick"] = rows["label"] + " (" + rows["runs"] + ")"
        title = f"Fig. {number}, published: IQM at the end, intervals over runs (number of runs)"
        return bars_figure({task: rows[rows["task"] == task] for task in tasks}, "return / PPO's peak", title)
    if inputs.source == "released" and tasks:
        return _released_curves(inputs, number)
    return _recorded(ablation_figure(name), inputs, question=f"Fig. {number}, ours: {ABLATIONS[name].question}")


def _sample_efficiency(inputs: Inputs) -> Figure:
    """Draw Fig. 8b."""
    inputs.only("published", "ours", why="PWM's line has no file: three numbers in the authors' notebook (source published draws them).")
    if inputs.source == "ours":
        lines = inputs.ours("extraction")
    else:
        table = inputs.published("extraction").rename(columns={"model_updates": "updates", "tdmpc2": "mean_return"})
        line = inputs.published("literals").query("figure == '8b'")
        pwm = pd.DataFrame({"updates": line["label"].str.extract(r"(\d+)")[0].astype(int), "mean_return": line["value"]})
        mean = table.groupby("updates", as_index=False)["mean_return"].mean()
        parts = [mean.assign(method="TD-MPC2 without planning, one run a task"), pwm.assign(method="PWM, numbers written in the notebook")]
        lines = pd.concat(parts).assign(task="mean of 5 tasks")
    found = extraction_curves(lines)
    found.suptitle(f"Fig. 8b, {inputs.source}", fontsize=10)
    return found


def _learning(inputs: Inputs) -> Figure:
    """Draw Fig. 13."""
    if inputs.source == "released":
        return _released_curves(inputs, "13")
    published = inputs.published("single_task")
    if inputs.source == "published":
        # Printed names are those of our learners; PWM's own are kinds of it.
        rows = published.assign(label=published["algorithm"].map({**NAMES, "pwm": "PWM"}))
        for name, column in (("value", "paper_t4_iqm"), ("low", "peak_lo"), ("high", "peak_hi")):
            rows[name] = rows[column] / rows["ppo_norm"]
        title = "Fig. 13, published: Table 4 as printed; intervals over runs where files exist"
        return bars_figure({r: rows[rows["task"] == r] for r in ROBOTS}, "return / PPO's peak", title)
    tables = [inputs.ours(path.stem) for path in results_paths("single_task_*_curves")]
    if not tables:
        raise NothingToDraw(NO_ROBOTS)
    return learning_curves(
        pd.concat(tables, ignore_index=True).sort_values("task", key=lambda t: t.map(ROBOTS.index), kind="stable"), published
    )


def _horizons(inputs: Inputs) -> Figure:
    """Draw Fig. 14."""
    if inputs.source == "ours":
        return _recorded("multitask_horizon", inputs, title="Fig. 14, ours: " + COMPARED["horizon"].lower())
    if inputs.source == "published":
        inputs.published("multitask_per_task")
        table = published_scores("mt80")[["PWM, published", "PWM H = 3, published"]] / 100
    else:
        table = pd.DataFrame({name: released_scores(inputs.released(f"{name}.csv")) for name in ("mt80_results", "mt80_results_h3")})
    table = table.set_axis(["world model of H = 16", "world model of H = 3"], axis=1).dropna()
    return score_pairs(table, f"Fig. 14, {inputs.source}: MT80, one policy a task; H = 3 had ten times the policy updates")


def _per_task(number: str, task_set: Literal["mt30", "mt80"], inputs: Inputs) -> Figure:
    """Draw Fig. 15 and 16."""
    if inputs.source == "released":
        planner = planner_scores(inputs.released(f"tdmpc2_{task_set}_scores.csv")).groupby("task")["score"].mean()
        table = pd.DataFrame({"PWM": released_scores(inputs.released(f"{task_set}_results.csv")), "TD-MPC2": planner})
    else:
        inputs.published("multitask_per_task")
        scores = published_scores(task_set)
        if inputs.source == "ours":
            ours = inputs.ours("multitask_80")
            return many_task_scores(ours[ours["task"].isin(scores.index)], scores)
        table = pd.DataFrame({name: scores[f"{name}, published"] / 100 for name in ("PWM", "TD-MPC2")})
    return score_pairs(table, f"Fig. {number}, {inputs.source}: one policy a task; TD-MPC2 the mean of ten episodes")


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper: what it shows, and how it is drawn from a source."""

    title: str
    draw: Callable[[Inputs], Figure]


PAPER_FIGURES: dict[str, PaperFigure] = {
    "2": PaperFigure("ball and wall, the objective and gradient descent on its models", partial(_recorded, "fig02_ball_wall")),
    "3": PaperFigure("double pendulum, variance and ESNR of policy gradients", partial(_recorded, "fig03_double_pendulum")),
    "5": PaperFigure("one robot at a time, aggregates", _robots),
    "6": PaperFigure("30 and 80 tasks, aggregates", _many_tasks),
    "7a": PaperFigure("stiff contact", partial(_ablation, "7a", "stiffness")),
    "7b": PaperFigure("batch of imagined trajectories", partial(_ablation, "7b", "batch")),
    "8a": PaperFigure("regularisation of the world model", partial(_ablation, "8a", "regularisation_ant")),
    "8b": PaperFigure("return against updates of the world model", _sample_efficiency),
    "9": PaperFigure("ball and wall, the models", partial(_recorded, "fig02_ball_wall")),
    "10": PaperFigure("ball and wall, training losses and descents", partial(_recorded, "fig10_losses_and_descents")),
    "11": PaperFigure(
        "double pendulum, what the units of the reward and the formula of the ESNR change", partial(_recorded, "double_pendulum_switches")
    ),
    "13": PaperFigure("one robot at a time, learning curves", _learning),
    "14": PaperFigure("world model trained over 3 and over 16 steps", _horizons),
    "15": PaperFigure("30 tasks, each score", partial(_per_task, "15", "mt30")),
    "16": PaperFigure("80 tasks, each score", partial(_per_task, "16", "mt80")),
    "17": PaperFigure("regularisation of the world model, other robots", partial(_ablation, "17", "regularisation")),
    "18": PaperFigure(
        "one policy for all tasks", partial(_recorded, "multitask_one_policy", title="Fig. 18, ours: " + COMPARED["one_policy"].lower())
    ),
    "19": PaperFigure("lambda-return for the actor", partial(_ablation, "19", "td_lambda_actor")),
}
"""Number in the paper -> what it shows and how it is drawn."""
