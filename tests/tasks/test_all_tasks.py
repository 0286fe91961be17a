"""All 80 tasks of MT80 in the real simulators; the 11 custom rewards against values worked out by hand."""

import numpy as np
import pytest

from pwmlib.tasks import MT80, make, task

AT_MARGIN = 0.1  # value of a Gaussian tolerance at its margin


@pytest.mark.parametrize("t", MT80, ids=lambda t: t.name)
def test_every_task_builds_resets_steps_and_is_scored(t):
    env = make(t)
    first = env.reset(5)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (4, t.action_dim))
    seen = [env.step(a) for a in actions]
    np.testing.assert_array_equal(env.reset(5), first)
    again = [env.step(a) for a in actions]
    for (obs, reward, success), (obs2, reward2, success2) in zip(seen, again, strict=True):
        assert obs.shape == (t.obs_dim,) and obs.dtype == np.float32 and np.isfinite(obs).all()
        np.testing.assert_array_equal(obs, obs2)
        assert reward == reward2 and success == success2 and isinstance(success, bool)
        assert np.isfinite(reward) and (t.suite == "metaworld" or 0 <= reward <= 2)
    assert t.score(500.0, 0.25) == (50.0 if t.suite == "dm_control" else 25.0)


def reward_at(name, *, qpos=None, qvel=None):
    """Reward of a state, and its physics."""
    env = make(task(name))
    env.reset(0)
    physics = env.physics
    physics.data.qpos[:] = 0 if qpos is None else qpos
    physics.data.qvel[:] = 0 if qvel is None else qvel
    physics.forward()
    return env._env.task.get_reward(physics), physics


def moving(name, speed, **position):
    env = make(task(name))
    velocity, place = np.zeros(env.physics.model.nv), np.zeros(env.physics.model.nq)
    velocity[list(env.physics.named.data.qvel.axes.row.names).index("rootx")] = speed
    for joint, value in position.items():
        place[list(env.physics.named.data.qpos.axes.row.names).index(joint)] = value
    return reward_at(name, qpos=place, qvel=velocity)


@pytest.mark.parametrize("rate, expected", [(9, 1), (-9, 1), (-20, 1), (6.75, 0.75), (-4.5, 0.5), (0, 0)])
def test_pendulum_spin(rate, expected):
    assert reward_at("pendulum-spin", qvel=[rate])[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    "name, speed, expected",
    [
        ("walker-walk-backwards", -1, 1),  # upright at 1.3 m: standing counts in full
        ("walker-walk-backwards", -0.75, (5 * 0.75 + 1) / 6),
        ("walker-walk-backwards", 1, 1 / 6),
        ("walker-run-backwards", -8, 1),
        ("walker-run-backwards", -6, (5 * 0.75 + 1) / 6),
        ("cheetah-run-backwards", -8, 1),
        ("cheetah-run-backwards", -4, 0.5),
        ("cheetah-run-backwards", 4, 0),
        ("hopper-hop-backwards", -1, 1),
        ("hopper-hop-backwards", -0.5, 0.5),
        ("hopper-hop-backwards", 1, 0),
    ],
)
def test_moving_backwards(name, speed, expected):
    assert moving(name, speed)[0] == pytest.approx(expected, abs=1e-6)


def gaussian(height):
    return 1.0 if height >= 1.2 else AT_MARGIN ** (((1.2 - height) / 0.6) ** 2)


@pytest.mark.parametrize("name, foot", [("cheetah-run-front", "bfoot"), ("cheetah-run-back", "ffoot")])
def test_cheetah_on_one_leg(name, foot):
    assert moving(name, 6, rootz=5)[0] == pytest.approx(1)
    assert moving(name, 3, rootz=5)[0] == pytest.approx((5 * 0.5 + 1) / 6)
    reward, physics = moving(name, 0, rootz=0.3, rooty=0.4)
    heights = [physics.named.data.xpos[body, "z"] for body in (foot, "torso")]
    assert abs(physics.named.data.xpos["bfoot", "z"] - physics.named.data.xpos["ffoot", "z"]) > 0.2
    assert reward == pytest.approx((3 * gaussian(heights[0]) + 2 * gaussian(heights[1])) / 5 / 6, rel=1e-6)


