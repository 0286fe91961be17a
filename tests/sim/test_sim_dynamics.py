"""Physics and derivatives of the simulator, against closed forms, the float64 oracle and finite differences."""

import math
from dataclasses import replace

import pytest
import torch
from oracle import Reference, total_energy, total_momentum

from pwmlib.sim.engine.bridge import Simulator
from pwmlib.sim.engine.model import Joint, Link, Material, Model, Muscle
from pwmlib.sim.engine.rigid_bodies import contact_depth, forward_kinematics, link_motion, pose_of
from pwmlib.sim.engine.scalars import exp, from_columns, tanh
from pwmlib.sim.engine.shapes import Box, Capsule, Sphere, mass_properties
from pwmlib.sim.registry import ENVS
from pwmlib.sim.robots.tables import read_model

F64 = torch.float64


class Passive:
    """Rules without actuation: the state is the observation."""

    action_dim, noise_dim = 1, 1

    def __init__(self, model):
        self.model, self.obs_dim = model, model.nq + model.nd

    def actuate(self, action):
        return [0.0] * self.model.nd, [0.0] * len(self.model.muscles)

    def observe(self, q, qd, action):
        return [*q, *qd]

    def reward(self, q, qd, action, next_q, next_qd):
        return next_q[0]

    def margin(self, q, qd):
        return 1.0

    def reset(self, noise):
        rest = [0.0] * self.model.nq
        for link, at in zip(self.model.links, self.model.q_start, strict=False):
            if link.joint.kind in ("free", "ball"):
                rest[at + (6 if link.joint.kind == "free" else 3)] = 1.0
        return [noise[0] * 0 + r for r in rest], [noise[0] * 0 for _ in range(self.model.nd)]


def frictionless(model):
    free = {"damping": 0.0, "limit_damping": 0.0, "armature": 0.0, "stiffness": 0.0, "lower": None, "upper": None}
    joints = [link.joint if link.joint.kind == "free" else replace(link.joint, **free) for link in model.links]
    return replace(model, links=tuple(replace(link, joint=joint) for link, joint in zip(model.links, joints, strict=True)))


def start(name, steps=18, count=8, **options):
    """Simulator, rules and a batch of states some random steps into an episode."""
    spec = ENVS[name]
    rules = spec.rules("paper")
    sim = Simulator(rules, count, substeps=spec.substeps, interval=options.pop("interval", spec.interval), **options)
    g = torch.Generator("cpu").manual_seed(0)
    state, _ = sim.start()
    actions = (torch.rand(steps + 2, count, rules.action_dim, generator=g, device="cpu") * 2.2 - 1.1).to(state.device)
    with torch.no_grad():
        for action in actions[:steps]:
            state = sim.step(state, action).state
    return sim, rules, state, actions[steps:]


def touching(rules, state):
    """How many contact points of the batch are below the ground."""
    model, nq = rules.model, rules.model.nq
    q, qd = from_columns(state[:, :nq].to(F64)), from_columns(state[:, nq:].to(F64))
    frames = forward_kinematics(model, q)
    motion = link_motion(model, frames, qd)
    return sum(int((contact_depth(pose_of(frames, motion, c.link), c.point, c.radius) < 0).sum()) for c in model.contacts)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in ("humanoid", "snu_like") else n for n in sorted(ENVS)])
def test_float32_kernels_agree_with_the_float64_oracle_over_two_control_steps(name):
    sim, rules, state, actions = start(name)
    oracle = Reference(rules, substeps=sim.substeps, interval=sim.interval)
    weights = torch.randn(rules.obs_dim, generator=torch.Generator("cpu").manual_seed(1), dtype=F64, device="cpu").to(state.device)

    def gradients(step, dtype):
        s, a = state.to(dtype).requires_grad_(), actions.to(dtype).requires_grad_()
        x, loss = s, 0.0
        for action in a:
            out = step(x, action)
            x, loss = out.state, loss + out.reward.sum() + (out.obs @ weights.to(dtype)).sum()
        g_state, g_action = torch.autograd.grad(loss, [s, a])
        nq = rules.model.nq
        return x.detach(), out, {"actions": g_action, "q0": g_state[:, :nq], "qd0": g_state[:, nq:]}

    state32, out32, grad32 = gradients(sim.step, torch.float32)
    state64, out64, grad64 = gradients(oracle.step, F64)
    if rules.model.contacts:
        assert touching(rules, state32) > 0, "no contact: the comparison would not see the contact model"
    torch.testing.assert_close(state32.to(F64), state64, atol=2e-3, rtol=1e-4)
    torch.testing.assert_close(out32.reward.to(F64), out64.reward, atol=1e-3, rtol=1e-4)
    for key, expected in grad64.items():
        error = (grad32[key] - expected).norm() / expected.norm()
        assert expected.norm() > 0 and error < 1e-3, f"{name} {key}: relative error {error:.1e}"


