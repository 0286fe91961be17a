"""The environments: sizes, rewards written out a second time, resets, gradients at their edges, bad input."""

import gc
import importlib.util
import math
import sys

import pytest
import torch

from companion.running.paths import PROJECT
from companion.single_task.runner import SingleTaskRun, SingleTaskSettings
from pwmlib.model.dynamics import Dynamics
from pwmlib.optimizer.imagination import imagine
from pwmlib.optimizer.shac import SHACConfig
from pwmlib.sim.engine.model import Material
from pwmlib.sim.env import DifferentiableEnv, EnvDynamics
from pwmlib.sim.registry import ENVS, EnvSpec
from pwmlib.sim.robots.free_root import HumanoidRules
from pwmlib.sim.robots.planar import DoublePendulumRules

pytestmark = pytest.mark.usefixtures("device")
SIZES = {"double_pendulum": (6, 1), "hopper": (11, 3), "ant": (37, 8), "anymal": (49, 12), "humanoid": (76, 21), "snu_like": (53, 152)}


def actions_for(env, steps, seed=0):
    generator = torch.Generator("cpu").manual_seed(seed)
    uniform = torch.rand(steps, env.count, env.action_dim, generator=generator, device="cpu") * 2 - 1
    return uniform.to(torch.get_default_device())


@pytest.mark.parametrize("name", ENVS)
def test_sizes_are_those_of_appendix_d(name):
    env = DifferentiableEnv(name, 4)
    assert (env.obs_dim, env.action_dim) == SIZES[name]
    obs = env.reset()
    assert obs.shape == (4, SIZES[name][0]) and torch.isfinite(obs).all()
    assert env.spec.episode_length == (240 if name == "double_pendulum" else 1000)


def test_snu_like_has_the_published_numbers_of_muscles():
    model = DifferentiableEnv("snu_like", 1).model
    assert len(model.muscles) == 152 and sum(body.mass for body in model.masses) == pytest.approx(37.0)
    assert (model.nq, model.nd, len(model.contacts), len(model.links)) == (29, 24, 88, 11)
    groups = {m.name.split("_", 1)[1].rstrip("0123456789").rstrip("_") for m in model.muscles}
    assert len(groups) == 40
    right = sorted(m.name[6:] for m in model.muscles if m.name.startswith("right_"))
    assert right == sorted(m.name[5:] for m in model.muscles if m.name.startswith("left_")) and len(right) == 76


def hopper_reward(q, qd, a):
    height = (q[:, 1] + 0.3).clamp(-1, 0.3)
    height = torch.where(height < 0, -200 * height**2, height)
    return qd[:, 0] + height + 1 - (q[:, 2] / (math.pi / 6)) ** 2 - 0.1 * a.square().sum(-1)


def turned_axes(q, upward):
    """(up, heading) by rotating vectors with the quaternion, written independently of the environments."""

    def rotate(quaternion, v):
        u, w = quaternion[:, :3], quaternion[:, 3:]
        t = 2 * torch.linalg.cross(u, v.expand_as(u))
        return v + w * t + torch.linalg.cross(u, t)

    start = torch.tensor(upward)
    undo = start * torch.tensor([-1.0, -1.0, -1.0, 1.0])
    first = rotate(undo[None].expand(len(q), 4), torch.tensor([0.0, 1.0, 0.0]))
    second = rotate(undo[None].expand(len(q), 4), torch.tensor([1.0, 0.0, 0.0]))
    return rotate(q[:, 3:7], first)[:, 1], rotate(q[:, 3:7], second)[:, 0]


def facing(q, target):
    """The torso's x axis along the horizontal direction to a point (target, 0) of the ground, by a quaternion product of its own."""
    z_up = torch.tensor([math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)]).expand(len(q), 4)  # conjugate of the start rotation
    (ax, ay, az, aw), (bx, by, bz, bw) = q[:, 3:7].T, z_up.T
    x, y, z, w = (
        aw * bx + ax * bw + ay * bz - az * by, aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw, aw * bw - ax * bx - ay * by - az * bz,
    )  # fmt: skip
    forward, to = torch.stack([1 - 2 * (y * y + z * z), 2 * (x * z - w * y)], 1), torch.stack([target - q[:, 0], -q[:, 2]], 1)
    return (forward * torch.nn.functional.normalize(to, dim=1)).sum(1)


