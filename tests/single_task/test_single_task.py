"""PWM on the differentiable simulator: the replay, a world model's gradients in the place of the simulator's, and the control."""

import dataclasses
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from companion.ablations.questions import ABLATIONS, AblationError, ablation_experiments, read_ablations, run_ablation
from companion.record import recorded_settings
from companion.reporting.published import published_table
from companion.running.jobs import run_jobs
from companion.running.runs import Run
from companion.single_task.experiment import SingleTaskExperiment, curves_table, results_table, train_together
from companion.single_task.figures import aggregates_and_profile
from companion.single_task.runner import SingleTaskRun, SingleTaskSettings
from companion.single_task.tables import beside_published, equal_time
from pwmlib.baselines.sb3_config import SB3Config
from pwmlib.baselines.tdmpc2 import TDMPC2Config
from pwmlib.baselines.tdmpc2_online import OnlineTDMPC2, OnlineTDMPC2Config
from pwmlib.baselines.tdmpc2_planner import TDMPC2PlannerConfig
from pwmlib.data.replay import Replay
from pwmlib.model.twohot import TwoHot
from pwmlib.model.world_model import WorldModel, WorldModelConfig, world_model_loss
from pwmlib.optimizer.model_env import ModelEnv
from pwmlib.optimizer.offline_robots import OfflinePWMConfig
from pwmlib.optimizer.online_robots import OnlinePWM, OnlinePWMConfig
from pwmlib.optimizer.pwm import PWMConfig
from pwmlib.optimizer.shac import SHAC, SHACConfig
from pwmlib.sim.env import DifferentiableEnv
from pwmlib.sim.training_env import evaluate_policy

SMALL = WorldModelConfig(latent_dim=16, encoder_hidden=(16,), dynamics_hidden=(16,), reward_hidden=(16,), task_dim=0, two_hot=None)


def lived(steps, count=3, capacity=50, **options):
    """A replay whose observation is (environment, time); an episode of environment e ends at times that 5 + e divides."""
    replay = Replay(capacity, count, 2, 1, **options)
    envs = torch.arange(count).float()
    for t in range(steps):
        obs, following = torch.stack([envs, torch.full((count,), float(t))], 1), torch.stack([envs, torch.full((count,), t + 0.5)], 1)
        ends = torch.tensor([t % (5 + e) == 4 + e for e in range(count)])
        replay.add(obs, torch.full((count, 1), float(t)), torch.full((count,), float(t)), following, ends, torch.zeros(count).bool())
    return replay


@pytest.mark.parametrize("steps", [20, 50, 173])
def test_slices_are_what_was_lived_through_and_end_with_the_episode(steps):
    replay, horizon = lived(steps), 6
    obs, action, reward, task, valid, terminated = replay.slices(400, horizon, np.random.default_rng(0))
    assert obs.shape == (7, 400, 2) and valid.shape == (6, 400) and not task.any()
    first = obs[0, :, 1]
    assert first.min() >= steps - len(replay) and (first + horizon <= steps).all(), "only what is still held"
    for h in range(horizon):
        torch.testing.assert_close(action[h, :, 0], first + h)
        torch.testing.assert_close(reward[h], first + h)
        torch.testing.assert_close(obs[h + 1, :, 1], first + h + 0.5)  # the observation before any reset
        assert torch.equal(obs[h + 1, :, 0], obs[0, :, 0])
    for b in range(400):
        e, t = int(obs[0, b, 0]), int(first[b])
        expected = [all(k % (5 + e) != 4 + e for k in range(t, t + h)) for h in range(horizon)]
        assert valid[:, b].bool().tolist() == expected
        assert terminated[:, b].tolist() == [(t + h) % (5 + e) == 4 + e for h in range(horizon)]


