"""The settings of the multi-task pipeline; scales.toml says what quick, laptop and paper make of them."""

from dataclasses import field, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from companion.reporting.published import compare, dotted, printed_settings
from companion.running.parameters import read_scales
from pwmlib.baselines.tdmpc2 import TDMPC2Config
from pwmlib.baselines.tdmpc2_planner import TDMPC2PlannerConfig
from pwmlib.evaluation.planning import PlannerConfig
from pwmlib.model.training import Variant, WorldModelTraining
from pwmlib.model.world_model import WorldModelConfig, WorldModelLossConfig
from pwmlib.optimizer.online_episodes import OnlineConfig
from pwmlib.optimizer.pwm import PWMConfig
from pwmlib.settings import Count, SettingError, Whole, settings
from pwmlib.tasks import MT30

from .anchored import Anchor

Planned = Literal["uniform_random", "correlated_random", "mpc", "mpc_noisy"]
Scripted = Literal["uniform_random", "correlated_random", "scripted_hold", "scripted_noisy", "scripted_switching"]


@settings
class DataPlan:
    """Offline episodes of each task, by behaviour. One seed decides everything."""

    seed: Whole = 0
    dm_control: dict[Planned, Whole] = field(default_factory=lambda: {"uniform_random": 5, "correlated_random": 5})
    metaworld: dict[Scripted, Whole] = field(
        default_factory=lambda: {
            "scripted_hold": 25,
            "scripted_noisy": 40,
            "scripted_switching": 20,
            "correlated_random": 10,
            "uniform_random": 5,
        }
    )
    replay: OnlineConfig | None = None
    """The learning agent whose replay joins the dm_control data; None for no replay."""
    shard: Count = 20
    """How many episodes a file holds."""


@settings
class FineTuningPlan:
    """Online fine-tuning (App. C.4) of a task's copy of the world model: updates are after each episode in the real task."""

    policy: Literal["anew", "extracted"] = "anew"
    """Whether policy and critics start anew, as in the paper's single tasks, or are those that were extracted from the frozen model: such
    critics promise what only the frozen model holds, and have to unlearn it first."""
    episodes: Count = 80
    """How many follow the first ones."""
    first_episodes: Whole = 4
    """How many come before the first update."""
    first_model_updates: Whole = 400
    model_updates: Count = 100
    policy_updates: Count = 50
    training: WorldModelTraining = WorldModelTraining(
        horizon=8, batch=128, lr=1e-3, final_lr=1e-4, standardise_obs=True, loss=WorldModelLossConfig(dynamics_coef=5.0)
    )
    """How the task's copy of the world model is trained; `updates` follows from the numbers above."""

    def online(self, model: WorldModelConfig, policy: PWMConfig) -> OnlineConfig:
        """The settings of an agent that does so, with a copy of such a model, and with a policy's networks and learning rates."""
        return OnlineConfig(
            episodes=self.episodes,
            random_episodes=self.first_episodes,
            model_updates=self.model_updates,
            policy_updates=self.policy_updates,
            first_model_updates=self.first_model_updates,
            model=model,
            training=replace(self.training, updates=self.first_model_updates + self.episodes * self.model_updates),
            policy=replace(policy, updates=(self.episodes + 1) * self.policy_updates),
        )


@settings
class CollectionPlan:
    """Iterated collection (App. C.4) on all tasks: extract a policy of each from the present world model, act in the real task while it
    learns, train the world model further on everything. A policy finds what the model has wrong; its episodes put that right."""

    rounds: Count = 2
    episodes: Count = 18
    """Those of each task and round; every other one with the policy's noise."""
    stages: Count = 3
    """How many times during an extraction episodes are recorded."""
    policy: PWMConfig = PWMConfig()
    training: WorldModelTraining = WorldModelTraining()
    """How the world model is trained after each round, from the weights of the round before."""


@settings
class AgentsPlan:
    """Rounds in which an agent of each task acts and learns with its own copy of the present world model (App. C.4). The next world model
    of all tasks trains on their replays, as the published ones did. They follow those of `CollectionPlan`, or the shipped world model."""

    rounds: Count = 1
    stages: Count = 4
    """How many times an agent is evaluated."""
    agent: FineTuningPlan = FineTuningPlan()
    policy: PWMConfig = PWMConfig()
    """The agents' networks and learning rates."""
    training: WorldModelTraining = WorldModelTraining()
    """How the world model is trained after each round, from the weights of the round before."""


@settings
class MultitaskScale:
    """All numbers of one scale of notebook 03."""

    data: DataPlan = DataPlan()
    model: WorldModelConfig = WorldModelConfig()
    training: WorldModelTraining = WorldModelTraining()
    policy: PWMConfig = PWMConfig()
    planner: PlannerConfig = PlannerConfig()
    collection: CollectionPlan | None = None
    agents: AgentsPlan | None = field(default=None, metadata={"later": True})
    anchor: Anchor | None = field(default=None, metadata={"later": True})
    """Policies that are held near the data's good actions; None is the paper."""
    fine_tuning: FineTuningPlan = FineTuningPlan()
    one_policy: PWMConfig = PWMConfig()
    """The policy for all tasks (Fig. 18)."""
    tdmpc2: TDMPC2Config = TDMPC2Config()
    tdmpc2_planner: TDMPC2PlannerConfig = TDMPC2PlannerConfig()
    train_seeds: Count = 2
    model_seed: Whole = 0
    """The seed of the world model's weights and batches."""
    planner_episodes: Whole = 1
    eval_episodes: Count = 5
    evaluate_every: Count = 100
    checkpoint_every: Count = 100
    pretraining: Literal["world_model", "tdmpc2"] = field(default="world_model", metadata={"later": True})
    """What trains the world model: its own loss alone (Eq. 10), or TD-MPC2's joint one, whose Q-functions shape the latents too (the
    checkpoints that the released code loads); see `joint_training`."""