def walker_reward(name, q, qd, a, variant):
    z_up = (-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))
    up, heading = turned_axes(q, (0.0, 0.0, 0.0, 1.0) if name == "snu_like" else z_up)
    if name == "humanoid" and variant == "released":
        heading = facing(q, 200.0)
    reward = qd[:, 3] + 0.1 * up + heading
    fall, cost = {"ant": (0.27, 0.01), "anymal": (0.25, 0.01), "humanoid": (0.74, 0.002), "snu_like": (0.46, 0.002)}[name]
    if variant == "released":
        cost = {"ant": 0.0, "anymal": 0.005, "humanoid": 0.002}.get(name, cost)
    if name in ("ant", "anymal"):
        return reward + q[:, 1] - fall - cost * a.square().sum(-1)
    if name == "snu_like" and variant == "released":
        return reward - 0.001 * a.abs().sum(-1)
    above, gain = (0.1, 10.0) if name == "humanoid" else (0.05, 4.0)
    d = (q[:, 1] - fall - above).clamp(-1, above)
    return reward + torch.where(d < 0, -200 * d**2, gain * d) - cost * a.square().sum(-1)


SLOW_TO_BUILD = ("anymal", "humanoid", "snu_like")
"""A kernel more for each, whose released reward is checked in the long tier."""


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, "paper") for name in ENVS]
    + [pytest.param(name, "released", marks=[pytest.mark.long] * (name in SLOW_TO_BUILD)) for name in ENVS],
)
def test_rewards_are_table_2(name, variant):
    dynamics = EnvDynamics(name, 16, variant=variant)
    state, nq = dynamics.reset(), dynamics.rules.model.nq
    if name == "double_pendulum":  # more than a turn away, either way
        state = state + torch.tensor([7.0, -9.0, 0.0, 0.0])
    if name == "humanoid":  # off the line through the start, so that the direction to a point is another one than the x axis
        state = state + torch.nn.functional.one_hot(torch.tensor(2), state.shape[1]) * torch.linspace(-50, 50, 16)[:, None]
    for action in actions_for(dynamics, 5, seed=3) * 1.3:
        step = dynamics.simulator.step(state, action)
        after = step.state if variant == "paper" else state
        q, qd, a = after[:, :nq], after[:, nq:], action.clamp(-1, 1)
        if name == "hopper":
            expected = hopper_reward(q, qd, a)
        elif name == "double_pendulum":
            first = 0.1 * qd[:, 0] ** 2 if variant == "released" else 0.0
            expected = -torch.atan2(q.sin(), q.cos()).square().sum(-1) - first - 0.1 * qd[:, 1] ** 2
        else:
            expected = walker_reward(name, q, qd, a, variant)
        torch.testing.assert_close(step.reward, expected, atol=1e-3, rtol=1e-5)
        torch.testing.assert_close(dynamics.reward(state, action, step.state), step.reward, atol=1e-3, rtol=1e-5)
        assert torch.equal(dynamics.done(step.state), step.terminated)
        state = step.state


@pytest.mark.parametrize("stiffness", [1, 4, 16])
@pytest.mark.parametrize("name", ENVS)
def test_a_thousand_random_steps_stay_finite(name, stiffness):
    env = DifferentiableEnv(name, 32, stiffness=stiffness)
    ended = 0
    with torch.no_grad():
        for action in actions_for(env, 1000):
            step = env.step(action)
            assert torch.isfinite(step.state).all() and torch.isfinite(step.obs).all() and torch.isfinite(step.reward).all()
            ended += int((step.terminated | step.truncated).sum())
    counters = env.simulator.counters
    assert ended == int(counters["resets"].sum()) - env.count and ended > 0
    assert int(counters["exploded"].sum()) == 0


def test_changing_the_contact_does_not_rebuild_and_does_change_the_motion():
    env = DifferentiableEnv("hopper", 8)
    kernels = env.simulator.kernels
    state, actions = env.state, actions_for(env, 30)

    def final(simulator):
        x = state
        for action in actions:
            x = simulator.step(x, action).state
        return x

    with torch.no_grad():
        env.simulator.episode_length = 0
        soft = final(EnvDynamics("hopper", 8).simulator)
        simulator = EnvDynamics("hopper", 8).simulator
        simulator.set_material(Material(ke=8e4, kd=4e3, kf=2e3, mu=0.3))
        hard = final(simulator)
    assert simulator.kernels is kernels
    assert (hard - soft).abs().max() > 1e-3
    torch.testing.assert_close(final(EnvDynamics("hopper", 8).simulator), soft, atol=0, rtol=0)


