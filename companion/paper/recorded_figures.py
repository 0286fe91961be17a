"""Figures of the committed results, drawn from data/results/ into figures/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from companion.ablations.figures import ablation_curves, extraction_curves
from companion.ablations.questions import ABLATIONS
from companion.ball_wall.figures import claim_map, landscapes, losses_and_descents
from companion.double_pendulum.figures import disturbance_growth, gradient_curves, gradient_fidelity_curves, gradient_switches
from companion.mt80.figures import (
    aggregate_bars,
    compared_scores,
    fine_tuning_curves,
    many_task_scores,
    multitask_scores,
    offline_cartpole_scores,
    online_curves,
)
from companion.perfect_model import perfect_model_curves
from companion.reporting.published import published_aggregates, published_scores, published_table
from companion.reporting.statistics import multitask_aggregates
from companion.reporting.style import WIDTH, save_figure, use_style
from companion.running.paths import PROJECT
from companion.running.results import provenance, results_path, results_paths
from companion.single_task.figures import aggregates_and_profile, learning_curves

__all__ = ["draw_recorded", "simulator_overview"]


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
        left.plot(curve["cpu_seconds"], curve["return"], marker="o", markersize=3, color="#0072B2", alpha=0.6)
    title = f"SHAC on Hopper, {shac['seed'].nunique()} seeds"
    left.set(xlabel="seconds on one core", ylabel="return of one episode", title=title, ylim=(0, None))
    parts = speed.assign(backward=speed["t_mlp"] - speed["forward_t_mlp"])
    right.barh(parts["env"], parts["forward_t_mlp"], color="#56B4E9", label="forward")
    right.barh(parts["env"], parts["backward"], left=parts["forward_t_mlp"], color="#0072B2", label="backward")
    right.axvline(1.0, color="0.3", linewidth=1, linestyle="--")
    right.text(1.1, 0, "one 64x256 MLP\nforward + backward", fontsize=8, va="center")
    right.set(xlabel="cost of one control step, 64 environments, one thread [t_mlp]", title="Whole environment step")
    right.invert_yaxis()
    right.legend(loc="center right")
    return figure


def _fine_tuning(anew: pd.DataFrame, extracted: pd.DataFrame, results: pd.DataFrame) -> Figure:
    return fine_tuning_curves(pd.concat([anew, extracted]), results)


def _compared(number: str) -> Callable[[pd.DataFrame], Figure]:
    return partial(compared_scores, title=f"Fig. {number}, in our numbers")


CART = ("offline_cartpole", "offline_cartpole_data")
TUNED = ("fine_tuning", "fine_tuning_extracted", "multitask_80")
DRAWN: list[tuple[str, str, Sequence[str], Callable[..., Figure]]] = [
    ("perfect_model", "none: control of Algorithm 1", ["perfect_model"], perfect_model_curves),
    ("offline_cartpole", "none: one task of Fig. 15", CART, offline_cartpole_scores),
    ("fig02_ball_wall", "Fig. 2, 9, 10", ["ball_wall_models", "ball_wall_ends"], landscapes),
    ("fig10_losses_and_descents", "Fig. 9, 10", ["ball_wall_courses", "ball_wall_models"], losses_and_descents),
    ("ball_wall_claim_map", "Sec. 3.1, claim", ["ball_wall_outcomes"], claim_map),
    ("simulator", "none: the environments of App. D", ["minimal_shac", "simulator_speed"], simulator_overview),
    ("fig03_double_pendulum", "Fig. 3, 11", ["double_pendulum"], gradient_curves),
    ("double_pendulum_switches", "none: what units and formula do to Fig. 3", ["double_pendulum"], gradient_switches),
    ("double_pendulum_fidelity", "none: bias of the gradients of Fig. 3", ["double_pendulum_fidelity"], gradient_fidelity_curves),
    ("double_pendulum_growth", "none: why Fig. 3 looks as it does", ["double_pendulum_growth"], disturbance_growth),
    ("multitask_tdmpc2", "Fig. 6", ["multitask_tdmpc2"], _compared("6")),
    ("multitask_one_policy", "Fig. 18", ["multitask_one_policy"], _compared("18")),
    ("multitask_horizon", "Fig. 14", ["multitask_horizon"], _compared("14")),
    ("multitask_fine_tuning", "none: App. C.4 from the shipped world model", TUNED, _fine_tuning),
    ("online", "none: App. C.4 on single tasks", ["online"], online_curves),
    (
        "fig06_multitask_80_tasks",
        "Fig. 6, left",
        ["multitask_80"],
        lambda t: aggregate_bars(multitask_aggregates(t), published_aggregates()),
    ),
    ("fig15_multitask_80_tasks", "Fig. 15, 16", ["multitask_80"], lambda t: many_task_scores(t, published_scores())),
    ("multitask_quick", "four tasks of Fig. 15, small", ["multitask_quick"], lambda t: multitask_scores(t, multitask_aggregates(t))),
    ("fig08b_extraction", "Fig. 8b", ["extraction"], extraction_curves),
]
"""Name of the figure, what it is in the paper, names of the tables, how it is drawn from them."""
OF_THE_PAPER = {
    "stiffness": "fig07a_",
    "batch": "fig07b_",
    "regularisation": "fig17_",
    "regularisation_ant": "fig08a_",
    "td_lambda_actor": "fig19_",
}
"""Ablation -> prefix of its figure's name; "ablation_" for the others."""


def draw_recorded() -> None:
    """Every figure of `DRAWN`, every ablation that has results, and learning curves and aggregates of every robot that has."""
    use_style()
    for name, paper, tables, draw in DRAWN:
        _save(name, paper, [results_path(table) for table in tables], draw)
    for name, ablation in ABLATIONS.items():
        if tables := results_paths(f"ablation_{name}") + results_paths(f"ablation_{name}_curves"):
            _save(OF_THE_PAPER.get(name, "ablation_") + name, ablation.figure, tables, partial(ablation_curves, question=ablation.question))
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
