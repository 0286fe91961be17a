"""Figures of the committed results, drawn from data/results/ into figures/."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from companion import perfect_model
from companion.ablations.figures import ablation_curves, extraction_curves
from companion.ablations.questions import ABLATIONS
from companion.ball_wall import figures as ball_wall_figures
from companion.double_pendulum import figures as double_pendulum_figures
from companion.mt80 import figures as multitask_figures
from companion.mt80.figures import aggregate_bars, compared_scores, fine_tuning_curves, many_task_scores, multitask_scores, online_curves
from companion.reporting import style as figures
from companion.reporting.published import published_aggregates, published_scores, published_single_task
from companion.reporting.statistics import multitask_aggregates
from companion.reporting.style import WIDTH
from companion.running.paths import PROJECT
from companion.running.results import RESULTS
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
    left.set(
        xlabel="seconds on one core",
        ylabel="return of one episode",
        title=f"SHAC on Hopper, {shac['seed'].nunique()} seeds",
        ylim=(0, None),
    )
    parts = speed.assign(backward=speed["t_mlp"] - speed["forward_t_mlp"])
    right.barh(parts["env"], parts["forward_t_mlp"], color="#56B4E9", label="forward")
    right.barh(parts["env"], parts["backward"], left=parts["forward_t_mlp"], color="#0072B2", label="backward")
    right.axvline(1.0, color="0.3", linewidth=1, linestyle="--")
    right.text(1.1, 0, "one 64x256 MLP\nforward + backward", fontsize=8, va="center")
    right.set(xlabel="cost of one control step, 64 environments, one thread [t_mlp]", title="Whole environment step")
    right.invert_yaxis()
    right.legend(loc="center right")
    return figure


CONTROL = "none: control of Algorithm 1"
DRAWN: list[tuple[str, str, Sequence[str], Callable[..., Figure]]] = [
    ("perfect_model", CONTROL, ["perfect_model"], perfect_model.perfect_model_curves),
    (
        "offline_cartpole",
        "none: one task of Fig. 15",
        ["offline_cartpole", "offline_cartpole_data"],
        multitask_figures.offline_cartpole_scores,
    ),
    ("fig02_ball_wall", "Fig. 2, 9, 10", ["ball_wall_models", "ball_wall_ends"], ball_wall_figures.landscapes),
    ("fig10_losses_and_descents", "Fig. 9, 10", ["ball_wall_courses", "ball_wall_models"], ball_wall_figures.losses_and_descents),
    ("ball_wall_claim_map", "Sec. 3.1, claim", ["ball_wall_outcomes"], ball_wall_figures.claim_map),
    ("simulator", "none: the environments of App. D", ["minimal_shac", "simulator_speed"], simulator_overview),
    ("fig03_double_pendulum", "Fig. 3, 11", ["double_pendulum"], double_pendulum_figures.gradient_curves),
    (
        "double_pendulum_switches",
        "none: what units and formula do to Fig. 3",
        ["double_pendulum"],
        double_pendulum_figures.gradient_switches,
    ),
    (
        "double_pendulum_fidelity",
        "none: bias of the gradients of Fig. 3",
        ["double_pendulum_fidelity"],
        double_pendulum_figures.gradient_fidelity_curves,
    ),
    ("double_pendulum_growth", "none: why Fig. 3 looks as it does", ["double_pendulum_growth"], double_pendulum_figures.disturbance_growth),
    ("multitask_tdmpc2", "Fig. 6", ["multitask_tdmpc2"], lambda table: compared_scores(table, "Fig. 6, in our numbers")),
    ("multitask_one_policy", "Fig. 18", ["multitask_one_policy"], lambda table: compared_scores(table, "Fig. 18, in our numbers")),
    ("multitask_horizon", "Fig. 14", ["multitask_horizon"], lambda table: compared_scores(table, "Fig. 14, in our numbers")),
    (
        "multitask_fine_tuning",
        "none: App. C.4 from the shipped world model",
        ["fine_tuning", "fine_tuning_extracted", "multitask_80"],
        lambda anew, extracted, results: fine_tuning_curves(pd.concat([anew, extracted]), results),
    ),
    ("online", "none: App. C.4 on single tasks", ["online"], online_curves),
    (
        "fig06_multitask_80_tasks",
        "Fig. 6, left",
        ["multitask_80"],
        lambda table: aggregate_bars(multitask_aggregates(table), published_aggregates("mt80")),
    ),
    ("fig15_multitask_80_tasks", "Fig. 15, 16", ["multitask_80"], lambda table: many_task_scores(table, published_scores("mt80"))),
    ("multitask_quick", "four tasks of Fig. 15, small", ["multitask_quick"], lambda t: multitask_scores(t, multitask_aggregates(t))),
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
    figures.use_style()
    for name, paper, tables, draw in DRAWN:
        _save(name, paper, [RESULTS / f"{table}.csv" for table in tables], draw)
    for name, ablation in ABLATIONS.items():
        tables = [RESULTS / f"ablation_{name}{part}.csv" for part in ("", "_curves")]
        if tables[0].is_file():
            drawing = partial(ablation_curves, question=ablation.question)
            _save(OF_THE_PAPER.get(name, "ablation_") + name, ablation.figure, tables, drawing)
    if (RESULTS / "extraction.csv").is_file():
        _save("fig08b_extraction", "Fig. 8b", [RESULTS / "extraction.csv"], extraction_curves)
    of_curves = sorted(RESULTS.glob("single_task_*_curves.csv"))
    of_results = [path.with_name(path.name.replace("_curves", "")) for path in of_curves]
    for robot in dict.fromkeys(pd.concat([pd.read_csv(path) for path in of_curves])["task"]):
        for paths, name, paper, draw in (
            (of_curves, "fig13", "Fig. 13", learning_curves),
            (of_results, "fig05", "Fig. 5", aggregates_and_profile),
        ):
            of_robot = [path for path in paths if (pd.read_csv(path)["task"] == robot).any()]
            _save(f"{name}_{robot}", paper, of_robot, partial(_of_robot, draw, robot))


def _of_robot(draw: Callable[..., Figure], robot: str, *tables: pd.DataFrame) -> Figure:
    """A figure of a robot's lines in all the tables."""
    together = pd.concat(tables, ignore_index=True)
    return draw(together[together["task"] == robot], published_single_task())


def _save(name: str, paper: str, paths: Sequence[Path], draw: Callable[..., Figure]) -> None:
    """Draw from the tables; the figure's command is that of its first table."""
    provenance = json.loads((RESULTS / "provenance.json").read_text())
    command = provenance[paths[0].stem]["command"]
    drawn = draw(*map(pd.read_csv, paths))
    figures.save_figure(drawn, PROJECT / "figures", name, paper=paper, inputs=paths, command=command)
    plt.close(drawn)