def test_truncation_and_termination_are_told_apart_and_resets_walk_through_the_pool():
    env = DifferentiableEnv("hopper", 16, episode_length=25)
    env.reset()
    seen = []
    with torch.no_grad():
        for action in actions_for(env, 200):
            ages = env.simulator.counters["steps"].clone()
            step = env.step(action)
            assert not (step.terminated & step.truncated).any()
            assert torch.equal(step.truncated, (ages == 24) & ~step.terminated)
            fallen = step.final_obs[:, 0] < -0.45
            assert torch.equal(fallen, step.terminated)
            ended = step.terminated | step.truncated
            assert torch.equal(step.obs[~ended], step.final_obs[~ended])
            assert (step.obs[ended] != step.final_obs[ended]).any(-1).all()
            torch.testing.assert_close(env.simulator.observe(step.state), step.obs)
            seen += step.state[ended].tolist()
    assert len(seen) > 50 and len({tuple(row) for row in seen}) == len(seen)


def test_gradients_stop_where_an_episode_ended():
    env = DifferentiableEnv("hopper", 32, episode_length=6)
    env.reset(spread=True)
    actions = actions_for(env, 8).requires_grad_()
    ended = []
    for action in actions:
        step = env.step(action)
        ended.append(step.terminated | step.truncated)
    (gradient,) = torch.autograd.grad(step.reward.sum(), actions)
    ended = torch.stack(ended)
    for e in range(env.count):
        last = max((t for t in range(7) if ended[t, e]), default=-1)
        assert gradient[: last + 1, e].abs().max() == 0 if last >= 0 else True
        assert gradient[last + 1 :, e].abs().sum() > 0


def test_final_obs_carries_the_gradient_that_a_reset_cuts_from_obs():
    env = DifferentiableEnv("hopper", 4, episode_length=1)
    action = actions_for(env, 1)[0].requires_grad_()
    step = env.step(action)
    assert step.truncated.all() or (step.truncated | step.terminated).all()
    assert torch.autograd.grad(step.final_obs.sum(), action, retain_graph=True)[0].abs().sum() > 0
    assert torch.autograd.grad(step.obs.sum(), action)[0].abs().sum() == 0


def test_clipped_actions_have_no_gradient():
    env = DifferentiableEnv("ant", 4)
    action = torch.full((4, 8), 0.5)
    action[:, 0], action[:, 1] = 1.5, -2.0
    action.requires_grad_()
    (gradient,) = torch.autograd.grad(env.step(action).reward.sum(), action)
    assert gradient[:, :2].abs().max() == 0 and (gradient[:, 2:].abs() > 0).all()