@pytest.mark.parametrize("name", sorted(ENVS))
def test_oracle_passes_gradcheck_on_one_substep(name):
    sim, rules, state, actions = start(name, count=1)
    oracle = Reference(rules, substeps=1, interval=1, dt=sim.dt / sim.substeps)

    def substep(s, a):
        out = oracle.step(s, a)
        return out.state, out.obs, out.reward

    # For wide inputs gradcheck's fast mode projects on random directions; narrow ones are checked entry by entry.
    inputs = state.to(F64).requires_grad_(), (0.9 * actions[0]).clamp(-0.95, 0.95).to(F64).requires_grad_()
    assert torch.autograd.gradcheck(substep, inputs, eps=1e-7, rtol=1e-5, atol=1e-5, fast_mode=rules.model.nq > 10)


@pytest.mark.parametrize("name", ["hopper", "ant"])
def test_oracle_gradient_matches_central_differences_of_a_control_step(name):
    sim, rules, state, actions = start(name, count=2)
    oracle = Reference(rules, substeps=sim.substeps, interval=1)
    g = torch.Generator().manual_seed(3)
    x, a = state.to(F64).requires_grad_(), actions[0].clamp(-0.9, 0.9).to(F64).requires_grad_()
    dx, da = (torch.randn(v.shape, generator=g, dtype=F64) for v in (x, a))
    value = lambda e: (oracle.step(x + e * dx, a + e * da).reward).sum()  # noqa: E731
    gx, ga = torch.autograd.grad(value(0.0), [x, a])
    analytic, eps = float((gx * dx).sum() + (ga * da).sum()), 1e-7
    numeric = float((value(eps) - value(-eps)).detach()) / (2 * eps)
    assert numeric == pytest.approx(analytic, rel=1e-4)


def columns(model, state):
    return from_columns(state[:, : model.nq].to(F64)), from_columns(state[:, model.nq :].to(F64))


def test_a_swinging_pendulum_keeps_its_energy():
    model = frictionless(read_model("double_pendulum"))
    lowest = 2 * sum(body.mass for body in model.masses) * model.gravity
    drift = {}
    for substeps in (16, 64):
        sim = Simulator(Passive(model), 1, substeps=substeps, interval=1)
        state = torch.tensor([[2.0, 0.5, 0.0, 0.0]])
        first, worst = total_energy(model, *columns(model, state)), 0.0
        for _ in range(240):
            state = sim.step(state, torch.zeros(1, 1)).state
            worst = max(worst, float((total_energy(model, *columns(model, state)) - first).abs() / lowest))
        drift[substeps] = worst
    assert drift[16] < 0.02, drift
    assert drift[64] < drift[16] / 3, f"symplectic Euler: the error must fall with the step, got {drift}"


def test_native_pendulum_has_the_small_oscillation_period_of_the_closed_form():
    rod = Capsule((0, -1, 0), (0, 0, 0), 0.05)
    joint = Joint("hinge", position=(0, 3, 0), axis=(0, 0, 1), limit_damping=0.0)
    model = Model("pendulum", (Link("rod", joint, None, (rod,), collides=False),))
    body = model.masses[0]
    inertia = body.inertia[2, 2] + body.mass * 0.25
    period = 2 * math.pi * math.sqrt(inertia / (body.mass * model.gravity * 0.5))
    sim = Simulator(Passive(model), 1, substeps=16, interval=1)
    state, angles = torch.tensor([[0.05, 0.0]]), []
    for _ in range(600):
        state = sim.step(state, torch.zeros(1, 1)).state
        angles.append(float(state[0, 0]))
    crossings = [i + angles[i] / (angles[i] - angles[i + 1]) for i in range(len(angles) - 1) if angles[i] > 0 >= angles[i + 1]]
    measured = (crossings[-1] - crossings[0]) / (len(crossings) - 1) / 60
    assert measured == pytest.approx(period, rel=2e-3)


def test_free_flight_conserves_momentum_and_falls_with_g():
    model = frictionless(read_model("ant"))
    g = torch.Generator().manual_seed(0)
    q = torch.zeros(2, model.nq)
    q[:, 1], q[:, 3:7] = 50.0, torch.nn.functional.normalize(torch.randn(2, 4, generator=g), dim=-1)
    begin = torch.cat([q, torch.randn(2, model.nd, generator=g)], -1)
    linear0, angular0 = total_momentum(model, *columns(model, begin))
    fall = torch.tensor([0, sum(body.mass for body in model.masses) * model.gravity * 30 / 60, 0], dtype=F64)
    error = {}
    for substeps in (32, 128):
        sim, state = Simulator(Passive(model), 2, substeps=substeps, interval=1), begin
        for _ in range(30):
            state = sim.step(state, torch.zeros(2, 1)).state
        linear, angular = total_momentum(model, *columns(model, state))
        error[substeps] = (
            float((linear - linear0 + fall).norm() / linear0.norm()),
            float((angular - angular0).norm() / angular0.norm()),
        )
    assert max(error[32]) < 0.02, error
    assert error[128][0] < error[32][0] / 3 and error[128][1] < error[32][1] / 3, f"error must fall with the step: {error}"


