"""Figures of the committed results, drawn from data/results/ into figures/."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from companion.ablations.figures import ablation_curves, extraction_curves
from companion.ablations.questions import ABLATIONS
from companion.ball_wall.figures import claim_map, landscapes, losses_and_descents
from companion.double_pendulum.figures import (
    bias_and_variance,
    disturbance_growth,
    gradient_curves,
    gradient_fidelity_curves,
    gradient_switches,
)
from companion.mt80 import figures as mt80
from companion.mt80.cheating import promises_figure
from companion.perfect_model import perfect_model_curves
from companion.reporting.colours import BLUE, METHODS, SKY
from companion.reporting.published import published_aggregates, published_scores, published_table
from companion.reporting.statistics import multitask_aggregates
from companion.reporting.style import WIDTH, save_figure, use_style
from companion.running.paths import PROJECT
from companion.running.results import provenance, results_paths
from companion.single_task.figures import aggregates_and_profile, learning_curves


class Recorded(NamedTuple):
    """A figure of recorded tables: what it is in the paper, the tables, and how it is drawn from them."""

    paper: str
    tables: Sequence[str]
    draw: Callable[..., Figure]


def simulator_overview(shac: pd.DataFrame, speed: pd.DataFrame) -> Figure:
    """The six robots at the start of an episode; SHAC learning Hopper, one line a seed; the cost of a step in units of t_mlp."""
    from pwmlib.sim.env import DifferentiableEnv
    from pwmlib.sim.registry import ENVS
    from pwmlib.sim.render import render_frames

    figure = plt.figure(figsize=(WIDTH, 5.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.9])
    for axes, name in zip(top.subplots(1, 6), ENVS, strict=True):
        env = DifferentiableEnv(name, 1)
        axes.imshow(render_frames(env.model, env.state, stride=1, size=(2.4, 2.6))[0, 22:200])
        axes.set_axis_off()
        axes.set_title(f"{name}\nobservation {env.obs_dim}, action {env.action_dim}", fontsize=8)
    left, right = bottom.subplots(1, 2)
    for _, curve in shac.groupby("seed"):
        left.plot(curve["cpu_seconds"], curve["return"], marker="o", markersize=3, color=METHODS["SHAC"], alpha=0.6)
    title = f"SHAC on Hopper, {shac['seed'].nunique()} seeds"
    left.set(xlabel="seconds on one core", ylabel="mean return of 64 episodes", title=title, ylim=(0, None))
    parts = speed.assign(backward=speed["t_mlp"] - speed["forward_t_mlp"])
    right.barh(parts["env"], parts["forward_t_mlp"], color=SKY, label="forward")
    right.barh(parts["env"], parts["backward"], left=parts["forward_t_mlp"], color=BLUE, label="backward")
    right.axvline(1.0, color="0.3", linewidth=1, linestyle="--")
    right.text(1.1, 0, "one 64x256 MLP\nforward + backward", fontsize=8, va="center")
    right.set(xlabel="cost of one control step of 64 environments, in passes of a small MLP", title="Whole environment step")
    right.invert_yaxis()
    right.legend(loc="center right")
    return figure


def ablation_figure(name: str) -> str:
    """The name of its file: that of the paper's figure, where the ablation is one."""
    number = re.fullmatch(r"Fig\. (\d+)(\w?)", ABLATIONS[name].figure)
    return f"fig{int(number[1]):02}{number[2]}_{name}" if number else f"ablation_{name}"


