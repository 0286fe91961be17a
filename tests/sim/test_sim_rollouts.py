"""Hopper, Ant and Humanoid against rollouts recorded with dflex (float32): trajectories, rewards, gradients, constants.

And Humanoid, facing the released point, against 16 steps of our own float64 oracle: python tests/sim/test_sim_rollouts.py records them.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import Reference

from pwmlib.sim.engine.bridge import Simulator
from pwmlib.sim.registry import ENVS

CASES = {"hopper": ("hopper", 16), "ant": ("ant_mm1", 1), "humanoid": ("humanoid_mm1_onestep", 1)}
OWN = Path(__file__).with_name("humanoid_rollout.npz")
"""states [17, 4, 55], rewards [16, 4], actions [16, 4, 21], gradient of all rewards to the actions; mass matrix once a step."""


def rules_of(name):
    """The recorded convention: released constants, reward after the step."""
    rules = ENVS[name].rules("released")
    rules.reward_before = False
    return rules


def start_state(rules, data):
    """dflex keeps the root's velocity at the world's origin, here it is that of the root itself: u = v + w x p."""
    q, qd = data["q"][0], data["qd"][0].copy()
    if rules.model.links[0].joint.kind == "free":
        qd[:, 3:6] += np.cross(qd[:, :3], q[:, :3])
    return torch.tensor(np.concatenate([q, qd], 1))


@pytest.mark.parametrize("name", CASES)
def test_constants_are_the_recorded_ones(name, rollout_reference):
    data, model = rollout_reference(CASES[name][0]), ENVS[name].rules("paper").model
    for i, (link, body) in enumerate(zip(model.links, model.masses, strict=True)):
        inertia = data["model_body_I_m"][i]
        assert body.mass == pytest.approx(inertia[3, 3], rel=1e-5)
        np.testing.assert_allclose(body.inertia, inertia[:3, :3], atol=1e-5 * max(1.0, float(np.abs(inertia).max())))
        np.testing.assert_allclose(body.com, data["model_joint_X_cm"][i][:3], atol=1e-6)
        np.testing.assert_allclose(model.axes[i], data["model_joint_axis"][i], atol=1e-6)
        np.testing.assert_allclose(link.joint.position, data["model_joint_X_pj"][i][:3], atol=1e-6)
        if link.joint.kind == "hinge":
            at = data["model_joint_q_start"][i]
            for ours, key in ((link.joint.lower, "lower"), (link.joint.upper, "upper")):
                theirs = data[f"model_joint_limit_{key}"][at]
                assert (ours is None and abs(theirs) > 1e5) or ours == pytest.approx(theirs, abs=1e-5)
            assert link.joint.stiffness == pytest.approx(data["model_joint_target_ke"][i])
            assert link.joint.damping == pytest.approx(data["model_joint_target_kd"][i])
            assert link.joint.armature == pytest.approx(data["model_joint_armature"][data["model_joint_qd_start"][i]])
    count = len(data["model_contact_body0"]) // int(data["n"])
    assert [c.link for c in model.contacts] == data["model_contact_body0"][:count].tolist()
    np.testing.assert_allclose([c.point for c in model.contacts], data["model_contact_point0"][:count], atol=1e-6)
    np.testing.assert_allclose([c.radius for c in model.contacts], data["model_contact_dist"][:count], atol=1e-6)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("name", CASES)
def test_rollout_follows_the_recorded_one(name, rollout_reference):
    file, interval = CASES[name]
    data, rules = rollout_reference(file), rules_of(name)
    sim = Simulator(rules, 8, substeps=int(data["sim_substeps"]), interval=interval)
    state, actions = start_state(rules, data), torch.tensor(data["actions"]).requires_grad_()
    rewards, nq = [], rules.model.nq
    for t, action in enumerate(actions):
        step = sim.step(state, action)
        state = step.state
        rewards.append(step.reward)
        assert float((state[:, :nq].detach() - torch.tensor(data["q"][t + 1])).abs().max()) <= 5e-6
        assert float((step.reward.detach() - torch.tensor(data["rew"][t])).abs().max()) <= 5e-6
        torch.testing.assert_close(step.obs.detach(), torch.tensor(data["obs"][t]), atol=1e-4, rtol=1e-4)
    if "grad_actions" in data:
        (got,) = torch.autograd.grad(sum(r.sum() for r in rewards), actions)
        expected = torch.tensor(data["grad_actions"])
        assert float((got - expected).norm() / expected.norm()) <= 1e-4
    else:
        assert name == "humanoid", "only the humanoid's recording has no gradient"


def record():
    """Four humanoids up to 30 m beside the x axis and 150 m along it, 16 random steps, by the oracle."""
    rules, generator = rules_of("humanoid"), torch.Generator().manual_seed(0)
    state, _ = Simulator(rules, 4, substeps=48, interval=48, seed=3).start()
    state[:, 0], state[:, 2] = torch.tensor([0.0, 50.0, 100.0, 150.0]), torch.tensor([-30.0, -1.0, 5.0, 30.0])
    actions = (torch.rand(16, 4, 21, generator=generator) * 2 - 1).double()
    oracle, states, rewards = Reference(rules, substeps=48, interval=48), [state.double()], []
    with torch.no_grad():
        for action in actions:
            step = oracle.step(states[-1], action)
            states.append(step.state)
            rewards.append(step.reward)
    gradient, behind = torch.zeros_like(actions), torch.zeros_like(states[0])  # one step's graph at a time: a whole rollout's takes 10 GB
    for t in reversed(range(16)):
        inputs = states[t].requires_grad_(), actions[t].clone().requires_grad_()
        step = oracle.step(*inputs)
        behind, gradient[t] = torch.autograd.grad(step.reward.sum() + (step.state * behind).sum(), inputs)
    arrays = {"states": torch.stack(states), "rewards": torch.stack(rewards), "actions": actions, "gradient": gradient}
    np.savez_compressed(OWN, **{name: x.detach().float().numpy() for name, x in arrays.items()})


@pytest.mark.usefixtures("device")
def test_humanoid_follows_its_recorded_rollout_toward_the_released_point():
    with np.load(OWN) as file:
        data = {name: torch.tensor(file[name]) for name in file.files}
    sim = Simulator(rules_of("humanoid"), 4, substeps=48, interval=48)
    state, actions, rewards = data["states"][0], data["actions"].requires_grad_(), []
    for t, action in enumerate(actions):
        step = sim.step(state, action)
        state = step.state
        rewards.append(step.reward)
        torch.testing.assert_close(state.detach()[:, :28], data["states"][t + 1][:, :28], atol=5e-5, rtol=3e-6)
    torch.testing.assert_close(torch.stack(rewards).detach(), data["rewards"], atol=5e-5, rtol=0)
    (gradient,) = torch.autograd.grad(sum(r.sum() for r in rewards), actions)
    assert float((gradient - data["gradient"]).norm() / data["gradient"].norm()) <= 2e-4


if __name__ == "__main__":
    record()