def test_the_asked_share_of_slices_holds_a_termination():
    rare = Replay(400, 2, 2, 1, ending_share=0.5)
    for t in range(400):
        ends = torch.tensor([t == 200, False])
        zeros = torch.zeros(2)
        rare.add(torch.zeros(2, 2), torch.zeros(2, 1), ends.float(), torch.zeros(2, 2), ends, zeros.bool())
    *_, reward, _, _, _ = rare.slices(4000, 5, np.random.default_rng(0))
    assert float(reward.amax(0).mean()) == pytest.approx(0.5, abs=0.04), "the one termination of 800 steps"
    for _ in range(400):  # a termination that is no longer held is no longer asked for
        rare.add(torch.zeros(2, 2), torch.zeros(2, 1), zeros, torch.zeros(2, 2), zeros.bool(), zeros.bool())
    assert not rare.slices(4000, 5, np.random.default_rng(0))[-1].any()
    with pytest.raises(ValueError, match="slices of 9 steps asked for, but it holds 4"):
        lived(4).slices(1, 9, np.random.default_rng(0))
    with pytest.raises(ValueError, match="ending_share and recent_share must be in 0..1 together, got 2 and 0.0"):
        Replay(1, 1, 1, 1, ending_share=2)


def test_the_asked_share_of_slices_is_recent():
    replay = lived(400, capacity=400, ending_share=0.2, recent_share=0.3, recent_steps=20)
    obs, *_ = replay.slices(4000, 5, np.random.default_rng(0))
    assert float((obs[0, :, 1] >= 376).float().mean()) == pytest.approx(0.3 + 0.7 * 20 / 396, abs=0.03)


def test_a_replay_continues_from_its_state():
    one, two = lived(173), Replay(50, 3, 2, 1)
    two.load_state_dict(one.state_dict())
    a, b = (r.slices(20, 4, np.random.default_rng(1)) for r in (one, two))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_what_comes_after_the_end_changes_neither_loss_nor_gradient():
    torch.manual_seed(0)
    model = WorldModel(4, 2, config=SMALL)
    obs, action, reward, task = torch.randn(6, 8, 4), torch.rand(5, 8, 2), torch.randn(5, 8), torch.zeros(8, dtype=torch.long)
    valid = (torch.arange(5)[:, None] < torch.randint(1, 6, (8,))).float()

    def gradient(obs, action, reward, **options):
        loss, _ = world_model_loss(model, obs, action, reward, task, **options)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    for nonsense in ((7.0, 0.5, -9.0), (torch.nan, torch.nan, torch.nan)):
        broken = [obs.clone(), action.clone(), reward.clone()]
        broken[0][1:][valid == 0], broken[1][valid == 0], broken[2][valid == 0] = nonsense
        torch.testing.assert_close(gradient(obs, action, reward, valid=valid), gradient(*broken, valid=valid))
    assert not torch.allclose(gradient(obs, action, reward), gradient(obs, action, reward, valid=valid))
    everything = torch.ones(5, 8)
    torch.testing.assert_close(gradient(obs, action, reward), gradient(obs, action, reward, valid=everything))