@pytest.mark.parametrize("shape", [Sphere((0, 0, 0), 0.2), Box((0, 0, 0), (0.2, 0.1, 0.3))])
def test_a_body_at_rest_on_the_ground_stays(shape):
    model = Model("body", (Link("body", Joint("free"), None, (shape,)),), Material(ke=2e4, kd=1e3, kf=1e3, mu=0.9))
    sim = Simulator(Passive(model), 1, substeps=16, interval=1)
    height = 0.2 if isinstance(shape, Sphere) else 0.1
    depth = model.masses[0].mass * model.gravity / (2e4 * (1 if isinstance(shape, Sphere) else 4))
    state = torch.zeros(1, model.nq + model.nd)
    state[0, 1], state[0, 6] = height - depth, 1.0
    for _ in range(200):
        state = sim.step(state, torch.zeros(1, 1)).state
    assert abs(float(state[0, 1]) - (height - depth)) < 1e-4 and float(state[0, model.nq :].abs().max()) < 1e-2


def test_a_sliding_body_is_slowed_by_mu_g():
    box = Box((0, 0, 0), (0.2, 0.1, 0.3))
    model = Model("box", (Link("box", Joint("free"), None, (box,)),), Material(ke=1e5, kd=1e4, kf=1e6, mu=0.3))
    sim = Simulator(Passive(model), 1, substeps=16, interval=1)
    state = torch.zeros(1, 13)
    state[0, 1], state[0, 6] = 0.1 - model.masses[0].mass * 9.81 / 4e5, 1.0
    for _ in range(30):
        state = sim.step(state, torch.zeros(1, 1)).state
    state[0, 10] = 3.0
    speeds = []
    for _ in range(30):
        state = sim.step(state, torch.zeros(1, 1)).state
        speeds.append(float(state[0, 10]))
    assert (speeds[4] - speeds[24]) / (20 / 60) == pytest.approx(0.3 * 9.81, rel=0.05)


def test_ball_joint_falls_like_a_hinge():
    rod = Capsule((0, -1, 0), (0, 0, 0), 0.05)
    plain = {"position": (0, 3, 0), "limit_damping": 0.0}
    hinge = Model("hinge", (Link("rod", Joint("hinge", axis=(0, 0, 1), **plain), None, (rod,), collides=False),))
    ball = Model("ball", (Link("rod", Joint("ball", **plain), None, (rod,), collides=False),))
    a = torch.tensor([[1.0, 0.0]], dtype=F64)
    b = torch.tensor([[0.0, 0.0, math.sin(0.5), math.cos(0.5), 0.0, 0.0, 0.0]], dtype=F64)
    one, two = Reference(Passive(hinge), substeps=64, interval=1), Reference(Passive(ball), substeps=64, interval=1)
    zero = torch.zeros(1, 1, dtype=F64)
    for _ in range(10):
        a, b = one.step(a, zero).state, two.step(b, zero).state
    assert abs(float(a[0, 0]) - 1.0) > 0.1, "it fell"
    assert 2 * math.atan2(float(b[0, 2]), float(b[0, 3])) == pytest.approx(float(a[0, 0]), abs=2e-3)
    assert float(b[0, 6]) == pytest.approx(float(a[0, 1]), abs=5e-3)


def test_capsule_inertia_is_that_of_many_points():
    capsule = Capsule((0.1, -0.2, 0.3), (0.4, 0.2, 0.1), 0.12)
    got = mass_properties([capsule])
    g = torch.Generator().manual_seed(0)
    a, b = torch.tensor(capsule.start, dtype=F64), torch.tensor(capsule.end, dtype=F64)
    low, high = torch.minimum(a, b) - 0.12, torch.maximum(a, b) + 0.12
    points = low + (high - low) * torch.rand(400_000, 3, generator=g, dtype=F64)
    t = (((points - a) @ (b - a)) / ((b - a) @ (b - a))).clamp(0, 1)
    inside = points[(points - a - t[:, None] * (b - a)).norm(dim=-1) < 0.12]
    mass = 1000 * float((high - low).prod()) * len(inside) / len(points)
    centred = inside - inside.mean(0)
    inertia = mass * (centred.square().sum(-1).mean() * torch.eye(3, dtype=F64) - centred.T @ centred / len(inside))
    assert got.mass == pytest.approx(mass, rel=0.01)
    torch.testing.assert_close(torch.tensor(got.inertia), inertia, rtol=0.03, atol=0.01 * float(inertia.max()))


