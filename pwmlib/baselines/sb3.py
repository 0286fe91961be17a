"""PPO and SAC of stable-baselines3 on the differentiable environments, as learners that a run can interrupt and continue."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from pwmlib.errors import check_finite, one_of, restored_on_failure
from pwmlib.sim.env import DifferentiableEnv
from pwmlib.sim.gym import spaces

from .sb3_config import SB3Config

__all__ = ["SB3Env", "SB3Learner"]


_LAST = ("_last_obs", "_last_original_obs", "_last_episode_starts")
_BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class SB3Env(VecEnv):
    """A `DifferentiableEnv` as stable-baselines3's vector environment; its gradients are not used."""

    _action: Tensor

    def __init__(self, env: DifferentiableEnv):
        self.env = env
        super().__init__(env.count, *spaces(env))

    def reset(self) -> np.ndarray:
        """Begin new episodes at different ages; returns observations [n, obs_dim]."""
        seed = next((s for s in self._seeds if s is not None), None)
        self._reset_seeds()
        return self.env.reset(seed=seed, spread=True).cpu().numpy()

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions [n, action_dim] of the next step."""
        self._action = torch.as_tensor(np.asarray(actions, np.float32), device=self.env.simulator.device)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Take that step; returns observations, rewards, ends and what ended episodes saw last."""
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
        """Do nothing: there is nothing to close."""

    def get_attr(self, attr_name: str, indices: int | Sequence[int] | None = None) -> list[Any]:
        """Return the batch's attribute once for each environment."""
        value = None if attr_name == "render_mode" else getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: int | Sequence[int] | None = None) -> None:
        """Raise NotImplementedError."""
        raise NotImplementedError(f"SB3Env: the environments are one batch; {attr_name!r} cannot be set in some of them")

    def env_method(self, method_name: str, *args: Any, indices: int | Sequence[int] | None = None, **kwargs: Any) -> list[Any]:
        """Raise NotImplementedError."""
        raise NotImplementedError(f"SB3Env: the environments are one batch; {method_name!r} cannot be called on some of them")

    def env_is_wrapped(self, wrapper_class: type, indices: int | Sequence[int] | None = None) -> list[bool]:
        """Say that no environment is wrapped."""
        return [False for _ in self._get_indices(indices)]


