"""Algorithm 1: a policy by first-order gradients through frozen dynamics (Eq. 6-9)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pwmlib.continuation import Continued
from pwmlib.errors import check_finite, one_of, restored_on_failure
from pwmlib.model.dynamics import Dynamics, Episodes
from pwmlib.model.layers import Activation, NormOrder, RunningMoments
from pwmlib.model.training import Variant, gradient_step
from pwmlib.settings import Beta, Count, Fraction, NonNegative, Positive, Real, SettingError, settings

from .actor_critic import MIN_LOG_STD, Actor, Critics
from .imagination import Rollout, actor_returns, critic_targets, imagine

__all__ = ["PWM", "PWMConfig", "StartStates"]

StartStates = Callable[[int, torch.Generator], Tensor]
"""(batch, generator) -> start states [batch, state_dim]."""

LATER = {"later": True}  # at their default such fields change no run's name


@settings
class PWMConfig:
    """Settings of policy extraction, by default the paper's; `variant("released")` sets every switch to the public code's choice.

    Where the paper is silent (Adam's betas, learning-rate decay, initial standard deviation) the default is the released value.
    """

    updates: Count = 10_000
    """Policy updates N; learning rates decay over them."""
    horizon: Count = 16
    batch: Count = 64
    """Imagined trajectories per update (Table 1). Released multi-task configuration: 512."""
    gamma: Fraction = 0.99
    lam: Fraction = 0.95
    actor_lr: Positive = 5e-4
    critic_lr: Positive = 5e-4
    final_lr: NonNegative = 1e-5
    lr_schedule: Literal["linear", "constant"] = "linear"
    betas: tuple[Beta, Beta] = (0.7, 0.95)
    actor_grad_norm: Positive = 1.0
    critic_grad_norm: Positive = 100.0
    actor_hidden: tuple[Count, ...] = (400, 200, 100)
    critic_hidden: tuple[Count, ...] = (400, 200)
    critics: Count = 3
    activation: Activation = "mish"
    norm_order: NormOrder = "before_activation"
    """"LayerNorm and Mish" (paper). Released actor and critics: Linear-Mish-LayerNorm, "after_activation"."""
    log_std_init: Real = -1.0
    min_log_std: Real = MIN_LOG_STD
    actor_objective: Literal["n_step", "td_lambda"] = "n_step"
    """Eq. 6, or the lambda-return of Fig. 19."""
    terminal_discount: Literal["gamma^H", "gamma^(H+1)"] = "gamma^H"
    """Weight of V(z_H) in Eq. 6. Released: gamma^(H+1), because gamma is advanced once too often."""
    detach_policy_input: bool = False
    """Full first-order gradient (Eq. 3). Released: the actor sees sg(z), which drops da/dz."""
    actor_loss_scale: Literal["none", "horizon"] = "none"
    """Released: the mean return is divided by H."""
    return_scaling: Literal["none", "running_std"] = "none"
    """Released: returns divided by a cumulative running standard deviation (ret_rms), instead of by H."""
    reward_symexp: bool = False
    """Optimise rewards in their own units instead of symlog space. The paper omits SymExp "since it is not differentiable"; it is."""
    critic_target: Literal["td_lambda", "td0"] = "td_lambda"
    """Eq. 7-8. Released multi-task code: one-step targets, since its done mask is all ones."""
    critic_value: Literal["mean", "min"] = "mean"
    """How 3 critics give one value: "to reduce variance" (paper), or the minimum (released)."""
    critic_loss: Literal["sum", "mean"] = "sum"
    """Eq. 9 sums over time and critics; released: mean over both."""
    critic_iterations: Count = 8
    critic_minibatches: Count = 4
    critic_sampling: Literal["uniform", "time_blocks", "shuffled"] = "uniform"
    """8 gradient steps, each on a uniform sample of a quarter of the data (paper); or 8 passes over 4 unshuffled blocks of time steps,
    32 gradient steps (released); or passes over the shuffled data in parts (SHAC)."""
    continued: Fraction = 0.0
    """Share of the imagined trajectories that go on from where those of the last update ended, instead of from replay states (paper)."""
    start_states: Literal["all", "slice_start"] = "all"
    """Which replay states start imagined rollouts: all (s_1 ~ B), or none of an episode's last H (released: first of a slice)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products of the frozen model and the critics; parameters, sums and the actor stay float32."""

    normalise_obs: bool = field(default=False, metadata=LATER)
    """Running statistics of what actor and critics see (SHAC)."""
    reward_scale: Positive = field(default=1.0, metadata=LATER)
    """Multiplies the rewards that are learned from, so that values are of order 1 to 100. Reported returns are unscaled."""
    target_kept: Fraction = field(default=0.0, metadata=LATER)
    """Share of the old target critics that stays after an update (SHAC); at 0 the critics are their own target (Eq. 7-8)."""

    def __post_init__(self) -> None:
        if self.critic_sampling == "time_blocks" and self.horizon % self.critic_minibatches:
            said = f"critic_sampling='time_blocks' needs a divisor of horizon={self.horizon}"
            raise SettingError("critic_minibatches", self.critic_minibatches, said)

    @property
    def start_margin(self) -> int:
        """Last steps of an episode whose states start no imagined rollout."""
        return self.horizon if self.start_states == "slice_start" else 0

    def returns(self, roll: Rollout, value: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute what the actor climbs under these settings (Eq. 6), [batch]."""
        lam = self.lam if self.actor_objective == "td_lambda" else None
        twice = self.terminal_discount == "gamma^(H+1)"
        return actor_returns(roll, value, gamma=self.gamma, lam=lam, discounts_at_end=1 + twice)

    def targets(self, roll: Rollout, value: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute what the critics learn under these settings (Eq. 7-8), [horizon, batch]."""
        return critic_targets(roll, value, gamma=self.gamma, lam=self.lam if self.critic_target == "td_lambda" else 0.0)

    @classmethod
    def variant(cls, name: Variant, **overrides: object) -> PWMConfig:
        """Give the paper's or the released code's choices; keyword arguments override single fields."""
        if one_of(name, get_args(Variant), "variant") == "paper":
            return replace(cls(), **overrides)
        released: dict[str, object] = {
            "batch": 512, "norm_order": "after_activation", "terminal_discount": "gamma^(H+1)", "detach_policy_input": True,
            "actor_loss_scale": "horizon", "return_scaling": "running_std", "critic_target": "td0", "critic_value": "min",
            "critic_loss": "mean", "critic_sampling": "time_blocks", "start_states": "slice_start",
        }  # fmt: skip
        return replace(cls(), **{**released, **overrides})


class PWM(Continued):
    """Actor, critics and their optimisers in one world; `update` is one iteration of Algorithm 1.

    The world is frozen dynamics (PWM), or environments that a simulator differentiates (SHAC) or a world model does (PWM online).
    All randomness comes from one generator, so that `state_dict` holds all that a bit-identical continuation needs.
    """

    def __init__(
        self,
        dynamics: Dynamics | Episodes,
        starts: StartStates | None,
        config: PWMConfig | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        record: Callable[[Rollout], None] | None = None,
    ):
        """Build the networks.

        Args:
            dynamics: the world; it is used, never trained. Frozen dynamics may be replaced between updates.
            starts: draws start states of imagined rollouts; None with `Episodes`, which go on where they are.
            config: the numbers; by default the paper's.
            seed: of the initial weights and of all that is drawn.
            device: of the networks.
            record: called with each update's rollout, without graph and with unscaled rewards, once the update has succeeded.
        """
        self.dynamics, self.starts, self.config, self.record = dynamics, starts, config or PWMConfig(), record
        self.device = torch.device(device)
        self.env = dynamics if isinstance(dynamics, Episodes) else None
        c, state_dim = self.config, dynamics.obs_dim if isinstance(dynamics, Episodes) else dynamics.state_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = Actor(
                state_dim, dynamics.action_dim, hidden=c.actor_hidden, activation=c.activation, norm=c.norm_order,
                log_std_init=c.log_std_init, min_log_std=c.min_log_std, standardise=c.normalise_obs,
            ).to(self.device)  # fmt: skip
            self.critics = Critics(
                state_dim, members=c.critics, hidden=c.critic_hidden, activation=c.activation, norm=c.norm_order,
                reduction=c.critic_value, precision=c.precision,
            ).to(self.device)  # fmt: skip
        self.target = copy.deepcopy(self.critics) if c.target_kept else self.critics
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=c.actor_lr, betas=c.betas, fused=True)
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), lr=c.critic_lr, betas=c.betas, fused=True)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.return_moments = RunningMoments(dtype=torch.float64)
        self.step = 0
        self._ends: tuple[Tensor, Tensor] | None = None
        also = [name for name, there in (("target", c.target_kept), ("env", self.env)) if there]
        self.kept = ("actor", "critics", "actor_optimiser", "critic_optimiser", "return_moments", *also, "generator", "step")

    def update(self) -> dict[str, float]:
        """Imagine, improve the actor, fit the critics; returns scalars to log.

        Raises:
            NonFiniteError: a loss or gradient was NaN or infinite; the learner, environments included, is back in the state before.
        """
        c = self.config
        with restored_on_failure(self):
            # Imagine H steps from the start states, with the graph from rewards to the actor's weights. "lived" is in the world's units.
            lived = self.imagine()
            roll = lived if c.reward_scale == 1.0 else replace(lived, rewards=c.reward_scale * lived.rewards)
            # The actor climbs the gradient of its returns (Eq. 6); then the critics learn what these returns were (Eq. 7-9).
            metrics = self._improve_actor(roll)
            metrics |= self._fit_critics(roll.detach())
        lived = lived.detach()
        # What the next update begins with, once this one has succeeded.
        if c.continued:
            self._ends = lived.ends
        if self.actor.moments is not None:
            self.actor.moments.add(lived.states)
        if self.record is not None:
            self.record(lived)
        self.step += 1
        return metrics | {"reward": float(lived.rewards[lived.happened].mean())}

    def imagine(self) -> Rollout:
        """Roll out the current policy, differentiably in the actor's parameters."""
        start, noise = self._draw()
        return imagine(self.dynamics, self.actor, start, noise=noise, detach_policy_input=self.config.detach_policy_input)

    def value(self, state: Tensor) -> Tensor:
        """Return V of states [..., state_dim] as returns and targets use it, [...]."""
        return self.target.value(self.actor.normalise(state))

    def actor_loss(self, roll: Rollout) -> Tensor:
        """Compute minus the (scaled) mean return, a scalar (Eq. 6)."""
        c = self.config
        returns = c.returns(roll, self.value)
        if c.return_scaling == "running_std":
            self.return_moments.add(returns.detach())
            return -returns.mean() / float(self.return_moments.std)
        return -returns.mean() / (c.horizon if c.actor_loss_scale == "horizon" else 1)

    def critic_loss(self, states: Tensor, targets: Tensor, steps: float | None = None) -> Tensor:
        """Compute Eq. 9 for states [n, state_dim], targets [n] of trajectories of `steps` steps on average (default: the horizon)."""
        squared = (self.critics(states) - targets).square()
        if self.config.critic_loss == "mean":
            return squared.mean()
        return squared.sum(0).mean() * (self.config.horizon if steps is None else steps)

    def state_dict(self) -> dict[str, Any]:
        """Return all that continues the run bit-identically: parameters, optimisers, moments, step, random state, environments."""
        return super().state_dict() | ({} if self._ends is None else {"ends": list(self._ends)})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        super().load_state_dict(state)
        self._ends = tuple(x.to(self.device) for x in state["ends"]) if "ends" in state else None

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Start states [batch, state_dim] and the policy's noise [horizon, batch, action_dim] of a batch of rollouts."""
        c, generator = self.config, self.generator
        if self.env is not None:  # episodes go on where they are
            start = self.env.detach()
        elif self.starts is None:
            raise ValueError("PWM: starts=None is for environments with episodes of their own; frozen dynamics need start states")
        else:
            start = self.starts(c.batch, generator)
        if self._ends is not None:
            states, alive = self._ends
            goes_on = alive & (torch.rand(c.batch, generator=generator, device=self.device) < c.continued)
            start = torch.where(goes_on[:, None], states, start)
        return start, torch.randn(c.horizon, len(start), self.actor.action_dim, generator=generator, device=self.device)

    def _improve_actor(self, roll: Rollout) -> dict[str, float]:
        c = self.config
        loss = self.actor_loss(roll)  # its gradient goes back through all H steps (Eq. 3)
        rate = {"lr": self._learning_rate(c.actor_lr), "max_norm": c.actor_grad_norm}
        norm = gradient_step(self.actor_optimiser, loss, **rate, update=self.step + 1, name="actor")
        self.actor.clamp_log_std_()
        # Where tanh is flat the actor learns nothing: the share of such actions is logged.
        saturated = (roll.actions.detach()[roll.happened].abs() > 0.97).float().mean()
        return {"actor_loss": float(loss.detach()), "actor_grad_norm": norm, "saturation": float(saturated)}

    def _fit_critics(self, roll: Rollout) -> dict[str, float]:
        c, happened = self.config, roll.happened
        targets = c.targets(roll, self.value)[happened]  # Eq. 7-8 by the critics as they are, of the steps that happened
        states = self.actor.normalise(roll.states[happened])
        check_finite(self.step + 1, critic_targets=targets.sum())
        rate = {"lr": self._learning_rate(c.critic_lr), "max_norm": c.critic_grad_norm}
        losses, norm = [], 0.0
        for rows in self._minibatches(len(targets)):  # Eq. 9 on one part of the data after the other
            loss = self.critic_loss(states[rows], targets[rows], len(targets) / happened.shape[1])
            norm = gradient_step(self.critic_optimiser, loss, **rate, update=self.step + 1, name="critic")
            losses.append(loss.detach())
        if c.target_kept:  # the target critics follow slowly (SHAC)
            with torch.no_grad():
                for slow, fast in zip(self.target.parameters(), self.critics.parameters(), strict=True):
                    slow.lerp_(fast, 1 - c.target_kept)
        return {"critic_loss": float(torch.stack(losses).mean()), "critic_grad_norm": norm, "value": float(targets.mean())}

    def _minibatches(self, count: int) -> Iterator[Tensor]:
        """Indices of the rows of each critic step, of `count` in the order of time; as many steps whatever `count` is."""
        c = self.config
        for _ in range(c.critic_iterations):
            if c.critic_sampling == "uniform":
                yield torch.randint(count, (max(1, count // c.critic_minibatches),), generator=self.generator, device=self.device)
            elif c.critic_sampling == "shuffled":
                yield from torch.randperm(count, generator=self.generator, device=self.device).chunk(c.critic_minibatches)
            else:
                rows = torch.arange(max(count, c.critic_minibatches), device=self.device) % count
                yield from rows.tensor_split(c.critic_minibatches)

    def _learning_rate(self, start: float) -> float:
        done = min(self.step / self.config.updates, 1.0) if self.config.lr_schedule == "linear" else 0.0
        return start + (self.config.final_lr - start) * done