DRAWN: dict[str, Recorded] = {
    "perfect_model": Recorded("none: control of Algorithm 1", ["perfect_model"], perfect_model_curves),
    "offline_cartpole": Recorded("none: one task of Fig. 15", ["offline_cartpole", "offline_cartpole_data"], mt80.offline_cartpole_scores),
    "fig02_ball_wall": Recorded("Fig. 2, 9, 10", ["ball_wall_models", "ball_wall_ends"], landscapes),
    "fig10_losses_and_descents": Recorded("Fig. 9, 10", ["ball_wall_courses", "ball_wall_models"], losses_and_descents),
    "ball_wall_claim_map": Recorded("Sec. 3.1, claim", ["ball_wall_outcomes"], claim_map),
    "simulator": Recorded("none: the environments of App. D", ["minimal_shac", "simulator_speed"], simulator_overview),
    "fig03_double_pendulum": Recorded("Fig. 3, 11", ["double_pendulum"], gradient_curves),
    "double_pendulum_switches": Recorded("none: what units and formula do to Fig. 3", ["double_pendulum"], gradient_switches),
    "double_pendulum_fidelity": Recorded("none: bias of the gradients of Fig. 3", ["double_pendulum_fidelity"], gradient_fidelity_curves),
    "double_pendulum_bias": Recorded("none: whether a low variance is bought with bias", ["double_pendulum_bias"], bias_and_variance),
    "double_pendulum_growth": Recorded("none: why Fig. 3 looks as it does", ["double_pendulum_growth"], disturbance_growth),
    "multitask_tdmpc2": Recorded("Fig. 6", ["multitask_tdmpc2"], partial(mt80.compared_scores, title=mt80.COMPARED["tdmpc2"])),
    "multitask_one_policy": Recorded("Fig. 18", ["multitask_one_policy"], partial(mt80.compared_scores, title=mt80.COMPARED["one_policy"])),
    "multitask_horizon": Recorded("Fig. 14", ["multitask_horizon"], partial(mt80.compared_scores, title=mt80.COMPARED["horizon"])),
    "multitask_fine_tuning": Recorded(
        "none: App. C.4 from the shipped world model",
        ["fine_tuning", "fine_tuning_extracted", "multitask_80"],
        lambda anew, extracted, results: mt80.fine_tuning_curves(pd.concat([anew, extracted]), results),
    ),
    "multitask_cheating": Recorded("none: which error the policies of Fig. 15 follow", ["cheating"], promises_figure),
    "multitask_anchored": Recorded("none: Fig. 15 with policies held near the data", ["anchored", "multitask_80"], mt80.anchored_returns),
    "online": Recorded("none: App. C.4 on single tasks", ["online"], mt80.online_curves),
    "fig06_multitask_80_tasks": Recorded(
        "Fig. 6, left", ["multitask_80"], lambda t: mt80.aggregate_bars(multitask_aggregates(t), published_aggregates())
    ),
    "fig15_multitask_80_tasks": Recorded("Fig. 15, 16", ["multitask_80"], lambda t: mt80.many_task_scores(t, published_scores())),
    "multitask_quick": Recorded(
        "four tasks of Fig. 15, small", ["multitask_quick"], lambda t: mt80.multitask_scores(t, multitask_aggregates(t))
    ),
    "fig08b_extraction": Recorded("Fig. 8b", ["extraction"], extraction_curves),
}
for _name, _ablation in ABLATIONS.items():
    _draw = partial(ablation_curves, question=_ablation.question)
    DRAWN[ablation_figure(_name)] = Recorded(_ablation.figure, [f"ablation_{_name}", f"ablation_{_name}_curves"], _draw)
"""Name of the file -> the figure."""


def draw_recorded() -> None:
    """Every figure of `DRAWN` whose tables are recorded, and learning curves and aggregates of every robot that has results."""
    use_style()
    for name, (paper, tables, draw) in DRAWN.items():
        paths = [path for table in tables for path in results_paths(table)]
        if len(paths) == len(tables):
            _save(name, paper, paths, draw)
    of_curves = results_paths("single_task_*_curves")
    of_results = [path.with_name(path.name.replace("_curves", "")) for path in of_curves]
    for robot in dict.fromkeys(pd.concat([pd.read_csv(path) for path in of_curves])["task"]):
        for paths, number, draw in ((of_curves, "13", learning_curves), (of_results, "05", aggregates_and_profile)):
            of_robot = [path for path in paths if (pd.read_csv(path)["task"] == robot).any()]
            _save(f"fig{number}_{robot}", f"Fig. {int(number)}", of_robot, partial(_of_robot, draw, robot))


def _of_robot(draw: Callable[..., Figure], robot: str, *tables: pd.DataFrame) -> Figure:
    """A figure of a robot's lines in all the tables."""
    return draw(pd.concat(tables, ignore_index=True).query("task == @robot"), published_table("single_task"))


def _save(name: str, paper: str, paths: Sequence[Path], draw: Callable[..., Figure]) -> None:
    """Draw from the tables; the figure's command is that of its first table."""
    drawn = draw(*map(pd.read_csv, paths))
    save_figure(drawn, PROJECT / "figures", name, paper=paper, inputs=paths, command=provenance()[paths[0].stem]["command"])
    plt.close(drawn)