@pytest.mark.parametrize("name", ["hopper", "ant"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_result_does_not_depend_on_the_batch_or_on_threads(name, threads):
    def run(count, threads):
        dynamics = EnvDynamics(name, count, threads=threads)
        full = EnvDynamics(name, 70)
        state = full.reset()[:count].clone().requires_grad_()
        actions = actions_for(full, 4)[:, :count].clone().requires_grad_()
        x, total = state, 0.0
        for action in actions:
            step = dynamics.simulator.step(x, action)
            x, total = step.state, total + step.reward.sum()
        return x.detach(), *torch.autograd.grad(total, [state, actions])

    whole, part = run(70, threads), run(37, 1)
    for a, b in zip(whole, part, strict=True):
        a = a[:, :37] if a.dim() == 3 else a[:37]
        assert torch.equal(a, b)


def test_a_broken_state_ends_its_episode_and_touches_nothing_else():
    env = DifferentiableEnv("ant", 20)
    clean = EnvDynamics("ant", 20).simulator
    env.reset()
    state = env.state.clone()
    action = actions_for(env, 1)[0]
    broken = state.clone()
    broken[3, 8], broken[17, 20] = float("nan"), 1e30
    env.state = broken
    step = env.step(action)
    others = [e for e in range(20) if e not in (3, 17)]
    assert step.terminated[[3, 17]].all() and not step.terminated[others].any()
    assert torch.isfinite(step.state).all() and torch.isfinite(step.obs).all() and torch.isfinite(step.final_obs).all()
    assert step.reward[3] == 0 and env.simulator.counters["exploded"].nonzero().flatten().tolist() == [3, 17]
    assert torch.equal(step.state[others], clean.step(state, action).state[others])


@pytest.mark.parametrize("kind", ["env", "dynamics"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e7])
def test_an_exploded_state_is_an_end_with_reward_0_and_no_gradient(kind, value):
    world = (DifferentiableEnv if kind == "env" else EnvDynamics)("hopper", 20)
    simulator = world.simulator
    state = simulator.start()[0]
    state[5, 0] = value  # the distance walked, which the fall's height does not see
    state, action = state.requires_grad_(), actions_for(world, 1)[0].requires_grad_()
    step = simulator.step(state, action)
    assert step.terminated.nonzero().flatten().tolist() == [5] and step.reward[5] == 0
    outputs = (step.reward.sum() + step.final_obs.sum() + step.state[:, 1].sum(), [state, action])
    for gradient in torch.autograd.grad(*outputs):
        assert gradient[5].abs().max() == 0 and (gradient[torch.arange(20) != 5].abs().sum(-1) > 0).all()
    assert int(simulator.counters["exploded"][5]) == 1 and int(simulator.counters["dropped"].sum()) == 0
    if kind == "dynamics":
        assert torch.equal(world.done(step.state), step.terminated)
        reward = world.reward(state, action, step.state)
        torch.testing.assert_close(reward, step.reward, atol=1e-3, rtol=1e-5)
        for gradient in torch.autograd.grad(reward.sum(), [state, action]):
            assert torch.isfinite(gradient).all() and gradient[5].abs().max() == 0


def test_a_non_finite_gradient_is_dropped_for_its_environment_alone_and_counted():
    env = DifferentiableEnv("hopper", 20)
    action = actions_for(env, 1)[0].requires_grad_()
    step = env.step(action)
    weight = torch.ones(20)
    weight[5] = float("inf")
    (gradient,) = torch.autograd.grad((step.reward * weight).sum(), action, retain_graph=True)
    (plain,) = torch.autograd.grad(step.reward.sum(), action)
    assert gradient[5].abs().max() == 0 and env.simulator.counters["dropped"].nonzero().flatten().tolist() == [5]
    keep = torch.arange(20) != 5
    assert torch.equal(gradient[keep], plain[keep])


def test_what_the_caller_keeps_is_never_overwritten_and_memory_stays_flat():
    env = DifferentiableEnv("hopper", 64)
    kept, copies, sizes = [], [], []
    for update in range(15):
        actions = actions_for(env, 8, seed=update).requires_grad_()
        total = 0.0
        for action in actions:
            step = env.step(action)
            total = total + step.reward.sum()
            if update < 3:
                kept.append(step.obs)
                copies.append(step.obs.detach().clone())
        total.backward()
        env.detach()
        del step, total
        gc.collect()
        sizes.append(len(env.simulator._free))
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
    assert max(sizes[8:]) <= 8 * 5, sizes
    assert len(set(sizes[8:])) == 1, sizes


@pytest.mark.parametrize("name", ENVS)
def test_memory_of_a_control_step_is_small(name):
    simulator = DifferentiableEnv(name, 64).simulator
    assert simulator.bytes_per_step <= (3e6 if name == "snu_like" else 1.5e6)


def test_seeds_give_reset_states_and_reset_noise_is_that_of_the_paper():
    env = DifferentiableEnv("ant", 64, seed=1)
    again, other = DifferentiableEnv("ant", 64, seed=1), DifferentiableEnv("ant", 64, seed=2)
    assert torch.equal(env.state, again.state) and not torch.equal(env.state, other.state)
    assert torch.equal(other.reset(seed=1), DifferentiableEnv("ant", 64, seed=1)._obs)
    pool = env.simulator.pool
    assert (pool[:, [0, 2]].abs() <= 0.1).all() and ((pool[:, 1] - 0.75).abs() <= 0.1 + 1e-6).all()
    torch.testing.assert_close(pool[:, 3:7].norm(dim=-1), torch.ones(len(pool)))
    angle = 2 * torch.acos((pool[:, 3:7] @ torch.tensor([-math.sqrt(0.5), 0, 0, math.sqrt(0.5)])).clamp(-1, 1))
    assert angle.max() <= math.radians(7.5) + 1e-3 and angle.max() > math.radians(6)
    assert ((pool[:, 7:15] - torch.tensor([0, 1.0, 0, -1, 0, -1, 0, 1])).abs() <= 0.2 + 1e-6).all()
    assert (pool[:, 15:].abs() <= 0.25).all() and pool[:, 15:].abs().max() > 0.24


def test_dynamics_follow_the_common_protocol_and_carry_gradients():
    world = EnvDynamics("hopper", 8)
    assert isinstance(world, Dynamics)
    weight = torch.zeros(world.state_dim, world.action_dim, requires_grad=True)
    noise = torch.randn(5, 8, world.action_dim)
    result = imagine(world, lambda s, n: torch.tanh(s @ weight + 0.3 * n), world.reset(), noise=noise)
    assert (
        result.states.shape == result.reached.shape == (5, 8, 12) and result.rewards.shape == (5, 8) and result.terminated.shape == (5, 8)
    )
    result.rewards.sum().backward()
    assert weight.grad.abs().sum() > 0


def test_a_reward_in_plain_torch_on_top_is_differentiable():
    env = DifferentiableEnv("ant", 4)
    action = actions_for(env, 1)[0].requires_grad_()
    step = env.step(action)
    custom = -(step.final_obs[:, 0] - 0.5).square().sum()
    assert torch.isfinite(torch.autograd.grad(custom, action)[0]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DifferentiableEnv("walker"), "environment must be 'double_pendulum', .* or 'snu_like', got 'walker'"),
        (lambda: DifferentiableEnv("hopper", 4, variant="old"), "variant must be 'paper' or 'released', got 'old'"),
        (lambda: DifferentiableEnv("hopper", 0), "count >= 1"),
        (lambda: DifferentiableEnv("hopper", 4, interval=17), "interval <= substeps, got 4, 16, 17"),
        (lambda: DifferentiableEnv("hopper", 4, stiffness=0), "stiffness must be positive and finite, got 0"),
        (lambda: DifferentiableEnv("hopper", 4, episode_length=0), "episode_length must be at least 1, got 0"),
        (lambda: EnvDynamics("hopper", 4, episode_length=100), "episode_length must be left out, got 100"),
        (lambda: HumanoidRules(heading="north"), "heading must be 'world_x' or 'target', got 'north'"),
        (lambda: SingleTaskRun("shac", ENVS["hopper"], 0, SingleTaskSettings(), "runs"), r"must be the name of an env.*EnvSpec\(rules="),
        (lambda: DifferentiableEnv("hopper", 4).step(torch.zeros(4, 2)), r"action has shape \(4, 2\), expected \(4, 3\)"),
        (lambda: DifferentiableEnv("hopper", 4).step(torch.zeros(4, 3, dtype=torch.float64)), "action is torch.float64"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_robot_of_ones_own_is_trained_under_its_name(tmp_path, monkeypatch):
    monkeypatch.setitem(ENVS, "swing", EnvSpec(DoublePendulumRules, substeps=4, interval=4, episode_length=20))
    shac = SHACConfig(updates=2, horizon=4, actor_hidden=(8,), critic_hidden=(8,))
    settings = SingleTaskSettings(shac=shac, envs=4, eval_episodes=2, evaluate_every=1)
    device = str(torch.get_default_device())
    line = SingleTaskRun("shac", "swing", 0, settings, tmp_path, device=device).train()
    assert line["status"] == "finished" and line["task"] == "swing" and len(line["curve"]) == 2
    assert SingleTaskRun("shac", "swing", 0, settings, tmp_path, device=device).train() == line


@pytest.mark.long
def test_shac_learns_hopper_through_the_contacts():
    path = PROJECT / "benchmarks" / "minimal_shac.py"
    spec = importlib.util.spec_from_file_location("minimal_shac", path)
    shac = importlib.util.module_from_spec(spec)
    sys.modules["minimal_shac"] = shac
    spec.loader.exec_module(shac)
    curve = shac.train("hopper", 0, shac.Settings(epochs=150))
    assert max(point["return"] for point in curve) > 2000, curve
