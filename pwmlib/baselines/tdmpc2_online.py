"""TD-MPC2 on one task of the simulator: planning acts in the real environments, everything is learned from what they live through."""

from dataclasses import replace

import torch
from torch import Tensor

from pwmlib.continuation import Continued
from pwmlib.data.replay import Replay
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.settings import Count, Fraction, Whole, settings
from pwmlib.sim.env import DifferentiableEnv

from .tdmpc2 import TDMPC2, TDMPC2Config, TDMPC2Trainer, task_discount
from .tdmpc2_planner import PlanSearch, TDMPC2PlannerConfig

__all__ = ["OnlineTDMPC2", "OnlineTDMPC2Config"]


@settings
class OnlineTDMPC2Config:
    """Settings of one learner; an update is `steps` steps of every environment, `model_updates` of the agent after each."""

    updates: Count = 500
    steps: Count = 16
    envs: Count = 8
    """Few: every decision is a search."""
    agent: TDMPC2Config = TDMPC2Config(batch=128, hidden=(128, 128))
    model: WorldModelConfig = WorldModelConfig(
        latent_dim=64, encoder_hidden=(128,), dynamics_hidden=(256, 256), reward_hidden=(256, 256), task_dim=0, termination=True
    )
    planner: TDMPC2PlannerConfig = TDMPC2PlannerConfig(iterations=4, samples=128, prior_samples=16, elites=16)
    model_updates: Count = 2
    """After a step of all environments; the published learner lives in one and makes one after each of its steps."""
    discount: Fraction | None = None
    """None: the published one of the episode's length (`task_discount`)."""
    standardise_obs: bool = True
    """By the random steps' mean and deviation, as PWM's models are given the same robots; the published learner does not."""
    random_steps: Count = 250
    """Of uniform random actions before anything is learned (published: five episodes of one environment)."""
    first_model_updates: Whole = 500
    """Published: as many as random steps."""
    ending_share: Fraction = 0.25
    """Of the slices that hold an episode's end; the published learner draws them as often as they come."""
    planned_episodes: Count = 8
    """Of an evaluation with planning."""


class OnlineTDMPC2(Continued):
    """In the learner `actor` is the policy prior, `planner` acts as the paper does; `state_dict` continues it bit-identically."""

    kept, dispensable = ("trainer", "replay", "env", "generator", "step", "begun", "search"), ("replay",)

    def __init__(self, env: DifferentiableEnv, config: OnlineTDMPC2Config | None = None, *, seed: int = 0):
        c = self.config = config or OnlineTDMPC2Config()
        self.env, self.step = env, 0
        self.replay = Replay(c.random_steps + c.updates * c.steps, env.count, env.obs_dim, env.action_dim, ending_share=c.ending_share)
        device = env.simulator.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = WorldModel(env.obs_dim, env.action_dim, config=c.model).to(device)
        agent = replace(c.agent, updates=c.first_model_updates + c.updates * c.steps * c.model_updates)
        self.discount = task_discount(env.spec.episode_length) if c.discount is None else c.discount
        self.trainer = TDMPC2Trainer(model, self.replay, torch.tensor([self.discount]), agent, seed=seed)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.search = self.planner(env.count, seed=seed)
        env.reset(seed=seed, spread=True)
        self.begun = False

    @property
    def agent(self) -> TDMPC2:
        """World model, Q-functions and prior."""
        return self.trainer.agent

    def planner(self, count: int, *, seed: int = 0) -> PlanSearch:
        """Make a search over plans from `count` states."""
        return PlanSearch(self.agent, 0, count, self.discount, self.config.planner, seed=seed)

    def planning_policy(self, count: int):
        """Make a policy on observations [count, obs_dim] that plans, without noise; for one set of episodes from their start."""
        search = self.planner(count)
        return lambda obs, noise=None: search(self.encode(obs))[0]

    @torch.no_grad()
    def encode(self, obs: Tensor) -> Tensor:
        """Encode observations, z = E(s)."""
        return self.agent.model.encode(obs, torch.zeros((), dtype=torch.long, device=obs.device))

    @torch.no_grad()
    def actor(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Act by the prior's mode, TD-MPC2 without planning."""
        return self.agent.policy(self.encode(obs), torch.zeros((), dtype=torch.long, device=obs.device), noise)[0]

    def update(self) -> dict[str, float]:
        """Act and learn; returns scalars to log, and raises NonFiniteError."""
        c, rewards, metrics = self.config, [], {}
        if not self.begun:
            self._begin()
        for _ in range(c.steps):
            action, std = self.search(self.encode(self.env.detach()))
            noise = torch.randn(action.shape, generator=self.generator, device=action.device)
            rewards.append(self._act((action + std * noise).clamp(-1, 1)))
            for _ in range(c.model_updates):
                metrics = self.trainer.update()
        self.step += 1
        return {**metrics, "critic_loss": metrics.get("value_loss", 0.0), "reward": float(torch.stack(rewards).mean())}

    def _begin(self) -> None:
        for _ in range(self.config.random_steps):
            shape = (self.env.count, self.env.action_dim)
            self._act(2 * torch.rand(shape, generator=self.generator, device=self.generator.device) - 1)
        if self.config.standardise_obs:
            mean, std, *_ = self.replay.statistics()
            self.agent.model.set_statistics(mean, std)
        for _ in range(self.config.first_model_updates):
            self.trainer.update()
        self.begun = True

    def _act(self, action: Tensor) -> Tensor:
        step = self.replay.live(self.env, action)
        self.search.forget(step.terminated | step.truncated)
        return step.reward.mean()