def test_cheetah_jump():
    assert moving("cheetah-jump", 0.5, rootz=5)[0] == pytest.approx(1)
    assert moving("cheetah-jump", -0.75, rootz=5)[0] == pytest.approx((5 + 0.5) / 6)
    reward, physics = moving("cheetah-jump", 2.0, rootz=0.3, rooty=0.4)
    torso, back, front = (physics.named.data.xpos[body, "z"] for body in ("torso", "bfoot", "ffoot"))
    assert reward == pytest.approx(5 / 6 * (gaussian((torso + back) / 2) + gaussian((torso + front) / 2)) / 2, rel=1e-6)


def test_cup_spin():
    env = make(task("cup-spin"))
    starts = []
    for seed in range(30):
        env.reset(seed)
        starts.append(env.physics.in_target())
    assert 0.75 <= np.mean(starts) < 1  # nine in ten begin inside
    _, physics = reward_at("cup-spin")
    centre = physics.named.data.site_xpos["target", ["x", "z"]] - physics.named.data.xpos["ball", ["x", "z"]]

    def at(offset, speed):
        return reward_at("cup-spin", qpos=[0, 0, centre[0] + offset, centre[1]], qvel=[0, 0, 0.6 * speed, 0.8 * speed])[0]

    assert at(0, 10) == 0
    assert at(0.5, 6) == pytest.approx(1)
    assert at(0.375, 6) == pytest.approx((0.75 + 2) / 3)
    assert at(0.5, 3) == pytest.approx((1 + 2 * 0.5) / 3)


@pytest.mark.parametrize("name, radius", [("reacher-three-easy", 0.05), ("reacher-three-hard", 0.015)])
def test_reacher_with_three_links(name, radius):
    env = make(task(name))
    env.reset(0)
    physics, found = env.physics, []
    for gap in (radius + 0.009, radius + 0.011):
        physics.data.qpos[:] = 0
        physics.named.model.geom_pos["target", ["x", "y"]] = 0.27 + gap, 0.0  # the stretched finger is at 3 x 0.09
        physics.forward()
        found.append(env._env.task.get_reward(physics))
    assert found == [1.0, 0.0]
    limits = physics.named.model.jnt_range[["shoulder1", "wrist"]]
    np.testing.assert_allclose(np.degrees(limits), [[-80, 80]] * 2)


@pytest.mark.parametrize("name, least", [("pendulum-swingup", 800), ("reacher-easy", 900), ("cartpole-swingup", 700)])
def test_planning_on_the_simulator_gives_expert_episodes(name, least):
    from pwmlib.data import make_behaviour
    from pwmlib.data.store import record

    env = make(task(name))
    episode = record(env, make_behaviour("mpc", env, np.random.default_rng(0)), seed=1, behaviour="mpc")
    assert episode.total_reward >= least


def test_a_planning_model_gives_the_rewards_of_the_task():
    """Sensors and formula of the planning reward where it is the task's own: walker and the cheetah that jumps."""
    from pwmlib.tasks.planning import SamplingPlanner

    for name in ("walker-walk", "walker-run-backwards", "cheetah-jump"):
        env = make(task(name))
        env.reset(3)
        planner = SamplingPlanner(env, rng=np.random.default_rng(0))
        planner._model.opt.timestep = env.physics.model.opt.timestep
        planner._substeps = round(2 * env.control_timestep / env.physics.model.opt.timestep)
        action = np.random.default_rng(1).uniform(-1, 1, env.task.action_dim)
        predicted = planner._returns(np.broadcast_to(action, (1, 1, env.task.action_dim)).copy())[0]
        env.step(action)
        assert predicted == pytest.approx(env._env.task.get_reward(env.physics), abs=0.02)
