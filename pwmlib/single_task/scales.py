"""What quick, laptop and paper mean for the single tasks: sizes of each algorithm on each task."""

from __future__ import annotations

from dataclasses import replace

from ..baselines.sb3_config import SB3Config
from ..baselines.shac import SHACConfig
from ..world_model import WorldModelConfig
from .pwm_online import OnlinePWMConfig
from .runner import SingleTaskSettings

__all__ = ["SINGLE_TASK_SCALES", "settings_for"]

_PWM = OnlinePWMConfig()
_PAPER_PWM = replace(
    _PWM,
    actor_critic=replace(
        _PWM.actor_critic, updates=15_000, actor_lr=5e-4, critic_hidden=(400, 200), critics=3, critic_value="mean", critic_iterations=2,
        detach_policy_input=False,
    ),
    model=WorldModelConfig(
        latent_dim=512, encoder_hidden=(256,), dynamics_hidden=(512, 512), reward_hidden=(512, 512), task_dim=0, two_hot=None
    ),
    training=replace(_PWM.training, horizon=16, batch=256, final_lr=None),
    pretraining_updates=50_000,
    model_updates=8,
    first_model_updates=5000,
)  # fmt: skip

SINGLE_TASK_SCALES: dict[str, SingleTaskSettings] = {
    "quick": SingleTaskSettings(
        shac=SHACConfig(horizon=16, updates=300),
        pwm=replace(_PWM, actor_critic=replace(_PWM.actor_critic, updates=200), pretraining_updates=1000),
        replay=SHACConfig(horizon=16, updates=150),
        ppo=SB3Config(updates=200),
        sac=SB3Config(updates=40, hidden=(256, 256), gradient_steps=1),
    ),
    "laptop": SingleTaskSettings(
        shac=SHACConfig(horizon=32, updates=2000),
        pwm=_PWM,
        ppo=SB3Config(updates=2000),
        sac=SB3Config(updates=500, hidden=(256, 256)),
        evaluate_every=100,
    ),
    "paper": SingleTaskSettings(
        shac=SHACConfig(horizon=32, updates=5000, critic_iterations=16),
        pwm=_PAPER_PWM,
        ppo=SB3Config(updates=20_000),
        sac=SB3Config(updates=10_000, hidden=(256, 256)),
        replay=SHACConfig(horizon=32, updates=2000, critic_iterations=16),
        evaluate_every=500,
        checkpoint_every=500,
    ),
}
"""For Hopper; `settings_for` says what the other tasks change."""


def settings_for(scale: str, task: str) -> SingleTaskSettings:
    """The sizes of a scale on one task: SHAC runs on the dearer robots are shorter, the rest is Hopper's."""
    settings = SINGLE_TASK_SCALES[scale]
    if task == "hopper" or scale == "paper":
        return settings
    longer = {"ant": 1.0, "anymal": 1.0, "humanoid": 0.5, "snu_like": 0.25}[task]
    return replace(settings, shac=replace(settings.shac, updates=max(1, round(settings.shac.updates * longer))))
