"""PPO and SAC of stable-baselines3 on the differentiable environments, as learners that a run can interrupt and continue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from pwmlib.errors import check_finite, restored_on_failure
from pwmlib.sim.env import DifferentiableEnv
from pwmlib.sim.gym import spaces

from .sb3_config import SB3Config

__all__ = ["SB3Env", "SB3Learner"]


_LAST = ("_last_obs", "_last_original_obs", "_last_episode_starts")
_BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class SB3Env(VecEnv):
    """A `DifferentiableEnv` as stable-baselines3's vector environment; its gradients are not used."""

    def __init__(self, env: DifferentiableEnv):
        self.env, self._action = env, None
        super().__init__(env.count, *spaces(env))

    def reset(self) -> np.ndarray:
        seed = next((s for s in self._seeds if s is not None), None)
        self._reset_seeds()
        return self.env.reset(seed=seed, spread=True).cpu().numpy()

    def step_async(self, actions: np.ndarray) -> None:
        self._action = torch.as_tensor(np.asarray(actions, np.float32), device=self.env.simulator.device)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        with torch.no_grad():
            step = self.env.step(self._action)
        terminated, truncated = step.terminated.cpu().numpy(), step.truncated.cpu().numpy()
        ended, infos = terminated | truncated, [{} for _ in range(self.num_envs)]
        if ended.any():
            final = step.final_obs.cpu().numpy()
            for i in np.flatnonzero(ended):
                infos[i] = {"terminal_observation": final[i], "TimeLimit.truncated": bool(truncated[i] and not terminated[i])}
        return step.obs.cpu().numpy(), step.reward.cpu().numpy(), ended, infos

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: int | Sequence[int] | None = None) -> list[Any]:
        value = None if attr_name == "render_mode" else getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: int | Sequence[int] | None = None) -> None:
        raise NotImplementedError(f"SB3Env: the environments are one batch; {attr_name!r} cannot be set in some of them")

    def env_method(self, method_name: str, *args: Any, indices: int | Sequence[int] | None = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError(f"SB3Env: the environments are one batch; {method_name!r} cannot be called on some of them")

    def env_is_wrapped(self, wrapper_class: type, indices: int | Sequence[int] | None = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


class SB3Learner:
    """PPO (with normalised observations and rewards) or SAC; `state_dict` continues it bit-identically."""

    def __init__(self, algorithm: Literal["ppo", "sac"], env: DifferentiableEnv, config: SB3Config | None = None, *, seed: int = 0):
        c = self.config = config or SB3Config()
        self.algorithm, self.env, self.seed, self.step = algorithm, env, seed, 0
        self.normalised = VecNormalize(SB3Env(env), norm_obs=True, norm_reward=algorithm == "ppo", gamma=c.gamma)
        common = {"seed": seed, "gamma": c.gamma, "learning_rate": c.lr, "device": env.simulator.device}
        nets = {"policy_kwargs": {"net_arch": list(c.hidden)}}
        if algorithm == "ppo":
            self.model = PPO(
                "MlpPolicy", self.normalised, n_steps=c.steps, batch_size=min(c.minibatch, c.steps * env.count), n_epochs=c.epochs,
                gae_lambda=c.lam, ent_coef=c.entropy, **common, **nets,
            )  # fmt: skip
        elif algorithm == "sac":
            self.model = SAC(
                "MlpPolicy", self.normalised, train_freq=1, gradient_steps=c.gradient_steps, batch_size=c.batch, buffer_size=c.buffer,
                learning_starts=10 * env.count, **common, **nets,
            )  # fmt: skip
        else:
            raise ValueError(f"SB3Learner: algorithm must be 'ppo' or 'sac', got {algorithm!r}")
        self.model.set_logger(Logger(folder=None, output_formats=[]))  # its own would leave a folder in the system's temporary one
        torch_state = torch.get_rng_state()
        torch.manual_seed(seed)
        self._torch = torch.get_rng_state()
        torch.set_rng_state(torch_state)
        self._numpy = np.random.RandomState(seed).get_state()
        self._begun = False

    def update(self) -> dict[str, float]:
        """`steps` steps of every environment and their training. Returns scalars to log; raises NonFiniteError."""
        with restored_on_failure(self, rows=False), self._replaced_rows_kept():
            metrics = self._update()
        self.step += 1
        return metrics

    def _update(self) -> dict[str, float]:
        outside = (torch.get_rng_state(), np.random.get_state())  # noqa: NPY002
        torch.set_rng_state(self._torch)
        np.random.set_state(self._numpy)  # noqa: NPY002
        try:
            steps = self.config.steps * self.env.count
            rate = self.learning_rate()
            self.model.lr_schedule = lambda _: rate  # its own would count from the beginning of each learn()
            self.model.learn(steps, reset_num_timesteps=not self._begun, log_interval=None)
            self._begun = True
        finally:
            self._torch, self._numpy = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
            torch.set_rng_state(outside[0])
            np.random.set_state(outside[1])  # noqa: NPY002
        logged = self.model.logger.name_to_value
        metrics = {name.split("/")[-1]: float(v) for name, v in logged.items() if name.startswith("train/")}
        metrics["critic_loss"] = metrics.get("value_loss", metrics.get("critic_loss", 0.0))
        check_finite(self.step + 1, **{k: v for k, v in metrics.items() if k.endswith("loss")})
        return metrics

    @contextmanager
    def _replaced_rows_kept(self) -> Iterator[None]:
        """Put the rows of SAC's replay that the next update replaces back when an error leaves the block."""
        buffer = getattr(self.model, "replay_buffer", None)
        rows = (buffer.pos + np.arange(self.config.steps)) % buffer.buffer_size if buffer else []
        before = {name: getattr(buffer, name)[rows] for name in _BUFFER} if buffer else {}
        try:
            yield
        except BaseException:
            for name, kept in before.items():
                getattr(buffer, name)[rows] = kept
            raise

    def learning_rate(self) -> float:
        """Of the next update."""
        c = self.config
        return c.lr if c.final_lr is None else c.lr + (c.final_lr - c.lr) * min(1.0, self.step / c.updates)

    @torch.no_grad()
    def actor(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """The deterministic policy on observations [n, obs_dim]."""
        normal = self.normalised.normalize_obs(obs.cpu().numpy())
        action, _ = self.model.predict(normal, deterministic=True)
        return torch.as_tensor(action, device=obs.device)

    def state_dict(self, *, rows: bool = True) -> dict[str, Any]:
        """Everything that the next update depends on; without the rows of SAC's replay, only how many there are."""
        m, n = self.model, self.normalised
        moments = {
            name: {"mean": _tensor(rms.mean), "var": _tensor(rms.var), "count": float(rms.count)}
            for name, rms in (("obs", n.obs_rms), ("ret", n.ret_rms))
        }
        held = {name: _tensor(getattr(m, name)) for name in _LAST if getattr(m, name, None) is not None}
        counters = {"num_timesteps": m.num_timesteps, "n_updates": m._n_updates, "step": self.step, "begun": self._begun}
        state = {
            "policy": m.policy.state_dict(), "optimisers": [o.state_dict() for o in self._optimisers()], "moments": moments,
            "returns": _tensor(n.returns), "held": held, "counters": counters, "env": self.env.state_dict(),
            "torch": self._torch, "numpy": {"key": _tensor(self._numpy[1].astype(np.int64)), "pos": int(self._numpy[2])},
        }  # fmt: skip
        if self.algorithm == "sac":
            buffer = m.replay_buffer
            size = buffer.buffer_size if buffer.full else buffer.pos
            arrays = {name: _tensor(getattr(buffer, name)[:size]) for name in _BUFFER} if rows else {}
            state["replay"] = {"arrays": arrays, "pos": buffer.pos, "full": buffer.full}
            state["log_ent_coef"] = m.log_ent_coef.detach().clone()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        m, n = self.model, self.normalised
        if state["counters"]["begun"] and not self._begun:
            m._setup_learn(0, None, reset_num_timesteps=True)  # what learn() prepares on its first call
        m.policy.load_state_dict(state["policy"])
        if self.algorithm == "sac":
            with torch.no_grad():
                m.log_ent_coef.copy_(state["log_ent_coef"])
            if "replay" in state:  # the policy of a run that is over acts without it
                buffer, saved = m.replay_buffer, state["replay"]
                for name, rows in saved["arrays"].items():
                    getattr(buffer, name)[: len(rows)] = rows.numpy()
                buffer.pos, buffer.full = int(saved["pos"]), bool(saved["full"])
        for optimiser, saved in zip(self._optimisers(), state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        for name, rms in (("obs", n.obs_rms), ("ret", n.ret_rms)):
            rms.mean, rms.var = (np.array(state["moments"][name][k]) for k in ("mean", "var"))
            rms.count = state["moments"][name]["count"]
        n.returns = np.array(state["returns"])
        for name, value in state["held"].items():
            setattr(m, name, np.array(value))
        c = state["counters"]
        m.num_timesteps, m._n_updates, self.step, self._begun = (
            int(c["num_timesteps"]),
            int(c["n_updates"]),
            int(c["step"]),
            bool(c["begun"]),
        )
        if not self._begun:
            self.normalised.seed(self.seed)  # the reset that begins the first update uses it up
        self.env.load_state_dict(state["env"])
        self._torch = state["torch"]
        self._numpy = ("MT19937", np.array(state["numpy"]["key"], dtype=np.uint32), int(state["numpy"]["pos"]), 0, 0.0)

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        m = self.model
        return [m.policy.optimizer] if self.algorithm == "ppo" else [m.actor.optimizer, m.critic.optimizer, m.ent_coef_optimizer]


def _tensor(array: np.ndarray) -> Tensor:
    """A copy, as checkpoints keep it."""
    return torch.from_numpy(np.array(array))
