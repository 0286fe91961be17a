"""Short seeded runs of each learner, as numbers: what a rebuilt optimiser must give again.

python tests/optimizer/short_runs.py writes short_runs.json beside it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pwmlib.baselines.tdmpc2 import TDMPC2Config, TDMPC2Trainer
from pwmlib.data.replay import Replay
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.training import WorldModelTrainer, WorldModelTraining
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.offline_robots import OfflinePWM, OfflinePWMConfig
from pwmlib.optimizer.online_episodes import OnlineAgent, OnlineConfig
from pwmlib.optimizer.online_robots import OnlinePWM, OnlinePWMConfig
from pwmlib.optimizer.pwm import PWM, PWMConfig
from pwmlib.optimizer.shac import SHAC, SHACConfig
from pwmlib.optimizer.stacked import Member, StackedPolicies
from pwmlib.sim.closed_form import CartpoleSwingup
from pwmlib.sim.env import DifferentiableEnv
from pwmlib.tasks import make, select_tasks

RECORDED = Path(__file__).with_name("short_runs.json")
NETS = {"actor_hidden": (16, 12), "critic_hidden": (16,)}
SMALL = PWMConfig(updates=20, horizon=4, batch=8, critics=2, critic_iterations=2, **NETS)
MODEL = WorldModelConfig(latent_dim=16, encoder_hidden=(16,), dynamics_hidden=(16,), reward_hidden=(16,), task_dim=4)
SHAC_SMALL = SHACConfig(updates=8, horizon=6, **NETS)


def random_model(seed=0, **changes):
    torch.manual_seed(seed)
    model = WorldModel(5, 3, tasks=3, action_dims=[1, 3, 2], config=replace(MODEL, **changes))
    with torch.no_grad():
        model.reward_head[-1].weight.normal_(std=0.5)
        if model.termination_head is not None:
            model.termination_head[-1].weight.normal_(std=2.0)
            model.termination_head[-1].bias.fill_(-3.0)
    return model


def starts(model, task):
    view = FrozenWorldModel(model, task)
    return lambda batch, generator: view.encode(torch.randn(batch, 5, generator=generator)).detach()


def weights(*modules):
    return float(sum(p.detach().double().abs().sum() for m in modules for p in m.parameters()))


def several(learner, updates, *modules):
    rows = [{k: float(v) for k, v in learner.update().items()} for _ in range(updates)]
    return {**rows[-1], "weights": weights(*modules)}


def policy(world, config, updates=5):
    learner = PWM(*world, config, seed=1)
    return several(learner, updates, learner.actor, learner.critics)


def learned(task=0, **changes):
    model = random_model(**changes)
    return FrozenWorldModel(model, task), starts(model, task)


def closed_form():
    world = CartpoleSwingup()
    return world, lambda batch, generator: world.reset(batch, generator, start="broad")


def released(**changes):
    return PWMConfig.variant("released", updates=20, horizon=4, batch=8, critics=2, critic_iterations=2, **NETS, **changes)


def stacked(config, **changes):
    model = random_model(**changes)
    group = StackedPolicies(model, [Member(t, s, starts(model, t)) for t in (0, 2) for s in (0, 1)], config)
    rows = [group.update() for _ in range(4)]
    return {f"{k}_{i}": float(x) for k, v in rows[-1].items() for i, x in enumerate(v)} | {
        "weights": weights(*group.actors, *group.critics)
    }


def shac(**changes):
    learner = SHAC(DifferentiableEnv("hopper", 8, seed=0, episode_length=20), replace(SHAC_SMALL, **changes), seed=0)
    return several(learner, 3, learner.actor, learner.critics, learner.target)


def robot_config():
    small = replace(OnlinePWMConfig().model, latent_dim=16, encoder_hidden=(16,), dynamics_hidden=(16,), reward_hidden=(16,))
    training = replace(OnlinePWMConfig().training, batch=8, horizon=3)
    few = replace(OnlinePWMConfig().actor_critic, updates=6, horizon=5, **NETS)
    return replace(
        OnlinePWMConfig(), actor_critic=few, model=small, training=training, random_steps=10, first_model_updates=3, model_updates=2
    )


def robot_online(config):
    learner = OnlinePWM(DifferentiableEnv("hopper", 4, seed=0), config, seed=0)
    return several(learner, 6, learner.learner.actor, learner.learner.critics, learner.model)


def lived(steps=20):
    rng = torch.Generator().manual_seed(0)
    replay = Replay(64, 4, 5, 2)
    for t in range(steps):
        obs, end = torch.randn(4, 5, generator=rng), torch.rand(4, generator=rng) < 0.05
        action = torch.rand(4, 2, generator=rng) * 2 - 1
        replay.add(obs, action, torch.randn(4, generator=rng), obs + 0.1, end, torch.full((4,), t % 16 == 15) & ~end)
    return replay


def robot_offline(**changes):
    c = OfflinePWMConfig()
    small = replace(c.model, latent_dim=16, encoder_hidden=(16,), dynamics_hidden=(16,), reward_hidden=(16,))
    config = replace(
        c, model=small, training=replace(c.training, batch=8, horizon=3), pretraining_updates=4,
        policy=replace(c.policy, updates=6, horizon=4, batch=8, **NETS), **changes,
    )  # fmt: skip
    learner = OfflinePWM(lived(), config, seed=0)
    return several(learner, 4 * config.members + 3, learner.learner.actor, learner.learner.critics, learner.model)


def task_online():
    config = OnlineConfig(
        episodes=3, random_episodes=2, first_model_updates=4, model_updates=3, policy_updates=2,
        model=replace(MODEL, task_dim=0), training=WorldModelTraining(updates=20, batch=8, horizon=4), policy=SMALL,
    )  # fmt: skip
    agent = OnlineAgent(make(select_tasks(1, ["cartpole-swingup"])[0]), config, seed=0)
    rows = [agent.advance() for _ in range(4)]
    return {k: float(v) for k, v in rows[-1].items()} | {"weights": weights(agent.learner.actor, agent.learner.critics, agent.model)}


class Slices:
    def slices(self, batch, horizon, rng):
        draw = lambda *shape: torch.from_numpy(rng.standard_normal(shape).astype(np.float32))  # noqa: E731
        task = torch.from_numpy(rng.integers(3, size=batch))
        return draw(horizon + 1, batch, 5), draw(horizon, batch, 3).tanh(), draw(horizon, batch), task


def world_model(training):
    trainer = WorldModelTrainer(random_model(), Slices(), training, seed=0)
    return several(trainer, 4, trainer.model)


def tdmpc2():
    config = TDMPC2Config(updates=20, batch=8, horizon=3, hidden=(16, 16))
    trainer = TDMPC2Trainer(random_model(), Slices(), torch.full((3,), 0.95), config, seed=0)
    return several(trainer, 4, trainer.agent)


RUNS = {
    "policy, closed form": lambda: policy(closed_form(), SMALL),
    "policy, learned": lambda: policy(learned(), SMALL),
    "policy, learned, bfloat16": lambda: policy(learned(), replace(SMALL, precision="bfloat16"), 1),
    "policy, learned, termination": lambda: policy(learned(termination=True), replace(SMALL, continued=0.7, critic_loss="mean")),
    "policy, released": lambda: policy(learned(1), released()),
    "policy, lambda-return": lambda: policy(learned(2), replace(SMALL, actor_objective="td_lambda", norm_order="none")),
    "stacked": lambda: stacked(SMALL),
    "stacked, released": lambda: stacked(released()),
    "stacked, termination": lambda: stacked(replace(SMALL, continued=0.7), termination=True),
    "shac": shac,
    "shac, switches": lambda: shac(
        critics=3, critic_value="min", terminal_discount="gamma^(H+1)", detach_policy_input=True, return_scaling="running_std",
        normalise_obs=False, reward_scale=0.1,
    ),
    "shac, lambda-return": lambda: shac(actor_objective="td_lambda"),
    "robot, online": lambda: robot_online(robot_config()),
    "robot, online, released": lambda: robot_online(robot_config().released()),
    "robot, offline": robot_offline,
    "robot, offline, cautious": lambda: robot_offline(members=2, pessimism=0.5),
    "task, online": task_online,
    "world model": lambda: world_model(WorldModelTraining(updates=20, batch=8, horizon=4)),
    "world model, released": lambda: world_model(WorldModelTraining.variant("released", updates=20, batch=8, horizon=4)),
    "TD-MPC2": tdmpc2,
}  # fmt: skip

if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {}
    for name, run in RUNS.items():
        found[name] = run()
        print(name, found[name])
    RECORDED.write_text(json.dumps(found, indent=1) + "\n")
