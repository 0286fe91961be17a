"""A batch of environments with a state of their own, and the same dynamics as a pure function."""

from typing import Any

import torch
from torch import Tensor

from pwmlib.sim.engine.bridge import Simulator, Step
from pwmlib.sim.engine.model import Model
from pwmlib.sim.engine.rules import ended, exploded, split
from pwmlib.sim.engine.scalars import from_columns

from .registry import EnvSpec, env_spec

__all__ = ["DifferentiableEnv", "EnvDynamics"]


class _World:
    """A robot on the simulator. A state that explodes ends with reward 0 and without a gradient; `simulator.counters` counts it."""

    _resets = False

    def __init__(
        self, name: str | EnvSpec = "hopper", count: int | None = None, *, episode_length: int | None = None, variant: str = "paper",
        stiffness: float = 1.0, substeps: int | None = None, interval: int | None = None, seed: int = 0, threads: int = 1,
        device: str | torch.device | None = None,
    ):  # fmt: skip
        self.spec = spec = env_spec(name, substeps=substeps, interval=interval, count=count, episode_length=episode_length)
        if not self._resets and episode_length is not None:
            raise ValueError(f"EnvDynamics: no episode ends here; episode_length must be left out, got {episode_length}")
        if self._resets and spec.episode_length < 1:
            raise ValueError(f"DifferentiableEnv: episode_length must be at least 1, got {spec.episode_length}")
        self.rules = spec.rules(variant)
        self.name = self.rules.model.name
        self.simulator = Simulator(
            self.rules, spec.count, substeps=spec.substeps, interval=spec.interval, seed=seed, threads=threads, device=device,
            episode_length=spec.episode_length if self._resets else 0, material=self.rules.model.material.scaled(stiffness),
        )  # fmt: skip
        self.count, self.state_dim = spec.count, self.simulator.state_dim
        self.action_dim, self.obs_dim = self.rules.action_dim, self.rules.obs_dim
        if self._resets:
            self.state, self._obs = self.simulator.start()

    @property
    def model(self) -> Model:
        """The robot's tables."""
        return self.rules.model


class DifferentiableEnv(_World):
    """`count` copies of an environment in lock-step, differentiable from action to observation and reward.

        env = DifferentiableEnv("hopper", count=64)
        obs = env.reset()
        step = env.step(policy(obs))          # step.obs, step.reward, step.terminated, step.truncated, step.final_obs
        ...
        env.detach()                          # cuts the graph, e.g. after every 16 steps

    A state that explodes ends its episode with reward 0 and without a gradient, and is counted in `simulator.counters["exploded"]`.

    Args:
        name: one of `ENVS`, or an `EnvSpec` of your own.
        count: how many; the number that the paper trains with by default.
        episode_length: control steps of an episode; the environment's own by default.
        variant: "paper" (Table 2) or "released": constants and reward timing of the released environments; see each rules class.
        stiffness: multiplies the contact's ke and kd (Fig. 7a).
        substeps: of a control step; fewer than `interval` lower that as well.
        interval: substeps between updates of the mass matrix; 1 is exact.
        seed: of the reset states.
        threads: CPU threads that share the environments.
        device: torch's default device by default.

    Raises:
        ValueError: an option is unknown or out of range.
    """

    _resets = True

    def reset(self, *, seed: int | None = None, spread: bool = False) -> Tensor:
        """Begin new episodes everywhere; returns observations [count, obs_dim].

        Args:
            seed: draw the reset states anew.
            spread: let the episodes begin at different ages, so that they do not all reach their length in the same step.
        """
        if seed is not None:
            self.simulator.seed(seed)
        self.state, self._obs = self.simulator.start()
        if spread:
            ages = torch.arange(self.count, device=self.state.device) * self.spec.episode_length // self.count
            self.simulator.counters["steps"].copy_(ages.int())
        return self._obs

    def step(self, action: Tensor) -> Step:
        """Take one control step of 1/60 s with automatic reset; action: [count, action_dim], clipped to [-1, 1].

        Raises:
            ValueError: an action is not finite; not on a GPU, which would have to be waited for: there its episode ends.
        """
        if not action.is_cuda and not torch.isfinite(action).all():
            where = tuple((~torch.isfinite(action)).nonzero()[0].tolist())
            raise ValueError(f"{self.name}: actions must be finite, got {action[where].item()} at {where}")
        step = self.simulator.step(self.state, action)
        self.state, self._obs = step.state, step.obs
        return step

    def state_dict(self) -> dict[str, Any]:
        """Say where the environments are: states, observations and counters."""
        counters = {name: x.clone() for name, x in self.simulator.counters.items()}
        return {"state": self.state.detach(), "obs": self._obs.detach(), "counters": counters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where another environment of the same seed was."""
        self.state, self._obs = (state[name].to(self.simulator.device, copy=True) for name in ("state", "obs"))
        for name, values in state["counters"].items():
            self.simulator.counters[name].copy_(values)

    def detach(self) -> Tensor:
        """Forget the graph so far; returns the current observations."""
        self.state, self._obs = self.state.detach(), self._obs.detach()
        return self._obs


class EnvDynamics(_World):
    """The environment's dynamics as `pwmlib.model.dynamics.Dynamics`: a state is (q, qd), nothing is ever reset.

    `advance` runs the kernels on `count` states at a time; any batch is cut and filled up to that. `reward`, `done` and `observe` are
    plain torch. A state that exploded (it is no finite number any more) is an end with reward 0 and without a gradient.
    Arguments are those of `DifferentiableEnv`, without the length of an episode.
    """

    def reset(self) -> Tensor:
        """Draw start states [count, state_dim] from the environment's reset distribution."""
        return self.simulator.start()[0]

    def observe(self, state: Tensor) -> Tensor:
        """Observe states [..., state_dim], with zeros for the last action; [..., obs_dim]."""
        return self.simulator.observe(state)

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """Take one control step from states [batch, state_dim] with actions [batch, action_dim]."""
        if len(state) == self.count:
            return self.simulator.step(state, action).state
        parts = []
        for s, a in zip(state.split(self.count), action.split(self.count), strict=True):
            missing = self.count - len(s)
            if missing:  # the last part is filled up with copies of its first row
                s, a = (torch.cat([x, x[:1].detach().expand(missing, -1)]) for x in (s, a))
            parts.append(self.simulator.step(s, a).state[: self.count - missing])
        return torch.cat(parts)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """Give the rewards of transitions, [...]."""
        lost = exploded(next_state)
        state, action, next_state = (torch.where(lost[..., None], torch.zeros_like(x), x) for x in (state, action, next_state))
        columns = from_columns(action.clamp(-1, 1))
        reward = torch.as_tensor(self.rules.reward(*split(self.model, state), columns, *split(self.model, next_state)))
        return torch.where(lost, torch.zeros_like(reward), reward)

    def done(self, next_state: Tensor) -> Tensor:
        """Tell in which states an episode terminates, bool [...]."""
        return ended(self.rules, next_state)