@pytest.mark.parametrize("imagination", ["reencode", "open_loop"])
def test_values_are_real_and_gradients_the_models(imagination):
    torch.manual_seed(0)
    env = DifferentiableEnv("hopper", 4, seed=0)
    model = WorldModel(env.obs_dim, env.action_dim, config=SMALL)
    world = ModelEnv(env, model, Replay(50, 4, env.obs_dim, env.action_dim), imagination=imagination)
    start = world.reset()
    torch.testing.assert_close(start, model.encode(env.detach(), torch.tensor(0)).detach())
    actions = [torch.zeros(4, 3, requires_grad=True) for _ in range(3)]
    z, total = start, 0.0
    for a in actions:
        step = world.step(a)
        total = total + step.reward.sum()
        z = step.obs
        real = model.encode(env.detach(), torch.tensor(0))
        assert torch.allclose(z, real, atol=1e-6) == (imagination == "reencode")
    found = torch.autograd.grad(total, actions)
    assert len(world.replay) == 0
    world.keep()
    # By hand: the model from the same latents, each with the value of the real one where it is re-encoded.
    twins, z, by_hand = [torch.zeros(4, 3, requires_grad=True) for _ in range(3)], start, 0.0
    for t, a in enumerate(twins):
        by_hand = by_hand + model.reward(z, a, torch.tensor(0), symexp=True).sum()
        z = model.next(z, a, torch.tensor(0))
        if imagination == "reencode":
            z = z + (model.encode(world.replay.next_obs[t], torch.tensor(0)) - z).detach()
    for a, b in zip(found, torch.autograd.grad(by_hand, twins), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    assert len(world.replay) == 3


def test_no_gradient_crosses_the_end_of_an_episode():
    env = DifferentiableEnv("hopper", 2, seed=0, episode_length=2)
    model = WorldModel(env.obs_dim, env.action_dim, config=SMALL)
    world = ModelEnv(env, model, Replay(50, 2, env.obs_dim, env.action_dim))
    world.reset()
    first = torch.zeros(2, 3, requires_grad=True)
    before = world.step(first)
    last = world.step(torch.zeros(2, 3))
    assert before.obs.requires_grad and last.truncated.all() and last.final_obs.requires_grad
    assert torch.autograd.grad(last.obs.sum(), first, allow_unused=True)[0].abs().max() == 0


def test_a_model_of_other_sizes_and_an_unknown_way_are_named():
    env = DifferentiableEnv("hopper", 2, seed=0)
    with pytest.raises(ValueError, match=r"hopper has \(11, 3\) observations and actions, the model \(5, 3\)"):
        ModelEnv(env, WorldModel(5, 3, config=SMALL), Replay(2, 2, 5, 3))
    with pytest.raises(ValueError, match="imagination must be 'reencode' or 'open_loop', got 'dream'"):
        ModelEnv(env, WorldModel(11, 3, config=SMALL), Replay(2, 2, 11, 3), imagination="dream")


def tiny(seed=0):
    c = OnlinePWMConfig()
    few = dataclasses.replace(c.actor_critic, updates=6, actor_hidden=(16,), critic_hidden=(16,))
    config = dataclasses.replace(c, actor_critic=few, model=SMALL, random_steps=20, first_model_updates=4, model_updates=2)
    return OnlinePWM(DifferentiableEnv("hopper", 4, seed=seed), config, seed=seed)


def test_online_learning_continues_bit_for_bit():
    whole, cut = tiny(), tiny()
    for _ in range(7):
        whole.update()
    for _ in range(5):
        cut.update()
    again = tiny()
    again.load_state_dict(cut.state_dict())
    for _ in range(2):
        again.update()
    assert whole.step == again.step == 3 and len(whole.replay) == len(again.replay) == 20 + 3 * 16
    for a, b in zip(whole.learner.actor.parameters(), again.learner.actor.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.long
def test_control_the_actor_critic_of_pwm_learns_on_the_simulators_own_gradients():
    """The same loop with a perfect model: one that fails on a learned model but not here points at the model."""
    config = dataclasses.replace(OnlinePWMConfig().actor_critic, updates=300, normalise_obs=True)
    learner, best = SHAC(DifferentiableEnv("hopper", 64, seed=0), config, seed=0), 0.0
    for _ in range(300):
        learner.update()
        if learner.step % 50 == 0:
            best = max(best, float(evaluate_policy(learner.actor, "hopper", episodes=16).mean()))
    assert best >= 2500


@pytest.fixture
def settings():
    config = tiny().config
    shac = SHACConfig(updates=4, horizon=4, actor_hidden=(16,), critic_hidden=(16,))
    pwm = dataclasses.replace(config, pretraining_updates=3)
    sb3 = SB3Config(updates=4, steps=4, hidden=(16,), minibatch=8, batch=8, buffer=200)
    state_space = dataclasses.replace(pwm, model=dataclasses.replace(SMALL, residual=True))
    policy = PWMConfig(updates=4, horizon=4, batch=8, actor_hidden=(16,), critic_hidden=(16,))
    offline = OfflinePWMConfig(model=dataclasses.replace(SMALL, termination=True), pretraining_updates=3, policy=policy)
    return SingleTaskSettings(
        shac=shac, pwm=pwm, state_space=state_space, offline=offline,
        replay=shac, ppo=sb3, sac=sb3, tdmpc2=TINY_TDMPC2, envs=4, eval_episodes=2,
        evaluate_every=2, checkpoint_every=2,
    )  # fmt: skip


TINY_TDMPC2 = OnlineTDMPC2Config(
    updates=4, steps=2, envs=3, agent=TDMPC2Config(batch=8, hidden=(16,)),
    model=dataclasses.replace(SMALL, two_hot=TwoHot(), termination=True), random_steps=10, first_model_updates=3, planned_episodes=2,
    planner=TDMPC2PlannerConfig(horizon=1, iterations=1, samples=6, prior_samples=2, elites=3),
)  # fmt: skip
FROM_SCRATCH, FROM_REPLAY = [80, 208, 336, 464], [64, 192, 320, 448]
"""4 environments x (20 random steps, or 4 updates of SHAC over 4 steps) before the first policy update, then 16 steps each.
Optimiser steps of an update: SHAC's policy 1, critic 4 x 4; the model's 2; PPO's 5 epochs of 2 mini-batches; SAC's three networks 8 after
each step beyond the first 40; TD-MPC2's two, 2 after each of 2 steps; offline the policy's 1 and the critics' 8."""


@pytest.mark.parametrize(
    ("algorithm", "steps", "gradient_steps"),
    [
        ("shac", [32, 64], [34, 68]), ("pwm_scratch", FROM_SCRATCH, [4, 42, 80, 118]), ("pwm_state_space", FROM_SCRATCH, [4, 42, 80, 118]),
        ("pwm", FROM_REPLAY, [71, 109, 147, 185]), ("ppo", [32, 64], [20, 40]), ("sac", [32, 64], [0, 6 * 8 * 3]),
        ("tdmpc2", [42, 54], [22, 38]), ("pwm_offline", [64, 64, 64], [71, 89, 107]),
    ],
)  # fmt: skip
def test_a_run_has_a_curve_against_steps_and_time(algorithm, steps, gradient_steps, settings, tmp_path):
    run = SingleTaskRun(algorithm, "hopper", 0, settings, tmp_path)
    result = run.train()
    curve = result["curve"]
    assert [row["env_steps"] for row in curve] == steps and result["status"] == "finished"
    assert all(a["cpu_s"] <= b["cpu_s"] for a, b in zip(curve, curve[1:], strict=False))
    assert [row["gradient_steps"] for row in curve] == gradient_steps
    assert result["last"] == curve[-1]["mean_return"] and result["best"] == max(row["mean_return"] for row in curve)
    assert run.train() == result
    policy, saved = (
        SingleTaskRun(algorithm, "hopper", 0, settings, tmp_path).policy(),
        Run.checkpoint_in(next((tmp_path / "single_task").glob("h*"))),
    )
    assert policy(torch.zeros(5, 11), None).shape == (5, 3) and "replay" not in saved["learner"]


@pytest.mark.parametrize("algorithm", [*(pytest.param(name, marks=pytest.mark.long) for name in ("shac", "ppo")), "pwm_scratch"])
def test_a_curve_has_the_return_of_the_training_episodes_too(algorithm, settings, tmp_path):
    longer = dataclasses.replace(settings.pwm, actor_critic=dataclasses.replace(settings.pwm.actor_critic, updates=20), model_updates=1)
    shac, ppo = (dataclasses.replace(c, updates=n) for c, n in ((settings.shac, 300), (settings.ppo, 300)))
    some = dataclasses.replace(settings, shac=shac, ppo=ppo, pwm=longer, evaluate_every=300, checkpoint_every=300)
    (*_, row) = SingleTaskRun(algorithm, "hopper", 0, some, tmp_path).train()["curve"]
    assert -200 < row["training_return"] < 1000 and row["training_return"] != row["mean_return"], "noise, and the policies on the way"


@pytest.mark.parametrize("standardise", [True, False])
def test_tdmpc2_has_the_published_discount_and_input_unless_told_otherwise(standardise):
    config = dataclasses.replace(TINY_TDMPC2, steps=1, standardise_obs=standardise)
    learner = OnlineTDMPC2(DifferentiableEnv("hopper", 3), config)
    learner.update()
    assert learner.trainer.discounts.tolist() == [pytest.approx(0.995)] and learner.search.discount == 0.995, "1000 steps"
    assert bool(learner.agent.model.obs_mean.any()) == standardise
    assert OnlineTDMPC2(DifferentiableEnv("hopper", 3), dataclasses.replace(config, discount=0.9)).search.discount == 0.9


@pytest.mark.parametrize(("algorithm", "learner", "at"), [("pwm", OnlinePWM, 8), ("tdmpc2", OnlineTDMPC2, 4)])
def test_a_run_that_was_cut_ends_as_the_whole_one(algorithm, learner, at, settings, tmp_path, monkeypatch):
    whole = SingleTaskRun(algorithm, "hopper", 0, settings, tmp_path / "whole").train()
    update, done = learner.update, []

    def dies(self):
        done.append(1)
        if len(done) == at:
            raise KeyboardInterrupt
        return update(self)

    monkeypatch.setattr(learner, "update", dies)
    with pytest.raises(KeyboardInterrupt):
        SingleTaskRun(algorithm, "hopper", 0, settings, tmp_path / "cut").train()
    cut = SingleTaskRun(algorithm, "hopper", 0, settings, tmp_path / "cut").train()
    for name in ("mean_return", "training_return", "gradient_steps"):
        assert [row.get(name) for row in cut["curve"]] == [row.get(name) for row in whole["curve"]], name


@pytest.mark.long
def test_the_replay_of_a_long_run_is_bounded(settings, tmp_path, monkeypatch):
    held = []
    real = OnlinePWM.__init__

    def spy(self, env, config, **options):
        held.append(config.replay_steps)
        real(self, env, config, **options)

    monkeypatch.setattr(OnlinePWM, "__init__", spy)
    long = dataclasses.replace(settings, pwm=dataclasses.replace(settings.pwm, replay_steps=10))
    SingleTaskRun("pwm", "hopper", 0, long, tmp_path / "a").train()
    everything = settings.replay.updates * settings.replay.horizon + settings.pwm.actor_critic.updates * settings.pwm.actor_critic.horizon
    monkeypatch.setattr("companion.single_task.runner.LARGEST_REPLAY", 40 * settings.envs)
    SingleTaskRun("pwm", "hopper", 0, long, tmp_path / "b").train()
    monkeypatch.setattr("companion.single_task.runner.LARGEST_REPLAY", 1)
    SingleTaskRun("pwm", "hopper", 0, long, tmp_path / "c").train()
    assert held == [everything, 40, settings.replay.updates * settings.replay.horizon] and everything > 40


def test_a_diverging_run_is_kept_with_its_reason(settings, tmp_path):
    exploding = SingleTaskRun("shac", "hopper", 0, dataclasses.replace(settings, largest_value=1e-6), tmp_path).train()
    assert exploding["status"] == "diverged" and "update 1: the critic loss is" in exploding["reason"]
    wild = dataclasses.replace(settings, shac=dataclasses.replace(settings.shac, log_std_init=200.0))
    broken = SingleTaskRun("shac", "hopper", 1, wild, tmp_path).train()
    assert broken["status"] == "diverged" and "nan" in broken["reason"]
    with pytest.raises(ValueError, match=r"algorithm must be one of shac, pwm, .*, got 'ppo2'"):
        SingleTaskRun("ppo2", "hopper", 0, settings, tmp_path).train()


def test_the_gradient_check_is_one_for_the_simulators_own_gradient(monkeypatch):
    """With the simulator in the model's place cosine and norm ratio are 1; a model that was never trained is far off."""
    from companion.single_task import gradient_check as checked
    from pwmlib.sim.env import EnvDynamics

    policy = lambda obs, noise: torch.zeros(len(obs), 3)  # noqa: E731
    model = WorldModel(11, 3, config=SMALL)
    untrained = checked.gradient_check(model, policy, "hopper", samples=16, horizon=4, warm_up=5)
    assert abs(untrained["gradient_cosine"]) < 0.7

    class Perfect(EnvDynamics):
        def __init__(self, model, **options):
            super().__init__("hopper", 16)

        def encode(self, obs):
            return self.start

        def reward(self, state, action, next_state):
            return super().reward(state, action, self.advance(state, action) if next_state is None else next_state)

    env = DifferentiableEnv("hopper", 16, seed=30_000)
    generator, obs = torch.Generator().manual_seed(30_000), env.reset()
    for _ in range(5):
        obs = env.step((policy(obs, None) + 0.24 * torch.randn(16, 3, generator=generator)).clamp(-1, 1)).obs
    Perfect.start = env.state.detach().clone()
    monkeypatch.setattr(checked, "FrozenWorldModel", Perfect)
    perfect = checked.gradient_check(model, policy, "hopper", samples=16, horizon=4, warm_up=5)
    assert perfect.pop("reward_rmse") == pytest.approx(0.0, abs=1e-3) and untrained["reward_rmse"] > 0.1
    assert perfect == pytest.approx({"gradient_cosine": 1.0, "gradient_batch_cosine": 1.0, "gradient_norm_ratio": 1.0}, abs=1e-4)


def test_actor_objectives_are_the_ones_they_are_called():
    """By hand from the recorded rewards and values: n-step returns, the wrong exponent, and lambda-returns."""
    from pwmlib.optimizer.imagination import td_lambda

    losses, c = {}, SHACConfig(horizon=5, actor_hidden=(16,), critic_hidden=(16,))
    for name, changes in {
        "n": {}, "wrong": {"terminal_discount": "gamma^(H+1)"}, "lambda": {"actor_objective": "td_lambda"},
    }.items():  # fmt: skip
        learner = SHAC(DifferentiableEnv("hopper", 8, seed=0), dataclasses.replace(c, **changes), seed=0)
        roll = learner.imagine()
        losses[name] = -5 * float(learner.actor_loss(roll).detach())
    assert not (roll.terminated | roll.truncated).any()
    weight, roll = 0.99 ** torch.arange(5.0)[:, None], roll.detach()
    values = learner.value(roll.reached).detach()
    rewards, last = (weight * roll.rewards).sum(0), values[-1]
    assert losses["n"] == pytest.approx(float((rewards + 0.99**5 * last).mean()), rel=1e-5)
    assert losses["wrong"] == pytest.approx(float((rewards + 0.99**6 * last).mean()), rel=1e-5)
    by_hand = td_lambda(roll.rewards, values, gamma=0.99, lam=0.95)[0].mean()
    assert losses["lambda"] == pytest.approx(float(by_hand), rel=1e-5)
    assert len({round(x, 6) for x in losses.values()}) == 3


def test_every_variation_of_every_ablation_builds_and_is_another_run(settings, tmp_path):
    folders = set()
    for name, ablation in ABLATIONS.items():
        experiments = ablation_experiments(name, "quick", 1, tmp_path)
        assert list(experiments) == [v.label for v in ablation.variations]
        for experiment in experiments.values():
            (arguments,) = experiment.runs()
            folders.add(arguments.run.folder)
    variations = sum(len(a.variations) for a in ABLATIONS.values())
    assert len(folders) == variations - 12, (
        "PWM as it is stands in ten of them; LayerNorm + Mish, ReLU, and three cautious frozen models in two"
    )
    longer = [e.settings["hopper"] for e in ablation_experiments("longer", "laptop", 1, tmp_path).values()]
    assert [s.pwm.actor_critic.updates for s in longer] == [4500, 4500, 1500] and longer[-1].shac.updates == 3 * longer[0].shac.updates
    lengths = [e.settings["hopper"].offline.policy.updates for e in ablation_experiments("frozen_length", "laptop", 1, tmp_path).values()]
    assert lengths == [1200, 400, 1200]
    ppo = [e.settings["ant"].ppo for e in ablation_experiments("ppo_annealing", "laptop", 1, tmp_path).values()]
    assert [(c.updates, c.final_lr) for c in ppo] == [(18_000, None), (18_000, 0.0)]
    assert recorded_settings("ant", "ppo").ppo == ppo[1], "one set of runs for the table and the question"
    assert "64 trajectories" in ablation_experiments("batch", "quick", 1, tmp_path)
    with pytest.raises(ValueError, match="no ablation 'colour'; known: stiffness, batch"):
        ablation_experiments("colour", "quick", 1, tmp_path)


@pytest.mark.parametrize(
    ("variation", "said"),
    [
        ('{ label = "a", algorithm = "pmw" }', "Variation.algorithm='pmw' is not allowed: must be 'shac', 'pwm', "),
        ('{ label = "a", longr = 3 }', "Variation: unexpected keyword argument 'longr'"),
        ('{ label = "a", use = ["b"] }', "use='b' is not allowed: must be one of plain"),
        ('{ label = "a", longer = 0 }', "Variation.longer=0 is not allowed: must be greater than 0"),
    ],
)
def test_a_wrong_question_is_refused_by_file_and_name(variation, said, tmp_path):
    text = f'[changes]\nplain = {{}}\n[questions.mine]\nfigure = ""\nquestion = ""\nvariations = [{variation}]\n'
    (tmp_path / "questions.toml").write_text(text)
    with pytest.raises(AblationError, match=re.escape(f"questions.toml: question 'mine': {said}")):
        read_ablations(tmp_path / "questions.toml")


@pytest.mark.parametrize("name", ["detach", *(pytest.param(name, marks=pytest.mark.long) for name in ("regularisation", "reward_head"))])
def test_an_ablation_runs_and_names_its_variations(name, settings, tmp_path):
    changes = {
        "pwm.actor_critic.updates": 2, "pwm.pretraining_updates": 2, "replay.updates": 2, "replay.horizon": 8, "envs": 4,
        "eval_episodes": 2, "evaluate_every": 1, "pwm.model_updates": 1,
    }  # fmt: skip
    experiments = ablation_experiments(name, "quick", 1, tmp_path, changes=changes, workers=1, progress=False)
    results, curves = run_ablation(name, experiments)
    assert results["variation"].tolist() == list(experiments) and results["status"].eq("finished").all()
    assert curves.groupby("variation").size().eq(3).all() and curves["gradient_cosine"].notna().all()


@pytest.mark.long
def test_variations_share_a_pool_and_a_run_that_stands_in_two_is_done_once(settings, tmp_path, monkeypatch):
    common = {"tasks": ("hopper",), "settings": {"hopper": settings}, "train_seeds": 2, "runs_dir": tmp_path, "progress": False}
    asked = []

    def pool(jobs, **arguments):
        asked.append([job.name for job in jobs])
        return run_jobs(jobs, **arguments)

    monkeypatch.setattr("companion.single_task.experiment.run_jobs", pool)
    both = SingleTaskExperiment(algorithms=("shac", "pwm_scratch"), **common)
    unknown = common | {"tasks": ("walker",), "settings": {"walker": settings}}
    again, broken = (SingleTaskExperiment(algorithms=("shac",), **arguments) for arguments in (common, unknown))
    lines = train_together([both, again, broken])
    names = ["hopper shac", "hopper pwm_scratch", "walker shac"]
    assert asked == [[f"{name} seed {seed}" for name in names for seed in (0, 1)]]
    assert lines[1] == lines[0][:2] and all(line["status"] == "finished" for line in lines[0])
    assert [line["status"] for line in lines[2]] == ["failed"] * 2 and "walker" in lines[2][0]["reason"]
    assert results_table(lines[2])["last"].isna().all() and curves_table(lines[2]).empty


def test_ours_stand_beside_tables_3_and_4_in_their_units():
    runs = {"last": [4000.0, 4742.3, 5000.0], "best": [4500.0, 5000.0, 5500.0], "status": ["finished", "diverged", "finished"]}
    results = pd.DataFrame({"task": "hopper", "algorithm": "pwm_scratch", **runs})
    (row,) = beside_published(results, published_table("single_task")).to_dict("records")
    assert row["ours_end"] == pytest.approx(np.mean(runs["last"])) and row["ours_peak"] == 5000 and row["diverged"] == 1
    assert row["printed"] == 5680 and row["printed_t3"] == 1.2 and row["peak"] == pytest.approx(5680.46)
    assert row["ours_end_t3"] == pytest.approx(row["ours_end"] / 4742.3) and row["peak_t3"] == pytest.approx(5680.46 / 4742.3)
    without = beside_published(results.assign(last=[4000.0, np.nan, 5000.0]), published_table("single_task"))
    assert without["ours_end"][0] == 3000 and without["seeds"][0] == 3, "a run without a return counts as 0"


def test_the_profile_has_the_end_and_the_peak():
    results = pd.DataFrame(
        {
            "task": "hopper", "algorithm": "shac", "train_seed": [0, 1, 2],
            "last": [1000.0, 2000.0, 2000.0], "best": [3000.0, 6000.0, 6000.0],
        }
    )  # fmt: skip
    drawing = aggregates_and_profile(results, published_table("single_task"))
    end, peak = (line for line in drawing.axes[1].lines)
    at = [list(line.get_ydata()[np.searchsorted(line.get_xdata(), [0.1, 0.3, 1.0])]) for line in (end, peak)]
    assert np.allclose(at, [[1.0, 2 / 3, 0.0], [1.0, 1.0, 2 / 3]]), "0.21, 0.42 of the published PPO at the end, 0.63, 1.27 at the peak"
    plt.close(drawing)
    few = aggregates_and_profile(results[:2], published_table("single_task"))
    dots = [list(line.get_xdata()) for line in few.axes[0].lines if line.get_marker() == "o"]
    assert len(few.axes) == 1 and np.allclose(dots, [[0.2109, 0.4217], [0.6326, 1.2652]], atol=1e-3), "two runs are two dots, no aggregate"
    plt.close(few)


def test_equal_time_shows_what_was_known_by_then():
    rows = [
        ("shac", 0, 20, 1.0),
        ("shac", 0, 50, 3.0),
        ("shac", 1, 25, 2.0),
        ("shac", 1, 55, 5.0),
        ("pwm", 0, 70, 9.0),
        ("pwm", 1, 130, 7.0),
    ]
    curves = pd.DataFrame(rows, columns=["algorithm", "train_seed", "cpu_s", "mean_return"]).assign(task="hopper")
    table = equal_time(curves, minutes=(0.5, 1, 2, 4)).set_index("algorithm")
    assert table.loc["SHAC", ["0.5 min", "1 min"]].tolist() == [1.5, 4.0] and table.loc["SHAC", ["2 min", "4 min"]].isna().all()
    pwm = table.loc["PWM, SHAC replay"]
    assert pwm[["0.5 min", "1 min", "2 min"]].isna().all() and pwm["4 min"] == 8.0, "both seeds must have been evaluated"
    assert pwm["ended after, min"] == pytest.approx(130 / 60)
