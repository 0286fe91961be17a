"""Sampling-based planning on the true simulator: where the better dm_control episodes come from.

MPPI (Williams et al. 2017) over linear splines of actions, all samples of a decision in one call of `mujoco.rollout`, on a coarser copy of
the task's model. It reads the simulator's state, which no learned policy can; what is recorded are observations and actions.
"""

# pyright: reportAttributeAccessIssue=false
# Most of what `mujoco` holds is in compiled modules without types.

import importlib
import warnings
from dataclasses import replace

import mujoco
import numpy as np
from mujoco import rollout

from pwmlib.settings import Count, NonNegative, SettingError, Several, settings

from .dm_control_custom import THREE_LINKS
from .environment import DMControl
from .planning_rewards import EXTRA_SENSORS, PLANNING_REWARDS

__all__ = ["PLANNERS", "SamplingPlanner", "SplineConfig"]


@settings
class SplineConfig:
    """Settings of one planner; times are in decisions."""

    horizon: Several
    knots: Several
    samples: Count = 32
    noise: NonNegative = 0.6
    coarser: Count = 1
    """Physics step of the planning model in steps of the task's."""
    keep: Count = 2
    """Decisions taken from a plan before the next one."""
    elites: Count = 4

    def __post_init__(self) -> None:
        if self.elites > self.samples:
            raise SettingError("elites", self.elites, f"must be at most samples={self.samples}")


PLANNERS: dict[str, SplineConfig] = {
    "walker": SplineConfig(18, 6, samples=32, coarser=2, keep=1),
    "cheetah": SplineConfig(20, 8, samples=64, keep=1),
    "reacher": SplineConfig(16, 5, keep=1),
    "acrobot": SplineConfig(60, 8, samples=64, keep=1),
    "pendulum": SplineConfig(40, 8),
    "cartpole": SplineConfig(50, 8, coarser=2, keep=1),
    "ball_in_cup": SplineConfig(20, 7, samples=48, coarser=4),
    "finger": SplineConfig(16, 6, samples=64, keep=1),
    "fish": SplineConfig(14, 5, samples=24, coarser=2),
    "hopper": SplineConfig(24, 8, samples=48, coarser=2),
}
"""By domain."""

_COPIED = ("geom_pos", "geom_size", "site_pos", "site_size", "dof_damping", "body_pos")
"""What tasks write into their model at a reset."""


class SamplingPlanner:
    """Plans one episode of a task after the other; call `begin` after each reset, then `act` once a decision.

    share: of its domain's samples; fewer make a worse planner, for data of mixed quality.
    """

    def __init__(self, env: DMControl, *, rng: np.random.Generator, share: float = 1.0):
        own = PLANNERS[env.task.domain]
        self.env, self.rng, self.config = env, rng, replace(own, samples=max(8, round(share * own.samples)))
        self._physics = env.physics
        self._model = _planning_model(env, self.config.coarser)
        self._data = mujoco.MjData(self._model)
        self._substeps = max(1, round(2 * env.control_timestep / self._model.opt.timestep))
        self._sensors = {
            self._model.sensor(i).name: slice(a := self._model.sensor_adr[i], a + self._model.sensor_dim[i])
            for i in range(self._model.nsensor)
        }
        self.begin()

    def begin(self) -> None:
        """Forget the plan; take over what the reset drew."""
        self._plan = np.zeros((self.config.knots, self.env.task.action_dim))
        self._age = self.config.keep
        for name in _COPIED:
            getattr(self._model, name)[:] = getattr(self._physics.model.ptr, name)

    def act(self) -> np.ndarray:
        """Return the next action, [action_dim]."""
        if self._age >= self.config.keep:
            self._improve()
            self._age = 0
        action = self._at(self._plan, np.array([self._age]))[0]
        self._age += 1
        return np.clip(action, -1.0, 1.0)

    def _improve(self) -> None:
        c = self.config
        # The plan moves on by the decisions taken.
        mean = self._at(self._plan, np.minimum(np.linspace(0, c.horizon - 1, c.knots) + self._age, c.horizon - 1))
        # Half of the samples look near the plan, so that it can settle as well as change.
        scale = c.noise * np.where(np.arange(c.samples) % 2, 1.0, 0.25)[:, None, None]
        plans = mean + scale * self.rng.standard_normal((c.samples, *mean.shape))
        plans[c.samples - c.samples // 8 :] -= mean
        plans = np.clip(plans, -1.0, 1.0)
        plans[0] = mean
        returns = self._returns(self._at(plans, np.arange(c.horizon)))
        best = np.argsort(returns)[-c.elites :]
        spread = max(returns[best[-1]] - returns[best[0]], 1e-6)
        weights = np.exp((returns[best] - returns[best[-1]]) / (0.3 * spread))
        self._plan = np.einsum("k,kna->na", weights / weights.sum(), plans[best])

    def _at(self, plans: np.ndarray, decisions: np.ndarray) -> np.ndarray:
        """Linear interpolation of knots [..., knots, action] at decisions [n]; returns [..., n, action]."""
        place = decisions * (self.config.knots - 1) / (self.config.horizon - 1)
        low = np.minimum(place.astype(int), self.config.knots - 2)
        share = (place - low)[:, None]
        return (1 - share) * plans[..., low, :] + share * plans[..., low + 1, :]

    def _returns(self, actions: np.ndarray) -> np.ndarray:
        """Mean planning reward of actions [samples, decisions, action] from the simulator's present state; [samples]."""
        samples = len(actions)
        kind = mujoco.mjtState.mjSTATE_FULLPHYSICS
        start = np.empty(mujoco.mj_stateSize(self._model, kind))
        mujoco.mj_getState(self._physics.model.ptr, self._physics.data.ptr, start, kind)
        controls = np.repeat(actions, self._substeps, axis=1)
        simulated = rollout.rollout(self._model, self._data, np.tile(start, (samples, 1)), controls)
        states, sensed = (np.asarray(x)[:, self._substeps - 1 :: self._substeps] for x in simulated)
        nq, nv = self._model.nq, self._model.nv
        found = {"qpos": states[..., 1 : 1 + nq], "qvel": states[..., 1 + nq : 1 + nq + nv]}
        found |= {name: sensed[..., place] for name, place in self._sensors.items()}
        rewards = PLANNING_REWARDS[self.env.task.domain](self.env.task.name, found)
        return np.nan_to_num(rewards, nan=-10.0).mean(1)


def _planning_model(env: DMControl, coarser: int) -> mujoco.MjModel:
    """The task's model with the sensors that its planning reward reads, a longer step, and Euler's integrator."""
    domain = env.task.domain
    if "three" in env.task.name:
        from dm_control.suite import common

        xml, assets = THREE_LINKS, common.ASSETS
    else:
        xml, assets = importlib.import_module(f"dm_control.suite.{domain}").get_model_and_assets()
    plain = {name: value if isinstance(value, bytes) else value.encode() for name, value in assets.items()}
    spec = mujoco.MjSpec.from_string(xml if isinstance(xml, str) else xml.decode(), include=plain)
    for kind, of, name in EXTRA_SENSORS.get(domain, ()):
        sensor, what = getattr(mujoco.mjtSensor, f"mjSENS_{kind.upper()}"), getattr(mujoco.mjtObj, f"mjOBJ_{of.upper()}")
        spec.add_sensor(name=f"{kind} {name}", type=sensor, objtype=what, objname=name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a deprecated attribute in dm_control's cheetah, at every compilation
        model = spec.compile()
    model.opt.timestep *= coarser
    if model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4:
        model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    return model
