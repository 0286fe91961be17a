"""TD-MPC2 (Hansen et al. 2024), the paper's model-based peer: the same world model with a Q-ensemble and a policy prior learned jointly.

Offline on multi-task slices as in Section 4.2, or on slices of a growing replay that may run into an episode's end (Section 4.1,
`pwmlib.baselines.tdmpc2_online`); acting is by planning (`pwmlib.baselines.tdmpc2_planner`) or by the prior alone.
Method and coefficients are those of the code published with that paper (October 2023); what differs is a setting.
"""

import copy
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pwmlib.continuation import Continued
from pwmlib.errors import check_finite, restored_on_failure
from pwmlib.model.layers import MLPEnsemble, linear_layers, mlp, training_mode
from pwmlib.model.training import SliceSource, gradient_step
from pwmlib.model.twohot import TwoHot
from pwmlib.model.world_model import WorldModel
from pwmlib.settings import Count, Fraction, NonNegative, Positive, Real, SettingError, Several, settings

__all__ = ["TDMPC2", "TDMPC2Config", "TDMPC2Trainer", "task_discount"]


def task_discount(decisions: int) -> float:
    """Return gamma = clip((L/5 - 1) / (L/5), 0.95, 0.995) for episodes of L decisions."""
    return float(np.clip((decisions / 5 - 1) / (decisions / 5), 0.95, 0.995))


@settings
class TDMPC2Config:
    """Settings of the training; times are in decisions."""

    updates: Count = 100_000
    horizon: Count = 3
    batch: Count = 256
    lr: Positive = 3e-4
    encoder_lr_scale: NonNegative = 0.3
    rho: Fraction = 0.5
    """Weight rho^t of step t in every loss but the termination's."""
    consistency_coef: NonNegative = 20.0
    reward_coef: NonNegative = 0.1
    value_coef: NonNegative = 0.1
    entropy_coef: NonNegative = 1e-4
    tau: Fraction = 0.01
    """Rate at which target Q-functions follow."""
    grad_norm: Positive = 20.0
    members: Several = 5
    """Of the Q-ensemble; two drawn at random give a value."""
    hidden: tuple[Count, ...] = (512, 512)
    """Of Q-functions and policy prior."""
    dropout: Fraction = 0.01
    """Of the first layer of the Q-functions, in their losses alone: neither target values nor plans have it."""
    log_std: tuple[Real, Real] = (-10.0, 2.0)
    tanh_correction: bool = True
    """Of the prior's entropy: the Gaussian's times the number of a task's action entries, and once the correction for tanh, which the
    public code dropped in December 2024."""
    termination_coef: NonNegative = 1.0
    """Of the cross-entropy of a model's termination head, where it has one."""

    def __post_init__(self) -> None:
        if not self.log_std[0] < self.log_std[1]:
            raise SettingError("log_std", self.log_std, "must be two rising numbers")


