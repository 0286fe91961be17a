"""Policies extracted together are those extracted one by one."""

import copy
from dataclasses import replace

import pytest
import torch

from pwmlib.errors import NonFiniteError
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.pwm import PWM, PWMConfig
from pwmlib.optimizer.stacked import Member, StackedPolicies

CONFIG = PWMConfig(updates=20, horizon=4, batch=8, actor_hidden=(16, 12), critic_hidden=(16,), critics=2, critic_iterations=2)
RELEASED = {k: v for k, v in vars(PWMConfig.variant("released")).items() if v != getattr(PWMConfig(), k) and k != "batch"}


def world(**changes):
    torch.manual_seed(0)
    config = WorldModelConfig(latent_dim=16, encoder_hidden=(16,), dynamics_hidden=(16,), reward_hidden=(16,), task_dim=4, **changes)
    model = WorldModel(5, 3, tasks=3, action_dims=[1, 3, 2], config=config)
    with torch.no_grad():  # an untrained reward head gives 0 everywhere
        model.reward_head[-1].weight.normal_(std=0.5)
        if model.termination_head is not None:
            model.termination_head[-1].weight.normal_(std=2.0)
            model.termination_head[-1].bias.fill_(-3.0)
    return model


def starts(model, task):
    view = FrozenWorldModel(model, task)

    def draw(batch, generator):
        with torch.no_grad():
            return view.encode(torch.randn(batch, 5, generator=generator))

    return draw


@pytest.mark.parametrize(
    "changes",
    [{"return_scaling": "running_std"}, RELEASED,
     {}, {"critic_value": "min", "detach_policy_input": True, "critic_loss": "mean", "norm_order": "after_activation"},
     {"critic_sampling": "time_blocks", "critic_minibatches": 2, "actor_loss_scale": "horizon", "actor_grad_norm": 0.01,
      "actor_objective": "td_lambda"},
     {"norm_order": "none"}, {"continued": 0.7}, {"termination": True}, {"termination": True, "continued": 0.7, "critic_loss": "mean"},
     {"termination": True, "critic_sampling": "time_blocks", "critic_minibatches": 2, "actor_objective": "td_lambda"}],
)  # fmt: skip
def test_stacked_policies_are_those_extracted_one_by_one(changes):
    termination = changes.get("termination", False)
    model, config = world(termination=termination), replace(CONFIG, **{k: v for k, v in changes.items() if k != "termination"})
    members = [Member(task, seed, starts(model, task)) for task in (0, 1, 2) for seed in (0, 1)]
    stacked = StackedPolicies(model, members, config)
    singles = [PWM(FrozenWorldModel(model, m.task), m.starts, config, seed=m.seed) for m in members]
    before = [a.mean[0].weight.clone() for a in stacked.actors]
    if termination:
        ends = stacked._imagine().terminated
        assert ends is not None and ends.any() and not ends.any(0).all() and not torch.equal(ends[0], ends[-1]), ends.float().mean((1,))
        stacked = StackedPolicies(model, members, config)
    for _ in range(4):
        together = stacked.update()
        apart = [learner.update() for learner in singles]
    for name in ("actor_loss", "actor_grad_norm", "reward"):
        torch.testing.assert_close(together[name].tolist(), [a[name] for a in apart], atol=1e-5, rtol=1e-4)
    for actor, critics, single, old in zip(stacked.actors, stacked.critics, singles, before, strict=True):
        assert not torch.equal(actor.mean[0].weight, old)
        for ours, theirs in ((actor, single.actor), (critics, single.critics)):
            for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("scaling", ["none", "running_std"])
def test_it_continues_bit_for_bit(scaling):
    model, config = world(), replace(CONFIG, return_scaling=scaling)
    members = [Member(task, 0, starts(model, task)) for task in (0, 1)]
    whole, first = StackedPolicies(model, members, config), StackedPolicies(model, members, config)
    for _ in range(3):
        whole.update()
        first.update()
    second = StackedPolicies(model, members, config)
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        whole.update()
        second.update()
    for one, other in ((whole._actor, second._actor), (whole._critics, second._critics)):
        assert all(torch.equal(p, other.parameters[name]) for name, p in one.parameters.items())


def test_a_policy_that_diverges_is_named_and_options_that_do_not_stack_are_refused():
    model = world()
    poisoned = lambda batch, generator: torch.full((batch, 16), torch.nan)  # noqa: E731
    stacked = StackedPolicies(model, [Member(0, 0, starts(model, 0)), Member(2, 5, poisoned)], CONFIG)
    with pytest.raises(NonFiniteError, match="task 2 seed 5 actor loss is nan"):
        stacked.update()
    with pytest.raises(ValueError, match="precision must be 'float32', got 'bfloat16'"):
        StackedPolicies(model, [], replace(CONFIG, precision="bfloat16"))
    healthy = StackedPolicies(model, [Member(0, 0, starts(model, 0)), Member(2, 5, starts(model, 2))], replace(CONFIG, continued=0.5))
    for _ in range(2):
        before = copy.deepcopy(healthy.state_dict())
        move, fails = healthy._move, {"actor": 0, "critic": 1}
        healthy._move = lambda stack, losses, *rest, move=move, fails=fails: move(stack, losses / (1 - fails[rest[-1]]), *rest)
        with pytest.raises(NonFiniteError, match="task 0 seed 0 critic.*; the learner is back in the state before it"):
            healthy.update()  # the actors have moved by then
        torch.testing.assert_close(healthy.state_dict(), before, rtol=0, atol=0)
        healthy._move = move
        healthy.update()


def test_a_policy_that_diverges_leaves_the_deviation_of_its_returns():
    model, draws = world(), []

    def poisoned_at_last(batch, generator):
        draws.append(1)
        return starts(model, 0)(batch, generator) * (torch.nan if len(draws) == 2 else 1.0)

    stacked = StackedPolicies(model, [Member(0, 0, poisoned_at_last)], replace(CONFIG, return_scaling="running_std"))
    stacked.update()
    before = copy.deepcopy(stacked.learners[0].return_moments.state_dict())
    with pytest.raises(NonFiniteError, match="task 0 seed 0 actor loss is nan"):
        stacked.update()
    torch.testing.assert_close(stacked.learners[0].return_moments.state_dict(), before, rtol=0, atol=0)
