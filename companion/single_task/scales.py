"""Sizes of each algorithm on the single tasks; scales.toml says what quick, laptop and paper make of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from companion.reporting.published import compare, printed_settings
from companion.running.parameters import read_scales
from companion.single_task.runner import Algorithm, SingleTaskSettings, parts_of
from pwmlib.settings import Count, settings


@settings
class Chosen:
    """What parameters of notebook 02 are where they say nothing."""

    tasks: tuple[str, ...] = ()
    algorithms: tuple[Algorithm, ...] = ()
    train_seeds: Count = 2


_FILE = Path(__file__).with_name("scales.toml")
SINGLE_TASK_SCALES: dict[str, SingleTaskSettings] = read_scales(_FILE, SingleTaskSettings)
"""For Hopper; `settings_for` says what the other tasks change."""
CHOSEN: dict[str, Chosen] = read_scales(_FILE, Chosen, parameters=True)
"""What each scale can afford."""
SINGLE_TASKS = CHOSEN["paper"].tasks
"""The robots of Section 4.1."""


_SIZE = "the released single-task size; Table 1 has the 48M multi-task model"
_SIZES = {"latent_dim": [512], "encoder_hidden": [256], "dynamics_hidden": [512, 512], "reward_hidden": [512, 512]}
DEVIATIONS: dict[str, tuple[object, str]] = {
    **{f"{part}.model.{name}": (v[0] if name == "latent_dim" else v, _SIZE) for part in ("pwm", "offline") for name, v in _SIZES.items()},
    "pwm.actor_critic.critic_iterations": (2, "counted in passes over 4 minibatches: the 8 gradient steps of Table 1"),
    "pwm.imagination": (
        "reencode",
        "the real step corrects each latent; at scale laptop 3677 and 3690 against 509 and 797 (ablation imagination)",
    ),
    "pwm.replay_steps": (
        20_000,
        "App. C gives no unit; the released code keeps 1 000 000 steps, a run here all that it has lived through, up to 5 000 000",
    ),
    "offline.model.termination": (True, "robots fall; without it a policy that has fallen goes on earning rewards in imagination"),
}
"""Values of scale paper that are not the printed ones, and why."""


def differences(settings: SingleTaskSettings, algorithms: Sequence[Algorithm]) -> pd.DataFrame:
    """Every setting of these algorithms that is not the paper's: columns setting, here, paper (as printed, or else scale paper's), and why,
    where scale paper differs from what is printed."""
    paper, printed = SINGLE_TASK_SCALES["paper"], printed_settings("single_task") | printed_settings("offline")
    parts = dict.fromkeys(part for algorithm in algorithms for part in parts_of(algorithm))
    tables = [compare(getattr(settings, part), getattr(paper, part), printed, DEVIATIONS, f"{part}.") for part in parts]
    return pd.concat(tables, ignore_index=True)


def settings_for(scale: str, task: str) -> SingleTaskSettings:
    """The sizes of a scale on one task: SHAC runs on the dearer robots are shorter, the rest is Hopper's."""
    settings = SINGLE_TASK_SCALES[scale]
    if task == "hopper" or scale == "paper":
        return settings
    longer = {"ant": 1.0, "anymal": 1.0, "humanoid": 0.5, "snu_like": 0.25}[task]
    return replace(settings, shac=replace(settings.shac, updates=max(1, round(settings.shac.updates * longer))))