class TDMPC2(nn.Module):
    """The agent is a world model, Q-functions (two-hot), target Q-functions, and a Gaussian policy prior squashed by tanh."""

    def __init__(self, model: WorldModel, config: TDMPC2Config | None = None):
        super().__init__()
        self.model, self.config = model, config or TDMPC2Config()
        c, two_hot = self.config, model.config.two_hot
        if two_hot is None:
            raise ValueError("TDMPC2: the world model needs a two-hot reward head; its values use the same bins")
        self.two_hot: TwoHot = two_hot
        state = model.latent_dim + model.config.task_dim
        self.q = MLPEnsemble(c.members, state + model.action_dim, c.hidden, two_hot.bins)
        self.prior = mlp(state, c.hidden, 2 * model.action_dim)
        layers = linear_layers(self.prior)
        for weight in (*self.q.weights, *(layer.weight for layer in layers)):
            nn.init.trunc_normal_(weight, std=0.02)
        for last in (self.q.weights[-1], *(layer.bias for layer in layers)):
            nn.init.zeros_(last)
        self.target_q = copy.deepcopy(self.q).requires_grad_(False)

    def inputs(self, z: Tensor, task: Tensor) -> Tensor:
        """Join [z | e], shape [..., latent_dim + task_dim]."""
        return torch.cat([z, *self.model._embed(task, z)], -1)

    def policy(self, z: Tensor, task: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return an action [..., action_dim] and its scaled entropy [...]; entries that a task lacks are 0 and count for nothing.

        noise: standard normal, or None for the mode.
        """
        low, high = self.config.log_std
        mean, log_std = self.prior(self.inputs(z, task)).chunk(2, -1)
        log_std = low + 0.5 * (high - low) * (torch.tanh(log_std) + 1)
        mask = self.model.action_mask[task]
        if noise is None:
            noise = torch.zeros_like(mean)
        action = torch.tanh(mean + log_std.exp() * noise)
        entropy = mask.sum(-1) * ((0.5 * noise.square() + log_std + 0.9189385) * mask).sum(-1)
        if self.config.tanh_correction:
            entropy = entropy + (torch.log(torch.relu(1 - action.square()) + 1e-6) * mask).sum(-1)
        return action * mask, entropy

    def goes_on(self, z: Tensor, task: Tensor) -> Tensor:
        """Return 1 where the episode goes on in z [..., latent_dim], 0 where the model takes it to have ended; shape [...]."""
        if self.model.termination_head is None:
            return torch.ones(z.shape[:-1], device=z.device)
        return (self.model.termination_logit(z, task) <= 0).to(z.dtype)

    def values(self, z: Tensor, action: Tensor, task: Tensor, *, dropout: torch.Generator | None = None) -> Tensor:
        """Return the logits of every Q-function, [members, ..., bins]; `dropout` is the generator that draws it, or None for none."""
        inputs, rate, keep = torch.cat([self.inputs(z, task), action], -1), self.config.dropout, None
        if dropout is not None and rate and self.config.hidden:
            shape = (self.config.members, inputs[..., 0].numel(), self.config.hidden[0])
            keep = (torch.rand(shape, generator=dropout, device=z.device) >= rate) / (1 - rate)
        return self.q(inputs, keep)

    def value(self, z: Tensor, action: Tensor, task: Tensor, pair: Tensor, *, dropout: torch.Generator | None = None) -> Tensor:
        """Return the value in reward units, [...]: the mean of two members."""
        return self.two_hot.decode(self.values(z, action, task, dropout=dropout)[pair], inverse_symlog=True).mean(0)

    def target_value(self, z: Tensor, action: Tensor, task: Tensor, pair: Tensor) -> Tensor:
        """Return the value in reward units, [...]: the minimum of two target members."""
        logits = self.target_q(torch.cat([self.inputs(z, task), action], -1))[pair]
        return self.two_hot.decode(logits, inverse_symlog=True).min(0).values


class TDMPC2Trainer(Continued):
    """An `update` is a joint gradient step of model and values, then one of the prior; `state_dict` continues it bit-identically."""

    kept = ("model", "agent", "optimiser", "prior_optimiser", "rng", "generator", "scale", "step")

    def __init__(self, model: WorldModel, data: SliceSource, discounts: Tensor, config: TDMPC2Config | None = None, *, seed: int = 0):
        """Build agent and optimisers; `discounts` is gamma of each task, [tasks] (`task_discount`)."""
        if discounts.shape != (model.tasks,):
            raise ValueError(f"TDMPC2Trainer: discounts must have shape [{model.tasks}], got {tuple(discounts.shape)}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.agent = TDMPC2(model, config).to(model.obs_mean.device)
        c = self.config = self.agent.config
        self.model, self.data, self.discounts = model, data, discounts.to(model.obs_mean.device)
        encoder = [] if model.encoder is None else list(model.encoder.parameters())
        rest = [p for p in (*model.parameters(), *self.agent.q.parameters()) if not any(p is e for e in encoder)]
        groups = [{"params": rest, "lr": c.lr}, {"params": encoder, "lr": c.lr * c.encoder_lr_scale}]
        self.optimiser = torch.optim.Adam(groups, fused=True)
        self.prior_optimiser = torch.optim.Adam(self.agent.prior.parameters(), lr=c.lr, eps=1e-5, fused=True)
        self.rng, self.generator = np.random.default_rng(seed), torch.Generator(self.discounts.device).manual_seed(seed)
        self.scale = torch.ones((), device=self.discounts.device)
        """Running 5 % to 95 % range of the values, by which the prior's objective is divided."""
        self.step = 0

    def update(self) -> dict[str, float]:
        """Take one step; returns scalars to log, and raises NonFiniteError."""
        c, agent = self.config, self.agent
        with restored_on_failure(self):
            with training_mode(agent.model, True):
                terms, latents, task, counted = self._model_losses()
            loss = sum((getattr(c, f"{name}_coef") * term for name, term in terms.items()), torch.zeros(()))
            step = partial(gradient_step, lr=None, max_norm=c.grad_norm, update=self.step + 1)
            norm = step(self.optimiser, loss, name="joint")
            prior_loss, scale = self._prior_loss(latents.detach(), task, counted)
            step(self.prior_optimiser, prior_loss, name="prior")
        with torch.no_grad():
            for slow, fast in zip(agent.target_q.parameters(), agent.q.parameters(), strict=True):
                slow.lerp_(fast, c.tau)
        self.scale = scale
        self.step += 1
        logged = {f"{name}_loss": float(term.detach()) for name, term in terms.items()}
        return {**logged, "prior_loss": float(prior_loss.detach()), "grad_norm": norm, "value_scale": float(scale)}

    def _model_losses(self) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor | float]:
        """Losses of a batch of slices; the latents of the rollout [H + 1, batch, ...]; the tasks; which latents count [H + 1, batch]."""
        c, agent, model = self.config, self.agent, self.agent.model
        obs, action, reward, task, *ends = (x.to(self.discounts.device) for x in self.data.slices(c.batch, c.horizon, self.rng))
        valid, terminated = ends or (None, None)
        with torch.no_grad():
            following = model.encode(obs[1:], task)
            chosen, _ = agent.policy(following, task, self._noise(following))
            next_value = agent.target_value(following, chosen, task, self._pair())
            if terminated is not None:
                next_value = next_value * ~terminated
            targets = reward + self.discounts[task] * next_value
            check_finite(self.step + 1, value_targets=targets.sum())
        latents = model.unroll(obs[0], action, task)
        values = agent.values(latents[:-1], action, task, dropout=self.generator)
        parts = {
            "consistency": (latents[1:] - following).square().mean(-1),
            "reward": agent.two_hot.cross_entropy(model.reward_logits(latents[:-1], action, task), reward),
            "value": agent.two_hot.cross_entropy(values, targets.expand(c.members, -1, -1)).mean(0),
        }
        if model.termination_head is not None:
            if terminated is None:
                raise ValueError("TDMPC2Trainer: the model has a termination head, but the data does not say which steps end an episode")
            logits = model.termination_logit(latents[1:], task)
            parts["termination"] = F.binary_cross_entropy_with_logits(logits, terminated.to(logits.dtype), reduction="none")
        counted: Tensor | float = 1.0
        if valid is not None and terminated is not None:
            parts = {name: part * valid for name, part in parts.items()}
            counted = torch.cat([valid, (valid[-1] * ~terminated[-1])[None]])
        weight = c.rho ** torch.arange(c.horizon, device=obs.device, dtype=obs.dtype)
        terms = {k: ((1.0 if k == "termination" else weight) * part.mean(-1)).sum() / c.horizon for k, part in parts.items()}
        return terms, latents, task, counted

    def _prior_loss(self, latents: Tensor, task: Tensor, counted: Tensor | float) -> tuple[Tensor, Tensor]:
        """Minus the value of the prior's actions (scaled) and its entropy, weighted rho^t, where `counted`; and the new scale."""
        c, agent = self.config, self.agent
        action, entropy = agent.policy(latents, task, self._noise(latents))
        value = agent.value(latents, action, task, self._pair(), dropout=self.generator)
        low, high = torch.quantile(value[0].detach(), torch.tensor([0.05, 0.95], device=value.device))
        scale = torch.lerp(self.scale, (high - low).clamp(min=1.0), c.tau)
        weight = c.rho ** torch.arange(len(latents), device=value.device, dtype=value.dtype)
        return -(weight * (counted * (value / scale + c.entropy_coef * entropy)).mean(-1)).mean(), scale

    def _noise(self, z: Tensor) -> Tensor:
        return torch.randn(*z.shape[:-1], self.agent.model.action_dim, generator=self.generator, device=z.device)

    def _pair(self) -> Tensor:
        return torch.randperm(self.config.members, generator=self.generator, device=self.discounts.device)[:2]
