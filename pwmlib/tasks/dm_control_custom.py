"""The 11 dm_control tasks of MT30 that the stock suite lacks: stock bodies with other rewards, and a reacher with three links.

Definitions: TD-MPC2 (Hansen et al. 2024), whose multi-task benchmark the paper uses. Rewards are per control step, in [0, 1].
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from dm_control.rl.control import Environment
from dm_control.suite import ball_in_cup, cheetah, common, hopper, pendulum, reacher, walker
from dm_control.utils import rewards

__all__ = ["CUSTOM_TASKS", "THREE_LINKS", "jumping", "raised", "reached", "spinning", "standing", "walking"]

Value = float | np.ndarray
"""Of one state, or of many that a planner simulates."""


def reached(value: Value, at_least: float, margin: float, *, at_margin: float = 0.1, sigmoid: str = "gaussian") -> Any:
    """Give 1 from `at_least` on, `at_margin` when `margin` below it."""
    return rewards.tolerance(value, (at_least, np.inf), margin, sigmoid=sigmoid, value_at_margin=at_margin)


def standing(height: Value, upright: Value) -> Any:
    """Reward a walker that stands."""
    return (3 * reached(height, 1.2, 0.6) + (1 + upright) / 2) / 4


def walking(height: Value, upright: Value, velocity: Value, speed: float) -> Any:
    """Reward a walker that stands and moves."""
    return standing(height, upright) * (5 * reached(velocity, speed, speed / 2, at_margin=0.5, sigmoid="linear") + 1) / 6


def raised(foot: Value, torso: Value) -> Any:
    """Reward a cheetah's height of one foot, and of the torso."""
    return (3 * reached(foot, 1.2, 0.6) + 2 * reached(torso, 1.2, 0.6)) / 5


def jumping(torso: Value, feet: Iterable[Value], velocity: Value) -> Any:
    """Reward a cheetah that lifts torso and feet where it is."""
    still = rewards.tolerance(velocity, (-0.5, 0.5), 0.5, sigmoid="linear", value_at_margin=0)
    return np.mean([(5 * reached((torso + foot) / 2, 1.2, 0.6) + still) / 6 for foot in feet], axis=0)


def spinning(inside: Any, distance: Value, speed: Value) -> Any:
    """Reward a ball that is out of the cup, far from it and fast."""
    far = reached(distance, 0.5, 0.25, at_margin=0.5, sigmoid="linear")
    return (1 - inside) * (far + 2 * reached(speed, 6, 3, at_margin=0.5, sigmoid="linear")) / 3


class BackwardsWalker(walker.PlanarWalker):
    """Stand, and move backwards at `move_speed`."""

    def get_reward(self, physics) -> float:
        return walking(physics.torso_height(), physics.torso_upright(), -physics.horizontal_velocity(), self._move_speed)


class BackwardsCheetah(cheetah.Cheetah):
    """Run backwards at 8 m/s."""

    def get_reward(self, physics) -> float:
        return reached(-physics.speed(), 8, 8, at_margin=0, sigmoid="linear")


class OneLegCheetah(cheetah.Cheetah):
    """Run at 6 m/s with one foot (and the torso) high above the ground."""

    def __init__(self, raised: str, random=None):
        self._raised = raised
        super().__init__(random=random)

    def get_reward(self, physics) -> float:
        up = raised(*physics.named.data.xpos[[self._raised, "torso"], "z"])
        return up * (5 * reached(physics.speed(), 6, 6, at_margin=0, sigmoid="linear") + 1) / 6


class JumpingCheetah(cheetah.Cheetah):
    """Lift torso and both feet, at a horizontal speed below 0.5 m/s."""

    def get_reward(self, physics) -> float:
        torso, *feet = physics.named.data.xpos[["torso", "bfoot", "ffoot"], "z"]
        return float(jumping(torso, feet, physics.speed()))


class BackwardsHopper(hopper.Hopper):
    """Hop backwards at 1 m/s, half the speed of the forward task."""

    def get_reward(self, physics) -> float:
        upright = float(rewards.tolerance(physics.height(), (0.6, 2)))
        return upright * reached(-physics.speed(), 1, 0.5, at_margin=0.5, sigmoid="linear")


class SpinningPendulum(pendulum.SwingUp):
    """Turn at 9 rad/s or more, either way."""

    def get_reward(self, physics) -> float:
        return reached(np.abs(physics.angular_velocity()).item(), 9, 4.5, at_margin=0.5, sigmoid="linear")


