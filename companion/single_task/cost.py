"""What a single-task run is about to spend."""

import torch

from companion.single_task.runner import Algorithm, SingleTaskSettings
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.online_robots import OnlinePWMConfig
from pwmlib.sim.registry import env_spec

ROBOT = {"hopper": 1.0, "ant": 1.3, "anymal": 1.5, "humanoid": 3.0, "snu_like": 6.0}
"""Cost of what is done with a robot, relative to Hopper's."""

MODEL_NS = 0.13
"""Nanoseconds of one world-model update, forward and backward, for each weight and each step of its batch."""


def model_weights(config: WorldModelConfig, task: str) -> int:
    """Number of weights of a world model on a robot."""
    rules = env_spec(task).rules("paper")
    with torch.device("meta"):
        return sum(p.numel() for p in WorldModel(rules.obs_dim, rules.action_dim, config=config).parameters())


def core_seconds(algorithm: Algorithm, task: str, settings: SingleTaskSettings) -> float:
    """CPU-seconds of one run on one core of a Xeon, evaluations left out: from costs measured on Hopper at scale laptop, the world model's
    in proportion to its weights. TD-MPC2's were measured on an AMD EPYC."""
    robot, td, envs = ROBOT[task], settings.tdmpc2, settings.envs or env_spec(task).count
    shac = 0.0055 * robot * envs / 64
    """CPU-seconds of one step of all robots, from one of 64: forward, backward and its share of the critic's fit."""

    def model(config: WorldModelConfig, batch: int, horizon: int) -> float:
        # A state-space model has neither an encoder nor a latent's course to learn.
        return MODEL_NS * 1e-9 * model_weights(config, task) * batch * horizon * (0.7 if config.residual else 1.0)

    def online(config: OnlinePWMConfig, first: int) -> float:
        """Seconds of a PWM run with `first` model updates before the policy's; the policy's gradient passes the model once a step."""
        update = model(config.model, config.training.batch, config.training.horizon)
        policy = 0.1 * robot + model(config.model, 64, config.actor_critic.horizon)
        return first * update + config.actor_critic.updates * (policy + config.model_updates * update)

    replay = settings.replay.updates * settings.replay.horizon * shac
    if algorithm == "shac":
        return settings.shac.updates * settings.shac.horizon * shac
    if algorithm == "pwm":
        return replay + online(settings.pwm, settings.pwm.pretraining_updates)
    if algorithm == "pwm_scratch":
        return online(settings.pwm, settings.pwm.first_model_updates)
    if algorithm == "pwm_state_space":
        return online(settings.state_space, settings.state_space.first_model_updates)
    if algorithm == "pwm_offline":
        c = settings.offline
        trained = c.members * c.pretraining_updates * model(c.model, c.training.batch, c.training.horizon)
        return replay + trained + c.policy.updates * (0.08 + c.members * model(c.model, c.policy.batch, c.policy.horizon))
    if algorithm == "tdmpc2":
        larger = model_weights(td.model, task) / 305_000
        iterations = td.planner.searches(env_spec(task).rules("paper").action_dim)
        searched = td.envs * td.planner.samples * iterations * 6.6e-5 * larger
        return td.updates * td.steps * (searched + td.model_updates * 0.06 * larger * td.agent.batch / 128)
    if algorithm == "ppo":
        return settings.ppo.updates * settings.ppo.steps * envs / 25_000 * robot
    return settings.sac.updates * settings.sac.steps * (0.01 * robot + 0.012 * settings.sac.gradient_steps)


def duration(seconds: float) -> str:
    """Minutes, hours or days, as text."""
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:,.0f} h" if minutes < 60 * 96 else f"{minutes / 60 / 24:,.0f} days"
