"""What `variant="released"` does, what scale paper has that the paper does not print, and the errata page's list of switches."""

import dataclasses
import re
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_multitask import TINY

from companion.mt80.parameters import MultitaskParameters
from companion.mt80.scales import DEVIATIONS, MULTITASK_SCALES, differences, joint_training, multitask_scale
from companion.reporting.published import compare, printed_settings
from companion.running.jobs import JobResult, call
from companion.running.parameters import ParameterError
from companion.running.paths import PROJECT
from companion.running.results import results_table
from companion.running.runs import plain
from companion.single_task import scales as single
from companion.single_task.runner import SingleTaskRun
from pwmlib.baselines.tdmpc2 import TDMPC2Trainer
from pwmlib.evaluation.predictions import held_out_fit
from pwmlib.model.training import WorldModelTrainer, WorldModelTraining
from pwmlib.model.twohot import TwoHot
from pwmlib.model.world_model import WorldModel, WorldModelConfig, WorldModelLossConfig, world_model_loss
from pwmlib.optimizer.online_robots import OnlinePWM, OnlinePWMConfig
from pwmlib.optimizer.pwm import PWMConfig
from pwmlib.sim.env import DifferentiableEnv

SMALL = WorldModelConfig(latent_dim=16, encoder_hidden=(32,), dynamics_hidden=(32,), reward_hidden=(32,), task_dim=4)
PAPER = single.SINGLE_TASK_SCALES["paper"]
CELL = dict(
    scale="quick", tasks=4, task_names=["cartpole-swingup", "mw-reach"], train_seeds=1, workers=2, data="auto", engine="local", data_dir="",
    variant="released", comparisons=[], fine_tune=[], compared_tasks=12, device="cpu", runs_dir="runs", figures_dir="", overrides={},
)  # fmt: skip


class Rewarded:
    """Random walks whose reward follows from where they are and what is done."""

    def slices(self, batch, horizon, rng):
        draw = lambda *shape: torch.from_numpy(rng.standard_normal(shape, np.float32))  # noqa: E731
        obs, action = draw(horizon + 1, batch, 4).cumsum(0) / 2, draw(horizon, batch, 2).clamp(-1, 1)
        return obs, action, 2 * obs[:-1, :, 0] + action[..., 0], torch.from_numpy(rng.integers(2, size=batch))


def batch_of(horizon, dtype=torch.float64):
    obs, action, reward, task = Rewarded().slices(6, horizon, np.random.default_rng(1))
    return obs.to(dtype), action.to(dtype), reward.to(dtype), task


@pytest.mark.parametrize("head", [None, TwoHot(11)])
@pytest.mark.parametrize("horizon", [4, 16])
def test_the_released_loss_weighs_the_errors_of_the_rewards_by_gamma_too(horizon, head):
    """sum_t gamma^t mse(z_t) / H + mean over steps, batch and outputs of gamma^t (output - r)^2, over H once more; step by step."""
    torch.manual_seed(0)
    model = WorldModel(4, 2, tasks=2, config=replace(SMALL, two_hot=head)).double()
    torch.nn.init.normal_(model.reward_head[-1].weight)
    obs, action, reward, task = batch_of(horizon)
    loss, parts = world_model_loss(model, obs, action, reward, task, WorldModelLossConfig().released())
    z, dynamics, rewards = model.encode(obs[0], task), 0.0, 0.0
    for t in range(horizon):
        error = model.reward_logits(z, action[t], task) - reward[t][:, None]
        rewards = rewards + 0.99**t * (error**2).mean()
        z = model.next(z, action[t], task)
        dynamics = dynamics + 0.99**t * torch.nn.functional.mse_loss(z, model.encode(obs[t + 1], task))
    torch.testing.assert_close(parts["reward"], (rewards / horizon / horizon).detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss, (dynamics + rewards / horizon) / horizon, rtol=1e-12, atol=0)