def joint_training(training: WorldModelTraining, tdmpc2: TDMPC2Config) -> TDMPC2Config:
    """TD-MPC2's settings with the lengths, rates and weights of a world model's training. Raises SettingError for what it cannot do."""
    loss, theirs = training.loss, dict(dotted(WorldModelTraining.variant("released")))
    same = ("updates", "horizon", "batch", "lr", "encoder_lr_scale", "grad_norm")
    free = {*same, "standardise_obs", "loss.gamma", "loss.dynamics_coef", "loss.reward_coef"}
    for name, value in dotted(training):
        if name not in free and value != theirs[name]:
            allowed, full = f"with pretraining='tdmpc2' it must be {theirs[name]!r}", f"training.{name}"
            raise SettingError(full, value, allowed, example={full: theirs[name]})
    weights = {"rho": loss.gamma, "consistency_coef": loss.dynamics_coef, "reward_coef": loss.reward_coef}
    return replace(tdmpc2, **{name: getattr(training, name) for name in same}, **weights)


@settings
class Chosen:
    """What parameters of notebook 03 are where they say nothing."""

    fine_tune: tuple[str, ...] = ()
    """Tasks with online fine-tuning."""


_FILE = Path(__file__).with_name("scales.toml")
_SCALES = read_scales(_FILE, MultitaskScale)
_CARTPOLE = _SCALES.pop("cartpole")
MULTITASK_SCALES: dict[str, MultitaskScale] = _SCALES
FINE_TUNED: dict[str, tuple[str, ...]] = {name: chosen.fine_tune for name, chosen in read_scales(_FILE, Chosen, parameters=True).items()}
"""Tasks with online fine-tuning where a run does not say which."""

DEVIATIONS: dict[str, tuple[object, str]] = {
    "model.task_dim": (64, "MT30: the width in the released checkpoints; Table 1 has that of MT80"),
}
"""Values of scale paper that are not the printed ones, and why."""


def multitask_scale(name: str, tasks: int, variant: Variant = "paper") -> MultitaskScale:
    """The numbers of a scale for so many tasks.

    variant: "released" is the authors' multi-task run: TD-MPC2's pre-training, no further training of the world model, every switch of
    `PWMConfig.variant("released")`, no action masks. Sizes and lengths stay the scale's, and at scale paper the policy's batch is theirs.
    """
    scale = MULTITASK_SCALES[name]
    if name == "paper" and tasks <= len(MT30):
        scale = replace(scale, model=replace(scale.model, task_dim=64))
    if variant == "paper":
        return scale
    ours, training = vars(PWMConfig()), WorldModelTraining.variant(variant)
    switches = {field: value for field, value in vars(PWMConfig.variant(variant)).items() if value != ours[field]}
    if name != "paper":
        del switches["batch"]
    how = ("encoder_lr_scale", "final_lr", "train_task_embedding", "precision", "loss")
    return replace(
        scale,
        model=replace(scale.model, apply_action_mask=False),
        training=replace(scale.training, **{field: getattr(training, field) for field in how}),
        policy=replace(scale.policy, **switches),
        collection=None,
        agents=None,
        pretraining="tdmpc2",
    )


def differences(scale: MultitaskScale) -> pd.DataFrame:
    """Every setting of a scale that is not the paper's: columns setting, here, paper (as printed, or else scale paper's), and why, where
    scale paper differs from what is printed."""
    return compare(scale, MULTITASK_SCALES["paper"], printed_settings("multitask"), DEVIATIONS)


OFFLINE_CARTPOLE: dict[str, MultitaskScale] = {
    "H = 16, lr 3e-4": _CARTPOLE,
    "H = 16, lr 1e-3": replace(_CARTPOLE, training=replace(_CARTPOLE.training, lr=1e-3)),
    "H = 8, lr 1e-3": replace(_CARTPOLE, training=replace(_CARTPOLE.training, horizon=8, lr=1e-3)),
}
"""The recorded offline experiment on cartpole-swingup: one replay, the paper's SimNorm model trained in three ways."""

_AGENT = replace(MULTITASK_SCALES["paper"].data.replay, episodes=60)
_SIMNORM = replace(_AGENT.model, latent_dim=128, encoder_hidden=(128,), residual=False)
ONLINE: dict[str, OnlineConfig] = {
    "SimNorm": replace(_AGENT, model=_SIMNORM, model_updates=150, policy_updates=40),
    "state-space": _AGENT,
}
"""PWM online: the paper's latent, and the residual state-space model that makes data (a deviation)."""