class SpinningBall(ball_in_cup.BallInCup):
    """Swing the ball around the cup: out of it, far from it and fast. Nine episodes in ten begin with the ball inside."""

    def initialize_episode(self, physics) -> None:
        anywhere = self.random.uniform() < 0.1
        while True:
            physics.named.data.qpos["ball_x"] = self.random.uniform(-0.2, 0.2)
            physics.named.data.qpos["ball_z"] = self.random.uniform(0.2, 0.5)
            physics.after_reset()
            if physics.data.ncon == 0 and (anywhere or physics.in_target()):
                break
        super(ball_in_cup.BallInCup, self).initialize_episode(physics)

    def get_reward(self, physics) -> float:
        distance = float(np.linalg.norm(physics.ball_to_target()))
        speed = float(np.linalg.norm(physics.named.data.qvel[["ball_x", "ball_z"]]))
        return spinning(physics.in_target(), distance, speed)


THREE_LINKS = """
<mujoco model="three-link planar reacher">
  <include file="./common/skybox.xml"/><include file="./common/visual.xml"/><include file="./common/materials.xml"/>
  <option timestep="0.02"><flag contact="disable"/></option>
  <default>
    <joint type="hinge" axis="0 0 1" damping="0.01"/>
    <motor gear="0.05" ctrlrange="-1 1" ctrllimited="true"/>
    <geom size="0.01"/>
  </default>
  <worldbody>
    <light pos="0 0 1"/>
    <camera name="fixed" pos="0 0 0.75"/>
    <geom name="ground" type="plane" size="0.3 0.3 10" material="grid"/>
    <body name="arm0" pos="0 0 0.01">
      <joint name="shoulder0"/>
      <geom name="arm0" type="capsule" fromto="0 0 0 0.09 0 0" material="self"/>
      <body name="arm1" pos="0.09 0 0">
        <joint name="shoulder1" limited="true" range="-80 80"/>
        <geom name="arm1" type="capsule" fromto="0 0 0 0.09 0 0" material="self"/>
        <body name="hand" pos="0.09 0 0">
          <joint name="wrist" limited="true" range="-80 80"/>
          <geom name="hand" type="capsule" fromto="0 0 0 0.1 0 0" material="self"/>
          <body name="finger" pos="0.09 0 0"><geom name="finger" type="sphere" material="effector"/></body>
        </body>
      </body>
    </body>
    <geom name="target" pos="0 0 0.01" type="sphere" size="0.05" material="target"/>
  </worldbody>
  <actuator>
    <motor name="shoulder0" joint="shoulder0"/><motor name="shoulder1" joint="shoulder1"/><motor name="wrist" joint="wrist"/>
  </actuator>
</mujoco>
"""


def _on(module, task, *, seconds: float, control: float | None, physics=None) -> Environment:
    physics = physics or module.Physics.from_xml_string(*module.get_model_and_assets())
    return Environment(physics, task, time_limit=seconds, control_timestep=control)


def _walker(speed: float) -> Environment:
    return _on(walker, BackwardsWalker(speed, random=0), seconds=25, control=0.025)


def _cheetah(task: cheetah.Cheetah) -> Environment:
    return _on(cheetah, task, seconds=10, control=None)


def _three_links(target: float) -> Environment:
    physics = reacher.Physics.from_xml_string(THREE_LINKS, common.ASSETS)
    return _on(reacher, reacher.Reacher(target, random=0), seconds=20, control=None, physics=physics)


CUSTOM_TASKS = {
    "walker-walk-backwards": lambda: _walker(1),
    "walker-run-backwards": lambda: _walker(8),
    "cheetah-run-backwards": lambda: _cheetah(BackwardsCheetah(random=0)),
    "cheetah-run-front": lambda: _cheetah(OneLegCheetah("bfoot", random=0)),
    "cheetah-run-back": lambda: _cheetah(OneLegCheetah("ffoot", random=0)),
    "cheetah-jump": lambda: _cheetah(JumpingCheetah(random=0)),
    "hopper-hop-backwards": lambda: _on(hopper, BackwardsHopper(hopping=True, random=0), seconds=20, control=0.02),
    "reacher-three-easy": lambda: _three_links(0.05),
    "reacher-three-hard": lambda: _three_links(0.015),
    "cup-spin": lambda: _on(ball_in_cup, SpinningBall(random=0), seconds=20, control=0.02),
    "pendulum-spin": lambda: _on(pendulum, SpinningPendulum(random=0), seconds=20, control=None),
}
"""Name -> what makes its dm_control environment."""