def test_the_pretraining_of_the_variant_has_the_terms_of_tdmpc2():
    config = WorldModelTraining.variant("released", horizon=5, batch=8)
    torch.manual_seed(0)
    model = WorldModel(4, 2, tasks=2, config=SMALL)
    joint = joint_training(config, MULTITASK_SCALES["quick"].tdmpc2)
    assert (joint.rho, joint.consistency_coef, joint.reward_coef, joint.value_coef, joint.encoder_lr_scale) == (0.99, 20, 0.1, 0.1, 0.3)
    batch = Rewarded().slices(8, 5, np.random.default_rng(7))
    loss, parts = world_model_loss(model, *batch, config.loss)
    logged = TDMPC2Trainer(model, Rewarded(), torch.full((2,), 0.9), joint, seed=7).update()
    assert logged["consistency_loss"] == pytest.approx(float(parts["dynamics"]), rel=1e-5)
    assert logged["reward_loss"] == pytest.approx(float(parts["reward"]), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(20 * float(parts["dynamics"]) + 0.1 * float(parts["reward"]), rel=1e-6)
    with pytest.raises(ValueError, match="training.final_lr=1e-05 is not allowed: with pretraining='tdmpc2' it must be None"):
        joint_training(replace(config, final_lr=1e-5), joint)


@pytest.mark.long
def test_rewards_of_a_model_trained_with_the_variant_are_as_good_as_the_papers():
    """One reward of which the fine-tuning of the released code makes a constant."""
    fits = {}
    for name in ("paper", "released", "joint", "released_fine_tuning"):
        torch.manual_seed(0)
        model = WorldModel(4, 2, tasks=2, config=SMALL)
        training = WorldModelTraining.variant("released" if name == "joint" else name, updates=200, horizon=4, batch=64, lr=3e-3)
        if name == "joint":
            joint = joint_training(training, replace(MULTITASK_SCALES["quick"].tdmpc2, hidden=(16,)))
            trainer = TDMPC2Trainer(model, Rewarded(), torch.full((2,), 0.9), joint)
        else:
            trainer = WorldModelTrainer(model, Rewarded(), training)
        for _ in range(training.updates):
            trainer.update()
        obs, action, _, task = batch_of(1, torch.float32)
        with torch.no_grad():
            fits[name] = held_out_fit(model, Rewarded(), horizon=4), float(model.reward(model.encode(obs[0], task), action[0], task).std())
    for name in ("released", "joint"):
        ours, paper = fits[name][0], fits["paper"][0]
        assert ours["correlation_first"] > paper["correlation_first"] - 0.02 and ours["slope_first"] > 0.8 * paper["slope_first"], name
        assert ours["correlation_first"] > 0.95
    assert fits["released_fine_tuning"][1] < 0.01 * fits["paper"][1]


def test_the_variant_runs_from_nothing_one_by_one_and_stacked_with_the_same_policies(tmp_path, monkeypatch):
    monkeypatch.setattr("companion.running.jobs.run_jobs", lambda jobs, **_: [JobResult(job.name, *call(job)) for job in jobs])
    few = {**TINY, "training.updates": 20, "policy.updates": 6, "policy.horizon": 4, "evaluate_every": 3, "tdmpc2.hidden": [16]}
    given = {"runs_dir": str(tmp_path / "runs"), "data_dir": str(tmp_path / "data"), "overrides": few}
    experiment = MultitaskParameters.validate_cell({**CELL, **given}).experiment(progress=False)
    scale = experiment.scale
    assert scale.policy.return_scaling == "running_std" and scale.pretraining == "tdmpc2" and not scale.model.apply_action_mask
    experiment.generate()
    trained = experiment.train_world_model()
    assert {"consistency_loss", "reward_loss", "value_loss"} <= set(trained) and len(trained["quality"]) == 2
    apart = experiment.extract_policies()
    together = dataclasses.replace(experiment, stacked=True).extract_policies()
    assert len(apart) == 2 and (apart["updates"] == 6).all()
    pd.testing.assert_frame_equal(apart, together, rtol=1e-3, atol=1e-3)


def test_the_notebooks_variant_is_the_authors_multitask_run():
    params = MultitaskParameters.validate_cell(CELL)
    scale, quick = params.scaled(), MULTITASK_SCALES["quick"]
    assert scale.training.loss == WorldModelLossConfig().tdmpc2() and scale.training.loss.reward_loss == "cross_entropy"
    assert (scale.training.lr, scale.training.horizon, scale.policy.updates, scale.policy.batch) == (
        quick.training.lr, quick.training.horizon, quick.policy.updates, quick.policy.batch
    )  # fmt: skip
    paper = MultitaskParameters.validate_cell({**CELL, "scale": "paper", "tasks": 80, "task_names": []}).scaled()
    assert (paper.policy.batch, paper.training.batch, paper.training.updates, paper.model.task_dim) == (512, 1024, 100_000, 96)
    laptop = MultitaskParameters.validate_cell({**CELL, "scale": "laptop", "task_names": ["cheetah-run", "walker-walk"]})
    assert laptop.scaled().collection is None and laptop.fine_tuning(laptop.experiment(progress=False)).tasks == ()
    many = {**CELL, "tasks": 80, "task_names": []}
    assert not MultitaskParameters.validate_cell(many).from_shipped()
    assert MultitaskParameters.validate_cell({**many, "variant": "paper"}).from_shipped()
    for change, said in (
        ({"data": "shipped"}, "variant='released' trains a world model of its own.*data must be another than 'shipped'"),
        ({"overrides": {"training.precision": "bfloat16"}}, "training.precision='bfloat16' is not allowed: with pretraining='tdmpc2'"),
    ):
        with pytest.raises(ParameterError, match=said):
            MultitaskParameters.validate_cell({**CELL, **change})
    with pytest.raises(ValueError, match="'paper', 'released' or 'released_fine_tuning', got 'theirs'"):
        WorldModelTraining.variant("theirs")


def test_the_released_single_task_code_trains_its_model_by_its_own_schedule():
    """A constant rate while the model alone learns, then a fall to 1e-5 with the policy's updates; observations as they are."""
    base = OnlinePWMConfig()
    tiny = {"latent_dim": 16, "encoder_hidden": (16,), "dynamics_hidden": (16,), "reward_hidden": (16,)}
    config = replace(
        replace(base, model=replace(base.model, **tiny), random_steps=20, first_model_updates=3, model_updates=2).released(),
        actor_critic=replace(base.released().actor_critic, updates=3, horizon=4, actor_hidden=(8,), critic_hidden=(8,)),
    )
    learner = OnlinePWM(DifferentiableEnv("hopper", 4), config)
    rates = []
    for _ in range(6):
        learner.update()
        rates.append(learner.trainer.optimiser.param_groups[0]["lr"])
    assert rates[:3] == [3e-4] * 3
    done = np.array([1, 3, 5]) / 6  # of the 6 updates of the model that follow, the last ones of each policy update
    np.testing.assert_allclose(rates[3:], 3e-4 + (1e-5 - 3e-4) * done, rtol=1e-6)
    assert (learner.model.obs_mean == 0).all() and (learner.model.obs_std == 1).all() and float(learner.model.reward_std) != 1.0


def test_the_fine_tuning_leaves_the_task_embedding():
    model = WorldModel(4, 2, tasks=2, config=SMALL)
    before = model.task_embedding.weight.detach().clone()
    WorldModelTrainer(model, Rewarded(), WorldModelTraining.variant("released_fine_tuning", batch=8, horizon=3)).update()
    assert torch.equal(model.task_embedding.weight, before)


def test_a_setting_that_came_later_leaves_the_names_of_earlier_runs():
    settings = single.SINGLE_TASK_SCALES["laptop"]
    names = [
        SingleTaskRun("pwm", "hopper", 0, replace(settings, pwm=replace(settings.pwm, lr_decay=decay)), "runs").run.folder.name
        for decay in ("all", "online")
    ]
    assert names[0] != names[1]
    assert "lr_decay" not in plain(OnlinePWMConfig()) and plain(OnlinePWMConfig(lr_decay="online"))["lr_decay"] == "online"


# Table 1, Eq. 10 and Appendix C as printed, in the words of the settings; the file of them must say the same.
PRINTED = {
    "training.batch": 1024, "training.lr": 3e-4, "training.horizon": 16, "training.grad_norm": 20.0, "training.updates": 100_000,
    "training.standardise_obs": False, "training.loss.dynamics_coef": 1.0, "training.loss.dynamics_reduction": "sum",
    "training.loss.reward_loss": "cross_entropy", "model.task_dim": 96, "model.latent_dim": 768, "model.dynamics_hidden": [1792, 1792],
    "model.two_hot.bins": 101, "model.simnorm_group": 8, "policy.horizon": 16, "policy.batch": 64, "policy.critics": 3,
    "policy.actor_lr": 5e-4, "policy.critic_lr": 5e-4, "policy.critic_iterations": 8, "policy.critic_minibatches": 4, "policy.gamma": 0.99,
    "policy.lam": 0.95, "policy.continued": 0.0, "policy.reward_symexp": False, "tdmpc2.hidden": [1792, 1792],
}  # fmt: skip
PRINTED_SINGLE = {
    "pwm.training.batch": 1024, "pwm.pretraining_updates": 100_000, "pwm.model.two_hot.bins": 101, "pwm.training.loss.dynamics_coef": 1.0,
    "pwm.training.loss.dynamics_reduction": "sum", "pwm.training.standardise_obs": False, "pwm.actor_critic.target_kept": 0.0,
    "pwm.replay_steps": 1024, "pwm.actor_critic.actor_lr": 5e-4, "pwm.actor_critic.critics": 3, "pwm.reward_symexp": False,
    "offline.policy.actor_lr": 5e-4, "offline.policy.critics": 3, "offline.policy.continued": 0.0, "offline.pessimism": 0.0,
    "offline.members": 1, "offline.training.batch": 1024, "offline.pretraining_updates": 100_000,
}  # fmt: skip


def test_scale_paper_is_what_is_printed_or_says_why_not():
    printed = printed_settings("multitask"), printed_settings("single_task") | printed_settings("offline")
    for table, expected in zip(printed, (PRINTED, PRINTED_SINGLE), strict=True):
        assert expected.items() <= table.items()
    for tasks, deviations in ((80, set()), (30, {"model.task_dim"}), (2, {"model.task_dim"})):
        shown = differences(multitask_scale("paper", tasks))
        assert set(shown["setting"]) == deviations and (shown["why"] != "").all(), shown
    shown = single.differences(PAPER, ("pwm", "pwm_offline"))
    assert set(shown["setting"]) == set(single.DEVIATIONS) and (shown["why"] != "").all(), shown
    measured = results_table("ablation_imagination").groupby("variation")["last"].agg(lambda x: sorted(round(v) for v in x))
    told = [int(number) for number in re.findall(r"\d{3,}", single.DEVIATIONS["pwm.imagination"][1])]
    assert sorted(told) == sorted([number for numbers in measured for number in numbers])
    # A change that nobody explains shows without a reason.
    changed = replace(multitask_scale("paper", 30), policy=PWMConfig(batch=512))
    why = differences(changed).set_index("setting")["why"].to_dict()
    assert why == {"policy.batch": "", "model.task_dim": DEVIATIONS["model.task_dim"][1]}
    # Every printed name is a setting; one that the scale lacks shows as a dash.
    assert (compare(PAPER.pwm, PAPER.pwm, {"pwm.nothing": 1}, {}, "pwm.")["here"] == "-").all()


def parts(settings, *names):
    """A settings object and those in it (with names, only those of its fields), by the names of their classes."""
    inside = [getattr(settings, f.name) for f in fields(settings) if not names or f.name in names]
    return {type(settings).__name__: settings, **{k: v for s in inside if dataclasses.is_dataclass(s) for k, v in parts(s).items()}}


UNLIKE = replace(
    PAPER.pwm,
    actor_critic=replace(PAPER.pwm.actor_critic, target_kept=0.2),
    training=WorldModelTraining(standardise_obs=True),
    ending_share=0.25,
    recent_share=0.3,
    lr_decay="all",
)
"""PWM on single tasks with none of the released switches."""

RELEASED = {
    'PWMConfig.variant("released")': (parts(PWMConfig.variant("released")), parts(PWMConfig())),
    'WorldModelTraining.variant("released")': (parts(WorldModelTraining.variant("released")), parts(WorldModelTraining())),
    'WorldModelTraining.variant("released_fine_tuning")': (
        parts(WorldModelTraining.variant("released_fine_tuning")),
        parts(WorldModelTraining()),
    ),
    "OnlinePWMConfig.released()": (parts(UNLIKE.released()), parts(UNLIKE)),
    "notebook 03, `variant`": tuple(parts(multitask_scale("paper", 80, v), "model", "training", "policy") for v in ("released", "paper")),
}
"""The variants that the page names -> their settings, and settings without them."""


def errata_switches():
    """(topic, Class, field, value, the variants that set it, tests) of each switch in the errata page's last table."""
    section = (PROJECT / "docs" / "errata.md").read_text().split("## Algorithm")[1]
    for row in [line for line in section.splitlines() if line.startswith("| ")][1:]:
        topic, _, _, switches, variants, tests = (cell.strip() for cell in row.strip("|").split(" | "))
        for kind, name, value in re.findall(r"`(\w+)\.(\w+)=([^`]+)`", switches):
            yield topic, kind, name, value, [v for v in RELEASED if v in variants], tests


def test_the_errata_page_lists_every_switch_with_the_variant_that_sets_it():
    sources = {path.stem: path.read_text() for path in (PROJECT / "tests").rglob("test_*.py")}
    listed = set()
    for topic, kind, name, value, variants, tests in errata_switches():
        set_by = {v: RELEASED[v][0][kind] for v in variants if kind in RELEASED[v][0]}
        assert set_by, f"{topic}: {kind} is in none of {variants}"
        for variant, settings in set_by.items():
            assert str(plain(getattr(settings, name))) == value.strip('"'), (topic, variant, name)
            assert getattr(RELEASED[variant][1][kind], name) != getattr(settings, name), (topic, variant, name)
            listed.add((variant, kind, name))
        found = re.findall(r"`(test_\w+)::(test_\w+)`", tests)
        assert found and all(f"def {test}(" in sources[file] for file, test in found), (topic, tests)
    for variant, (theirs, ours) in RELEASED.items():
        for kind in theirs.keys() & ours.keys():
            changed = {n for n, v in vars(theirs[kind]).items() if v != getattr(ours[kind], n) and not dataclasses.is_dataclass(v)}
            missing = {(variant, kind, name) for name in changed} - listed
            assert not missing, missing