SLIDE = Joint("slide", axis=(1, 0, 0))
BALL = (Sphere((0, 0, 0), 0.1),)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: (Link("a", SLIDE),), "'robot': link 'a' moves no mass"),
        (lambda: (Link("a", SLIDE, None, BALL), Link("b", SLIDE, "a"), Link("c", Joint("fixed"), "b")), "link 'b' moves no mass"),
        (lambda: (Link("a", SLIDE, None, (Sphere((0, 0, 0), 0.0),)),), "link 'a' has impossible mass properties"),
        (lambda: (Link("a", SLIDE, None, (Capsule((1, 0, 0), (1, 0, 0), 0.1),)),), "link 'a' has impossible mass properties"),
        (lambda: (Link("a", SLIDE, None, (Sphere((0, 0, 0), 0.1, mass=-1.0),)),), "link 'a' has impossible mass properties"),
        (lambda: (), "'robot': no link has a joint that moves"),
        (lambda: (Link("a", Joint("fixed"), None, BALL),), r"no link has a joint that moves; its links are \['a'\]"),
    ],
)
def test_a_robot_that_cannot_move_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        Model("robot", make())


def test_an_armature_may_stand_for_a_mass():
    joint = Joint("slide", axis=(1, 0, 0), armature=1.0, limit_damping=0.0)
    sim = Simulator(Passive(Model("rotor", (Link("a", joint),))), 1, substeps=4, interval=1)
    assert float(sim.step(torch.tensor([[0.0, 3.0]]), torch.zeros(1, 1)).state[0, 0]) == pytest.approx(3 / 60)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("actuate", lambda action: ([0.0], [action[0]]), r"body: actuate\(\) gives 1 muscle activations, the model takes 0"),
        ("actuate", lambda action: ([0.0, action[0]], []), r"body: actuate\(\) gives 2 joint forces, the model takes 1"),
        ("reset", lambda noise: ([noise[0]], []), r"body: reset\(\) gives 1 q and 0 qd, the model has 1 and 1"),
        ("observe", lambda q, qd, action: [*q], r"body: observe\(\) gives 1 numbers, obs_dim is 2"),
    ],
)
def test_rules_of_the_wrong_size_are_named(method, given, message):
    rules = Passive(Model("body", (Link("a", SLIDE, None, BALL, collides=False),)))
    setattr(rules, method, given)
    with pytest.raises(ValueError, match=message):
        Simulator(rules, 1, substeps=4, interval=1)


@pytest.mark.usefixtures("device")
def test_exp_tanh_and_abs_in_a_reward_have_the_slope_of_finite_differences():
    rules = Passive(Model("curves", (Link("a", SLIDE, None, BALL, collides=False),)))
    rules.reward = lambda q, qd, action, next_q, next_qd: exp(-next_q[0]) + tanh(next_q[0]) * abs(next_qd[0])
    state = torch.stack([torch.linspace(-3, 3, 40), torch.linspace(2, -2, 40)], 1).requires_grad_()
    sim, oracle, action = Simulator(rules, 40, substeps=4, interval=1), Reference(rules, substeps=4, interval=1), torch.zeros(40, 1)
    reward = sim.step(state, action).reward
    (slope,) = torch.autograd.grad(reward.sum(), state)
    for i, unit in enumerate(torch.eye(2, dtype=F64)):
        high, low = (oracle.step(state.detach().to(F64) + h * unit, action.to(F64)).reward for h in (1e-6, -1e-6))
        torch.testing.assert_close(slope[:, i].to(F64), (high - low) / 2e-6, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(reward.detach().to(F64), (high + low) / 2, atol=1e-5, rtol=1e-5)


def test_a_muscle_pulls_its_two_ends_together():
    links = (
        Link("a", Joint("slide", axis=(1, 0, 0), limit_damping=0.0), None, (Sphere((0, 0, 0), 0.1),), collides=False),
        Link("b", Joint("slide", axis=(1, 0, 0), limit_damping=0.0), None, (Sphere((0, 0, 0), 0.1),), collides=False),
    )
    muscle = Muscle("m", 50.0, (("a", (0.0, 0.0, 0.0)), ("b", (2.0, 0.0, 0.0))))
    model = Model("pair", links, muscles=(muscle,))
    rules = Passive(model)
    rules.actuate = lambda action: ([0.0, 0.0], [action[0]])
    sim = Simulator(rules, 1, substeps=4, interval=1)
    state = sim.step(torch.zeros(1, 4), torch.tensor([[0.5]])).state
    speed = 25.0 / model.masses[0].mass / 60
    assert float(state[0, 2]) == pytest.approx(speed, rel=1e-3) and float(state[0, 3]) == pytest.approx(-speed, rel=1e-3)