class SB3Learner:
    """Learns by PPO (with normalised observations and rewards) or SAC; `state_dict` continues it bit-identically."""

    def __init__(self, algorithm: Literal["ppo", "sac"], env: DifferentiableEnv, config: SB3Config | None = None, *, seed: int = 0):
        c = self.config = config or SB3Config()
        self.algorithm = one_of(algorithm, ("ppo", "sac"), "SB3Learner: algorithm")
        self.env, self.seed, self.step = env, seed, 0
        self.normalised = VecNormalize(SB3Env(env), norm_obs=True, norm_reward=algorithm == "ppo", gamma=c.gamma)
        device, nets = env.simulator.device, {"net_arch": list(c.hidden)}
        self.model: PPO | SAC
        if algorithm == "ppo":
            self.model = PPO(
                "MlpPolicy", self.normalised, learning_rate=c.lr, n_steps=c.steps, batch_size=min(c.minibatch, c.steps * env.count),
                n_epochs=c.epochs, gamma=c.gamma, gae_lambda=c.lam, ent_coef=c.entropy, policy_kwargs=nets, seed=seed, device=device,
            )  # fmt: skip
        else:
            self.model = SAC(
                "MlpPolicy", self.normalised, learning_rate=c.lr, buffer_size=c.buffer, learning_starts=10 * env.count, batch_size=c.batch,
                gamma=c.gamma, train_freq=1, gradient_steps=c.gradient_steps, policy_kwargs=nets, seed=seed, device=device,
            )  # fmt: skip
        self.model.set_logger(Logger(folder=None, output_formats=[]))  # its own would leave a folder in the system's temporary one
        torch_state = torch.get_rng_state()
        torch.manual_seed(seed)
        self._torch = torch.get_rng_state()
        torch.set_rng_state(torch_state)
        self._numpy = np.random.RandomState(seed).get_state(legacy=False)
        self._begun = False

    def update(self) -> dict[str, float]:
        """Take `steps` steps of every environment and train on them; returns scalars to log, and raises NonFiniteError."""
        with restored_on_failure(self, rows=False), self._replaced_rows_kept():
            metrics = self._update()
        self.step += 1
        return metrics

    def _update(self) -> dict[str, float]:
        outside = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002
        torch.set_rng_state(self._torch)
        np.random.set_state(self._numpy)  # noqa: NPY002
        try:
            steps = self.config.steps * self.env.count
            rate = self.learning_rate()
            self.model.lr_schedule = lambda _: rate  # its own would count from the beginning of each learn()
            self.model.learn(steps, reset_num_timesteps=not self._begun, log_interval=sys.maxsize)
            self._begun = True
        finally:
            self._torch, self._numpy = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002
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
        kept = []
        if sac := self._sac():
            buffer, _ = sac
            rows = (buffer.pos + np.arange(self.config.steps)) % buffer.buffer_size
            kept = [(getattr(buffer, name), rows, getattr(buffer, name)[rows]) for name in _BUFFER]
        try:
            yield
        except BaseException:
            for array, rows, before in kept:
                array[rows] = before
            raise

    def learning_rate(self) -> float:
        """Return the learning rate of the next update."""
        c = self.config
        return c.lr if c.final_lr is None else c.lr + (c.final_lr - c.lr) * min(1.0, self.step / c.updates)

    @torch.no_grad()
    def actor(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Act deterministically on observations [n, obs_dim]."""
        normal = self.normalised.normalize_obs(obs.cpu().numpy())
        action, _ = self.model.predict(normal, deterministic=True)
        return torch.as_tensor(action, device=obs.device)

    def state_dict(self, *, rows: bool = True) -> dict[str, Any]:
        """Return everything that the next update depends on; without the `rows` of SAC's replay, only how many there are."""
        m, n = self.model, self.normalised
        moments = {
            name: {"mean": _tensor(rms.mean), "var": _tensor(rms.var), "count": float(rms.count)} for name, rms in self._moments().items()
        }
        held = {name: _tensor(getattr(m, name)) for name in _LAST if getattr(m, name, None) is not None}
        counters = {"num_timesteps": m.num_timesteps, "n_updates": m._n_updates, "step": self.step, "begun": self._begun}
        key, position = self._numpy["state"]["key"], self._numpy["state"]["pos"]
        state = {
            "policy": m.policy.state_dict(), "optimisers": [o.state_dict() for o in self._optimisers()], "moments": moments,
            "returns": _tensor(n.returns), "held": held, "counters": counters, "env": self.env.state_dict(),
            "torch": self._torch, "numpy": {"key": _tensor(key.astype(np.int64)), "pos": int(position)},
        }  # fmt: skip
        if sac := self._sac():
            buffer, log_weight = sac
            size = buffer.buffer_size if buffer.full else buffer.pos
            arrays = {name: _tensor(getattr(buffer, name)[:size]) for name in _BUFFER} if rows else {}
            state["replay"] = {"arrays": arrays, "pos": buffer.pos, "full": buffer.full}
            state["log_ent_coef"] = log_weight.detach().clone()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`; without a "replay" (of a run that is over) the policy can act."""
        m, n = self.model, self.normalised
        if state["counters"]["begun"] and not self._begun:
            m._setup_learn(0, None, reset_num_timesteps=True)  # what learn() prepares on its first call
        m.policy.load_state_dict(state["policy"])
        if sac := self._sac():
            buffer, log_weight = sac
            with torch.no_grad():
                log_weight.copy_(state["log_ent_coef"])
            if "replay" in state:  # the policy of a run that is over acts without it
                saved = state["replay"]
                for name, rows in saved["arrays"].items():
                    getattr(buffer, name)[: len(rows)] = rows.numpy()
                buffer.pos, buffer.full = int(saved["pos"]), bool(saved["full"])
        for optimiser, saved in zip(self._optimisers(), state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        for name, rms in self._moments().items():
            rms.mean, rms.var = (np.array(state["moments"][name][k]) for k in ("mean", "var"))
            rms.count = state["moments"][name]["count"]
        n.returns = np.array(state["returns"])
        for name, value in state["held"].items():
            setattr(m, name, np.array(value))
        c = state["counters"]
        m.num_timesteps, m._n_updates = int(c["num_timesteps"]), int(c["n_updates"])
        self.step, self._begun = int(c["step"]), bool(c["begun"])
        if not self._begun:
            self.normalised.seed(self.seed)  # the reset that begins the first update uses it up
        self.env.load_state_dict(state["env"])
        self._torch = state["torch"]
        saved = {"key": np.array(state["numpy"]["key"], dtype=np.uint32), "pos": int(state["numpy"]["pos"])}
        self._numpy = {"bit_generator": "MT19937", "state": saved, "has_gauss": 0, "gauss": 0.0}

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        m = self.model
        found = [m.policy.optimizer] if isinstance(m, PPO) else [m.actor.optimizer, m.critic.optimizer, m.ent_coef_optimizer]
        return [x for x in found if x is not None]

    def _sac(self) -> tuple[ReplayBuffer, Tensor] | None:
        """SAC's replay and the logarithm of its entropy's weight; None for PPO."""
        m = self.model
        if not isinstance(m, SAC) or m.replay_buffer is None or m.log_ent_coef is None:
            return None
        return m.replay_buffer, m.log_ent_coef

    def _moments(self) -> dict[str, RunningMeanStd]:
        """By which observations and rewards are normalised."""
        found = {"obs": self.normalised.obs_rms, "ret": self.normalised.ret_rms}
        return {name: rms for name, rms in found.items() if isinstance(rms, RunningMeanStd)}


def _tensor(array: np.ndarray) -> Tensor:
    """A copy, as checkpoints keep it."""
    return torch.from_numpy(np.array(array))
